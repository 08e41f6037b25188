"""
Deadlines across hops.

gRPC's Python does not hand a call's deadline on to the calls that it makes; this does, and keeps 20 ms a hop to answer
in (after letsencrypt/boulder, ``grpc/interceptors.go``).
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import grpc

from parley_kit.faults import DeadlineTooShort
from parley_rpc.status import fault_from

DEFAULT_SECONDS = 30.0
SHORTEST_SECONDS = 0.1
HOP_SECONDS = 0.02

AT_ONCE = 32
"""
How many calls of one method a process has under way; the others wait their turn here, within their deadlines.

A server takes a hundred calls on a connection and refuses more, and to a caller that always has a hundred it refuses even
some of those: it counts each a while longer. Three busy methods of one service fit.
"""

_Request = TypeVar("_Request")
_Response = TypeVar("_Response")

_ends: ContextVar[float | None] = ContextVar("parley_deadline", default=None)
# By method, since that is all that a call knows of the channel it goes over.
_turns: WeakKeyDictionary[object, asyncio.Semaphore] = WeakKeyDictionary()


def remaining() -> float | None:
    """Seconds until the call being handled must have answered; None outside a call, and in one without an end."""
    end = _ends.get()
    return None if end is None else end - time.monotonic()


def remember(seconds: float | None) -> None:
    """Set what :func:`remaining` counts down from, in this context. None lifts it, for work that outlives its call."""
    _ends.set(None if seconds is None else time.monotonic() + seconds)


@asynccontextmanager
async def in_time() -> AsyncIterator[None]:
    """
    End a block while there is time to answer the call being handled without it: 20 ms before its end.

    For what a call can do without. Raises DeadlineTooShort.
    """
    left = remaining()
    scope = asyncio.timeout(None if left is None else left - HOP_SECONDS)
    try:
        async with scope:
            yield
    except TimeoutError:
        if not scope.expired():
            raise
        raise DeadlineTooShort from None


async def call(
    method: grpc.aio.UnaryUnaryMultiCallable[_Request, _Response],
    request: _Request,
    *,
    timeout: float = 5.0,  # noqa: ASYNC109 - the deadline goes out on the wire
) -> _Response:
    """
    Ask another service: the method is a stub's, ``vault.Match``.

    Takes ``timeout`` seconds at most, and 20 ms less than the call being handled has left. Raises the Fault that the
    other side raised, DeadlineTooShort without asking if nothing is left, Unavailable if it can't be reached.
    """
    left = remaining()
    budget = timeout if left is None else min(timeout, left - HOP_SECONDS)
    until = time.monotonic() + budget
    async with _turn(method, budget):
        try:
            return await method(request, timeout=_ahead(until))
        except grpc.aio.AioRpcError as error:
            fault = fault_from(error)
        raise fault  # outside the handler: the gRPC error would stay in the chain, and with it what the peer said


@asynccontextmanager
async def _turn(method: Any, seconds: float) -> AsyncIterator[None]:
    turns = _turns.setdefault(method, asyncio.Semaphore(AT_ONCE))
    try:
        async with asyncio.timeout(seconds):
            await turns.acquire()
    except TimeoutError:
        raise DeadlineTooShort from None
    try:
        yield
    finally:
        turns.release()


def _ahead(until: float) -> float:
    seconds = until - time.monotonic()
    if seconds <= 0:
        raise DeadlineTooShort
    return seconds
