"""Coalescing: requests that wait at the same time share one piece of work."""

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from typing import Generic, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")


class Coalescer(Generic[Q, A]):
    """
    Does for many what costs little more than for one: a statement, a commit, a signature.

    ``work`` answers each request of a batch, in order; whatever it raises, all of the batch get. Nobody waits for company: a
    request that finds fewer than ``at_once`` batches under way is begun at once, and those that come meanwhile are the next
    batch, ``most`` of them at most. Where a caller is cancelled, what was begun is finished, and what wasn't is left out.
    """

    def __init__(
        self, work: Callable[[Sequence[Q]], Awaitable[Sequence[A]]], *, most: int = 64, at_once: int = 2
    ) -> None:
        self._work = work
        self._most = most
        self._at_once = at_once
        self._waiting: dict[asyncio.Future[A], Q] = {}
        self._under_way: set[asyncio.Task[None]] = set()

    async def submit(self, request: Q) -> A:
        """Have a request done, with whatever else waits. Raises what the work raises."""
        answer: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._waiting[answer] = request
        if len(self._under_way) < self._at_once:
            self._begin()
        try:
            return await answer
        finally:
            self._waiting.pop(answer, None)

    def _begin(self) -> None:
        # A context of its own: the work is nobody's call, and has nobody's deadline.
        task = asyncio.create_task(self._next(), context=contextvars.Context())
        self._under_way.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        if self._waiting:
            self._begin()

    async def _next(self) -> None:
        batch = {answer: self._waiting.pop(answer) for answer in list(islice(self._waiting, self._most))}
        if not batch:  # another batch, begun in the same moment, took them along
            return
        try:
            answers = list(zip(batch, await self._work(list(batch.values())), strict=True))
        except BaseException as error:
            for answer in batch:
                if not answer.done():
                    answer.set_exception(_of(error))
            if not isinstance(error, Exception):
                raise
            return
        for answer, found in answers:
            if not answer.done():
                answer.set_result(found)


def _of(error: BaseException) -> BaseException:
    """An error as a future takes it: what stops the work cancels those who wait for it."""
    return error if isinstance(error, Exception) else asyncio.CancelledError()
