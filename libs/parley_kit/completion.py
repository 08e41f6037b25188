"""Steps that are finished once they have begun, whoever goes away meanwhile."""

import asyncio
from collections.abc import Awaitable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


async def to_the_end(step: Awaitable[T]) -> T:
    """
    Finish ``step`` even if the caller is cancelled meanwhile, and only then pass the cancellation on.

    Raises what the step raises, unless the caller was cancelled.
    """
    task = asyncio.ensure_future(step)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # else asyncio would complain that nobody asked
        raise
