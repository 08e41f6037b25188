"""Waiting for what must come true, instead of for a time in which it should have."""

import asyncio
from collections.abc import Awaitable, Callable


async def until(condition: Callable[[], Awaitable[object]], seconds: float = 15.0) -> None:
    """Ask again every 10 ms until ``condition`` answers something true; TimeoutError after ``seconds``."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 - it is often in another process
            await asyncio.sleep(0.01)
