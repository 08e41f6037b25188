"""Crypto in bulk off the event loop; a little of it is quicker where it stands."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_INLINE = 8


async def work(count: int, function: Callable[[], T]) -> T:
    """Run a function that handles ``count`` things, each some tens of microseconds: in a thread where they are many."""
    return function() if count <= _INLINE else await asyncio.to_thread(function)
