import asyncio
import time

import pytest

from parley_kit.offload import each


def slow(number: int) -> int:
    """Something that takes longer than a slice."""
    until = time.perf_counter() + 0.0012
    while time.perf_counter() < until:
        pass
    return number * 2


async def test_everything_is_done_in_order() -> None:
    assert [0, 2, 4, 6] == await each(slow, range(4))
    assert [] == await each(slow, [])


async def test_what_fails_ends_it() -> None:
    with pytest.raises(ZeroDivisionError):
        await each(lambda number: 1 // number, [1, 0])
    assert [2] == await each(slow, [1])


async def test_a_turn_of_the_loop_has_one_slice_however_many_are_at_it() -> None:
    done: list[int] = []

    def note(number: int) -> None:
        done.append(slow(number))

    jobs = [asyncio.create_task(each(note, range(5))) for _ in range(4)]
    await asyncio.sleep(0)  # everybody's first
    assert 4 == len(done)
    while not all(job.done() for job in jobs):
        before = len(done)
        await asyncio.sleep(0)
        assert len(done) <= before + 1
    assert 20 == len(done)


async def test_one_that_is_cancelled_holds_nobody_up() -> None:
    jobs = [asyncio.create_task(each(slow, range(50))) for _ in range(3)]
    await asyncio.sleep(0.01)
    jobs[0].cancel()
    async with asyncio.timeout(5):
        others = await asyncio.gather(*jobs, return_exceptions=True)
    assert isinstance(others[0], asyncio.CancelledError)
    assert [50, 50] == [len(found) for found in others[1:] if isinstance(found, list)]
