"""Waiting until every event was read by all its readers, and is in the log."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import asyncpg

_POLL_S = 0.02


@asynccontextmanager
async def drained(outboxes: Sequence[str]) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """What waits until these databases' outboxes are empty, for the length of a block."""
    connections = [await asyncpg.connect(url) for url in outboxes]

    async def wait() -> None:
        for connection in connections:
            while await connection.fetchval("SELECT EXISTS (SELECT FROM outbox)"):  # noqa: ASYNC110 - another process's
                await asyncio.sleep(_POLL_S)

    try:
        yield wait
    finally:
        for connection in connections:
            await connection.close()
