import asyncio
import gc

import pytest

from parley_kit.completion import begun, to_the_end


async def test_step_answers_and_fails_as_it_would_by_itself() -> None:
    assert 3 == await to_the_end(asyncio.sleep(0, 3))
    with pytest.raises(ValueError, match="its own"):
        await to_the_end(_failing(asyncio.Event(), asyncio.Event(), waits=False))


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


async def test_whoever_is_cancelled_waits_no_longer_than_their_patience_and_ends_the_step() -> None:
    goes_on, begun, given_up = asyncio.Event(), asyncio.Event(), list[bool]()
    step = to_the_end(_failing(goes_on, begun), patience=0.01, give_up=lambda: given_up.append(goes_on.is_set()))
    caller = asyncio.create_task(step)
    await begun.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    goes_on.set()
    assert [False] == given_up


async def test_step_that_ends_in_time_is_not_given_up() -> None:
    goes_on, begun, given_up = asyncio.Event(), asyncio.Event(), list[bool]()
    step = to_the_end(_waiting(goes_on, begun), patience=60, give_up=lambda: given_up.append(True))
    caller = asyncio.create_task(step)
    await begun.wait()
    caller.cancel()
    goes_on.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert [] == given_up


async def test_nobody_need_ask_what_came_of_a_step_that_was_begun() -> None:
    complained, loop = list[object](), asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: complained.append(context))
    try:
        failed = begun(_failing(asyncio.Event(), asyncio.Event(), waits=False))
        await asyncio.wait([failed])
        del failed
        gc.collect()
        await asyncio.sleep(0)
    finally:
        loop.set_exception_handler(None)
    assert [] == complained


async def _waiting(goes_on: asyncio.Event, begun: asyncio.Event) -> None:
    begun.set()
    await goes_on.wait()


async def _failing(goes_on: asyncio.Event, begun: asyncio.Event, *, waits: bool = True) -> None:
    if waits:
        await _waiting(goes_on, begun)
    raise ValueError("its own")
