import asyncio

import pytest

from parley_kit.completion import to_the_end


async def test_step_answers_and_fails_as_it_would_by_itself() -> None:
    assert 3 == await to_the_end(asyncio.sleep(0, 3))
    with pytest.raises(ValueError, match="its own"):
        await to_the_end(_failing(asyncio.Event(), begun=asyncio.Event(), waits=False))


@pytest.mark.parametrize("fails", [False, True])
async def test_step_is_finished_however_often_its_caller_is_cancelled(fails: bool) -> None:
    goes_on, begun = asyncio.Event(), asyncio.Event()
    step = _failing(goes_on, begun) if fails else _waiting(goes_on, begun)
    caller = asyncio.create_task(to_the_end(step))
    await begun.wait()
    for _ in range(3):
        caller.cancel()
        await asyncio.sleep(0)
        assert not caller.done()
    goes_on.set()
    with pytest.raises(asyncio.CancelledError):
        await caller


async def _waiting(goes_on: asyncio.Event, begun: asyncio.Event) -> None:
    begun.set()
    await goes_on.wait()


async def _failing(goes_on: asyncio.Event, begun: asyncio.Event, *, waits: bool = True) -> None:
    if waits:
        await _waiting(goes_on, begun)
    raise ValueError("its own")
