import asyncio

import pytest

from parley_kit.faults import DeadlineTooShort
from parley_rpc import deadlines


async def test_block_that_a_call_can_do_without_ends_before_the_call_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "HOP_SECONDS", 0.5)
    deadlines.remember(0.6)
    with pytest.raises(DeadlineTooShort):
        async with deadlines.in_time():
            await asyncio.sleep(60)
    left = deadlines.remaining()
    assert left is not None
    assert 0 < left <= 0.5


async def test_block_that_is_done_in_time_is_done() -> None:
    for seconds in (60.0, None):
        deadlines.remember(seconds)
        async with deadlines.in_time():
            await asyncio.sleep(0)


async def test_what_a_block_raises_itself_passes_a_timeout_among_it() -> None:
    deadlines.remember(60)
    for error in (TimeoutError("its own"), ValueError()):
        with pytest.raises(type(error)) as raised:
            async with deadlines.in_time():
                raise error
        assert error is raised.value


async def test_whoever_goes_away_is_not_taken_for_too_late() -> None:
    async def block() -> None:
        deadlines.remember(60)
        async with deadlines.in_time():
            await asyncio.sleep(60)

    task = asyncio.create_task(block())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
