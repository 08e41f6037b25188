"""Waiting until every event was read by all its readers, and is in the log."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import asyncpg

_POLL_S = 0.02


@asynccontextmanager
async def drained(outboxes: Sequence[str], log: str = "") -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """
    What waits until these databases' outboxes are empty, and nothing waits in that of the log, for the length of a block.

    Audit takes events in before it enters them, and says so to all but consent.
    """
    left = [(await asyncpg.connect(url), "SELECT EXISTS (SELECT FROM outbox)") for url in outboxes]
    left += [(await asyncpg.connect(log), "SELECT EXISTS (SELECT FROM waiting)")] if log else []

    async def wait() -> None:
        for connection, query in left:
            while await connection.fetchval(query):  # noqa: ASYNC110 - another process's
                await asyncio.sleep(_POLL_S)

    try:
        yield wait
    finally:
        for connection, _ in left:
            await connection.close()
