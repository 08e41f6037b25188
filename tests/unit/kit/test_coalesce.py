"""Coalescing: who waits together shares the work, and nobody waits for company."""

import asyncio
from collections.abc import Sequence

import pytest

from parley_kit.coalesce import Coalescer
from parley_kit.telemetry import traceparent


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


async def _turns() -> None:
    """Let the loop do what is due by now."""
    for _ in range(5):
        await asyncio.sleep(0)


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
    coalescer = Coalescer(work)
    tasks = [*await _begun(coalescer, 1), *await _begun(coalescer, 2, 3, 4)]
    work.go.set()
    assert [2, 4, 6, 8] == await asyncio.gather(*tasks)
    assert [[1], [2, 3, 4]] == work.batches


async def test_batch_that_hangs_keeps_nobody_else_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parley_kit.coalesce.PATIENCE_S", 0)
    work = Work()
    coalescer = Coalescer(work)
    hanging = await _begun(coalescer, 1)
    others = await _begun(coalescer, 2, 3)
    await _turns()
    assert [[1], [2, 3]] == work.batches
    work.go.set()
    assert [2, 4, 6] == await asyncio.gather(*hanging, *others)


async def test_late_batch_that_ends_does_not_let_two_run_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    gates = {number: asyncio.Event() for number in (1, 2, 3)}
    begun: list[int] = []

    async def work(numbers: Sequence[int]) -> Sequence[int]:
        begun.append(numbers[0])
        await gates[numbers[0]].wait()
        return numbers

    coalescer = Coalescer(work, most=1)
    monkeypatch.setattr("parley_kit.coalesce.PATIENCE_S", 0)
    (late,) = await _begun(coalescer, 1)
    monkeypatch.setattr("parley_kit.coalesce.PATIENCE_S", 60)
    (second, third) = await _begun(coalescer, 2, 3)
    await _turns()
    gates[1].set()
    await late
    await _turns()
    assert [1, 2] == begun
    gates[2].set()
    gates[3].set()
    assert [2, 3] == [await second, await third]


async def test_batch_has_its_most() -> None:
    work = Work()
    tasks = await _begun(Coalescer(work, most=2), 1, 2, 3, 4, 5, 6)
    work.go.set()
    await asyncio.gather(*tasks)
    assert 2 == max(map(len, work.batches))


async def test_what_the_work_raises_all_of_the_batch_get_and_nobody_else() -> None:
    work = Work()
    coalescer = Coalescer(work)
    tasks = [*await _begun(coalescer, 1), *await _begun(coalescer, -1, 3)]
    work.go.set()
    assert [2, ValueError, ValueError] == [
        found if isinstance(found, int) else type(found)
        for found in await asyncio.gather(*tasks, return_exceptions=True)
    ]


async def test_error_that_may_be_one_requests_doing_is_that_requests_alone() -> None:
    work = Work()
    coalescer = Coalescer(work, alone=lambda error: isinstance(error, ValueError))
    tasks = [*await _begun(coalescer, 1), *await _begun(coalescer, -1, 3)]
    work.go.set()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [2, 6] == [found[0], found[2]]
    assert isinstance(found[1], ValueError)
    assert [[1], [-1, 3], [-1], [3]] == work.batches


async def test_what_is_done_again_is_answered_as_it_ends() -> None:
    done: list[list[int]] = []
    first, slow = asyncio.Event(), asyncio.Event()

    async def work(numbers: Sequence[int]) -> Sequence[int]:
        done.append(list(numbers))
        await (slow if [3] == numbers else first).wait()
        if len(numbers) > 1:
            raise ValueError("one of them")
        return numbers

    coalescer = Coalescer(work, alone=lambda _error: True)
    (busy,) = await _begun(coalescer, 1)
    quick, waits = await _begun(coalescer, 2, 3)
    first.set()
    assert (1, 2) == (await busy, await asyncio.wait_for(quick, 1))
    slow.set()
    assert 3 == await waits
    assert [[1], [2, 3], [2], [3]] == done


async def test_whoever_goes_away_while_a_batch_is_under_way_is_not_done_again() -> None:
    work = Work()
    coalescer = Coalescer(work, alone=lambda _error: True)
    busy = await _begun(coalescer, 1)
    gates = work.go
    work.go = asyncio.Event()
    gates.set()
    failing, waits, gone = await _begun(coalescer, -1, 3, 4)
    await _turns()
    gone.cancel()
    await _turns()
    work.go.set()
    assert [2, 6] == await asyncio.gather(*busy, waits)
    with pytest.raises(ValueError, match="minus one"):
        await failing
    assert [[1], [-1, 3, 4], [-1], [3]] == work.batches


async def test_nothing_is_begun_for_whoever_goes_away_at_the_very_moment() -> None:
    work = Work()
    work.go.set()
    coalescer = Coalescer(work)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await coalescer.submit(1)
    await _turns()
    assert [] == work.batches


async def test_whoever_waits_is_told_where_the_work_is_stopped_before_it_is_done_again() -> None:
    def stop(_error: Exception) -> bool:
        doing = asyncio.current_task()
        assert doing is not None
        doing.cancel()
        return True

    work = Work()
    coalescer = Coalescer(work, alone=stop)
    tasks = [*await _begun(coalescer, 1), *await _begun(coalescer, -1, 3)]
    work.go.set()
    done, waiting = await asyncio.wait(tasks, timeout=5)
    assert (3, 0) == (len(done), len(waiting))
    assert [False, True, True] == [task.cancelled() for task in tasks]


async def test_what_is_done_again_for_one_is_in_its_trace() -> None:
    traces: list[tuple[list[int], str]] = []
    go = asyncio.Event()

    async def work(numbers: Sequence[int]) -> Sequence[int]:
        traces.append((list(numbers), traceparent.get()))
        await go.wait()
        if len(numbers) > 1:
            raise ValueError("one of them")
        return numbers

    coalescer = Coalescer(work, alone=lambda _error: True)
    tasks = []
    for number in (1, 2, 3):
        traceparent.set(f"trace {number}")
        tasks += await _begun(coalescer, number)
    go.set()
    await asyncio.gather(*tasks)
    assert [([1], "trace 1"), ([2, 3], ""), ([2], "trace 2"), ([3], "trace 3")] == traces


async def test_what_is_done_for_one_alone_is_in_its_trace_and_what_is_shared_in_none() -> None:
    traces: list[str] = []
    go = asyncio.Event()

    async def work(numbers: Sequence[int]) -> Sequence[int]:
        traces.append(traceparent.get())
        await go.wait()
        return numbers

    coalescer = Coalescer(work)
    traceparent.set("mine")
    tasks = [*await _begun(coalescer, 1), *await _begun(coalescer, 2, 3)]
    go.set()
    await asyncio.gather(*tasks)
    assert ["mine", ""] == traces


async def test_caller_who_goes_away_takes_nobody_along() -> None:
    work = Work()
    first, second = await _begun(Coalescer(work, most=2), 1, 2)
    first.cancel()
    work.go.set()
    assert 4 == await second
    with pytest.raises(asyncio.CancelledError):
        await first
    assert [1, 2] == [number for batch in work.batches for number in batch]


async def test_what_nobody_waits_for_any_more_is_not_begun() -> None:
    work = Work()
    coalescer = Coalescer(work)
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
