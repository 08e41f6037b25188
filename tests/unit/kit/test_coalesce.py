"""Coalescing: who waits together shares the work, and nobody waits for company."""

import asyncio
from collections.abc import Sequence

import pytest

from parley_kit.coalesce import Coalescer


class Work:
    """Doubles numbers, when it is let; notes who came together."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go = asyncio.Event()

    async def __call__(self, numbers: Sequence[int]) -> list[int]:
        self.batches.append(list(numbers))
        await self.go.wait()
        if -1 in numbers:
            raise ValueError("minus one")
        return [2 * number for number in numbers]


async def _begun(coalescer: Coalescer[int, int], *numbers: int) -> list[asyncio.Task[int]]:
    tasks = [asyncio.create_task(coalescer.submit(number)) for number in numbers]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return tasks


async def test_who_comes_first_is_not_kept_waiting_for_others() -> None:
    work = Work()
    await _begun(Coalescer(work), 1)
    assert [[1]] == work.batches
    work.go.set()


async def test_those_who_come_meanwhile_are_the_next_batch() -> None:
    work = Work()
    coalescer = Coalescer(work, at_once=2)
    tasks = [task for number in (1, 2) for task in await _begun(coalescer, number)]
    tasks += await _begun(coalescer, 3, 4, 5)
    work.go.set()
    assert [2, 4, 6, 8, 10] == await asyncio.gather(*tasks)
    assert [[1], [2], [3, 4, 5]] == work.batches


async def test_batch_has_its_most() -> None:
    work = Work()
    tasks = await _begun(Coalescer(work, most=2, at_once=1), 1, 2, 3, 4, 5, 6)
    work.go.set()
    await asyncio.gather(*tasks)
    assert 2 == max(map(len, work.batches))


async def test_what_the_work_raises_all_of_the_batch_get_and_nobody_else() -> None:
    work = Work()
    coalescer = Coalescer(work, at_once=1)
    tasks = [*await _begun(coalescer, 1), *await _begun(coalescer, -1, 3)]
    work.go.set()
    assert [2, ValueError, ValueError] == [
        found if isinstance(found, int) else type(found)
        for found in await asyncio.gather(*tasks, return_exceptions=True)
    ]


async def test_caller_who_goes_away_takes_nobody_along() -> None:
    work = Work()
    first, second = await _begun(Coalescer(work, at_once=1, most=2), 1, 2)
    first.cancel()
    work.go.set()
    assert 4 == await second
    with pytest.raises(asyncio.CancelledError):
        await first
    assert [1, 2] == [number for batch in work.batches for number in batch]


async def test_what_nobody_waits_for_any_more_is_not_begun() -> None:
    work = Work()
    coalescer = Coalescer(work, at_once=1)
    (busy,) = await _begun(coalescer, 1)
    gone, waits = await _begun(coalescer, 2, 3)
    gone.cancel()
    await asyncio.sleep(0)
    work.go.set()
    assert (2, 6) == (await busy, await waits)
    assert [[1], [3]] == work.batches


async def test_work_that_answers_too_few_leaves_nobody_waiting() -> None:
    async def one(_numbers: Sequence[int]) -> list[int]:
        return [1]

    tasks = await _begun(Coalescer(one), 1, 2)
    found = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 1)
    assert [ValueError, ValueError] == [type(each) for each in found]


async def test_work_goes_on_after_it_failed() -> None:
    work = Work()
    work.go.set()
    coalescer = Coalescer(work)
    with pytest.raises(ValueError, match="minus one"):
        await coalescer.submit(-1)
    assert 14 == await coalescer.submit(7)
