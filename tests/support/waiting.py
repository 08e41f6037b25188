"""Waiting for what must come true, instead of for a time in which it should have."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any


async def until(condition: Callable[[], Awaitable[object]], seconds: float = 15.0) -> None:
    """Ask again every 10 ms until ``condition`` answers something true; TimeoutError after ``seconds``."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 - it is often in another process
            await asyncio.sleep(0.01)


@asynccontextmanager
async def beside(*work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Have work done for the length of a block. What it failed with is raised at the end, whatever the block came to by that."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for ended in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(ended, Exception):  # a cancellation is none
                raise ended
