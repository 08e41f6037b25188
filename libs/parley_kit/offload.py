"""Crypto in bulk: in slices on the event loop, or in a thread."""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar
from weakref import WeakKeyDictionary

Q = TypeVar("Q")
A = TypeVar("A")

_INLINE = 8
_SLICE_S = 0.001
_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()


async def each(function: Callable[[Q], A], things: Iterable[Q]) -> list[A]:
    """
    Do something to many things, in order, that takes some tens of microseconds each; others get their turns in between.

    In a thread each call into libsodium would give up the interpreter's lock, and wait to get it back behind whatever the loop is
    doing: a campaign took a third longer. However many do so at once, a turn of the loop has one slice of a millisecond, besides
    everybody's first.
    """
    done: list[A] = []
    rest = iter(things)
    while _slice(function, rest, done):
        async with _turns.setdefault(asyncio.get_running_loop(), asyncio.Lock()):
            await asyncio.sleep(0)
    return done


def _slice(function: Callable[[Q], A], rest: Iterator[Q], done: list[A]) -> bool:
    """Do some; whether there may be more."""
    until = time.perf_counter() + _SLICE_S
    for thing in rest:
        done.append(function(thing))
        if time.perf_counter() >= until:
            return True
    return False


async def work(count: int, function: Callable[[], A]) -> A:
    """Run a function that handles ``count`` things, each some tens of microseconds: in a thread where they are many."""
    return function() if count <= _INLINE else await asyncio.to_thread(function)
