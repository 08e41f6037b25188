"""Steps that are finished once they have begun, whoever goes away meanwhile."""

import asyncio
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


def _wait_on() -> None:
    """What is done about a step that takes long: nothing."""


def begun(step: Awaitable[T]) -> asyncio.Future[T]:
    """Begin a step of which nobody need ask what came of it, should they go away."""
    task = asyncio.ensure_future(step)
    task.add_done_callback(_heard)
    return task


async def to_the_end(step: Awaitable[T], *, patience: float = math.inf, give_up: Callable[[], object] = _wait_on) -> T:
    """
    Finish ``step`` even if the caller is cancelled meanwhile, and only then pass the cancellation on.

    So it does after ``patience`` seconds at the latest: then ``give_up`` is called, which is to end the step, and nobody waits
    for it. Raises what the step raises, unless the caller was cancelled.
    """
    task = asyncio.ensure_future(step)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        task.add_done_callback(_heard)
        until = asyncio.get_running_loop().time() + patience
        while not task.done():
            left = until - asyncio.get_running_loop().time()
            if left <= 0:
                give_up()
                break
            with suppress(asyncio.CancelledError):
                await asyncio.wait([task], timeout=None if math.isinf(left) else left)
        raise


def _heard(task: asyncio.Future[T]) -> None:
    """Take what it raised, or asyncio would complain that nobody asked."""
    if not task.cancelled():
        task.exception()
