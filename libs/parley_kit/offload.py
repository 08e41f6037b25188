"""Crypto in bulk: in slices on the event loop, or in a thread."""

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import TypeVar

Q = TypeVar("Q")
A = TypeVar("A")

_INLINE = 8
_SLICE_S = 0.002


async def each(function: Callable[[Q], A], things: Iterable[Q]) -> list[A]:
    """
    Do something to many things, in order, that takes some tens of microseconds each; others get their turns in between.

    In a thread each call into libsodium would give up the interpreter's lock, and wait to get it back behind whatever the loop is
    doing: a campaign took a third longer.
    """
    done, until = [], time.perf_counter() + _SLICE_S
    for thing in things:
        done.append(function(thing))
        if time.perf_counter() >= until:
            await asyncio.sleep(0)
            until = time.perf_counter() + _SLICE_S
    return done


async def work(count: int, function: Callable[[], A]) -> A:
    """Run a function that handles ``count`` things, each some tens of microseconds: in a thread where they are many."""
    return function() if count <= _INLINE else await asyncio.to_thread(function)
