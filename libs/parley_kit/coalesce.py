"""Coalescing: requests that wait at the same time share one piece of work."""

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

from parley_kit.telemetry import traceparent

Q = TypeVar("Q")
A = TypeVar("A")

PATIENCE_S = 0.25
"""How long a batch keeps the next from beginning."""


@dataclass(frozen=True, slots=True)
class _Waiting(Generic[Q]):
    request: Q
    trace: str


class Coalescer(Generic[Q, A]):
    """
    Does for many what costs little more than for one: a statement, a commit, a signature, a call.

    ``work`` answers each request of a batch, in order; whatever it raises, all of the batch get. Where ``alone`` says of an error
    that it may be one request's doing, each of the batch is done by itself instead: the work must bear being done again.

    Nobody waits for company: a request that finds no batch under way is begun at once, and those that come meanwhile are the next
    batch, ``most`` of them at most. A batch that takes longer than :data:`PATIENCE_S` keeps nobody else waiting. Where a caller
    is cancelled, what was begun is finished, and what wasn't is left out.
    """

    def __init__(
        self,
        work: Callable[[Sequence[Q]], Awaitable[Sequence[A]]],
        *,
        most: int = 64,
        alone: Callable[[Exception], bool] = lambda _error: False,
    ) -> None:
        self._work = work
        self._most = most
        self._alone = alone
        self._waiting: dict[asyncio.Future[A], _Waiting[Q]] = {}
        self._newest: asyncio.Task[None] | None = None
        self._under_way: set[asyncio.Task[None]] = set()

    async def submit(self, request: Q) -> A:
        """Have a request done, with whatever else waits. Raises what the work raises."""
        answer: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._waiting[answer] = _Waiting(request, traceparent.get())
        if self._newest is None:
            self._begin()
        try:
            return await answer
        finally:
            self._waiting.pop(answer, None)

    def _begin(self) -> None:
        # A context of its own: the work is nobody's call, and has nobody's deadline.
        task = self._newest = asyncio.create_task(self._next(), context=contextvars.Context())
        self._under_way.add(task)
        patience = asyncio.get_running_loop().call_later(PATIENCE_S, self._make_way, task)

        def ended(_task: asyncio.Task[None]) -> None:
            patience.cancel()
            self._under_way.remove(task)
            self._make_way(task)

        task.add_done_callback(ended)

    def _make_way(self, task: asyncio.Task[None]) -> None:
        """Let the next batch begin, if it is this one that it waits for."""
        if task is self._newest:
            self._newest = None
            if self._waiting:
                self._begin()

    async def _next(self) -> None:
        popped = {answer: self._waiting.pop(answer) for answer in list(islice(self._waiting, self._most))}
        # Whoever just went away is left out.
        batch = {answer: one for answer, one in popped.items() if not answer.done()}
        try:
            if batch:
                await self._answer(batch)
        finally:
            _fail(batch, asyncio.CancelledError())  # who has no answer by now: what stops the work cancels them

    async def _answer(self, batch: Mapping[asyncio.Future[A], _Waiting[Q]]) -> None:
        """Answer whoever still waits; each by itself, as soon as that is done, where an error may be one request's doing."""
        if len(batch) == 1:  # what is done for one alone belongs to its trace
            traceparent.set(next(iter(batch.values())).trace)
        try:
            answers = list(zip(batch, await self._work([one.request for one in batch.values()]), strict=True))
        except Exception as error:  # noqa: BLE001 - whoever waits gets it, or what comes of their own request
            if len(batch) == 1 or not self._alone(error):
                _fail(batch, error)
                return
            again = (self._answer({answer: one}) for answer, one in batch.items() if not answer.done())
            await asyncio.gather(*again, return_exceptions=True)
            return
        for answer, found in answers:
            if not answer.done():
                answer.set_result(found)


def _fail(answers: Iterable[asyncio.Future[A]], error: BaseException) -> None:
    for answer in answers:
        if not answer.done():
            answer.set_exception(error)
