"""What tests wait with: work beside a block ends with it, and hides no failure."""

import asyncio

import pytest

from tests.support.waiting import beside


async def _fail() -> None:
    raise LookupError("the work")


async def test_work_ends_with_its_block() -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        began.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    async with beside(work()):
        await began.wait()
    assert ended.is_set()


async def test_work_that_failed_fails_its_block() -> None:
    with pytest.raises(LookupError):
        async with beside(_fail(), asyncio.sleep(60)):
            await asyncio.sleep(0)


async def test_what_a_block_failed_with_stands_behind_what_its_work_did() -> None:
    async def block() -> None:
        async with beside(_fail()):
            await asyncio.sleep(0)
            raise TimeoutError

    with pytest.raises(LookupError) as raised:
        await block()
    assert isinstance(raised.value.__context__, TimeoutError)


async def test_block_without_work_is_a_block() -> None:
    async with beside():
        await asyncio.sleep(0)
