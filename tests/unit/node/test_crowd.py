"""Customers of the demo who act at once."""

import asyncio
import gc
import warnings

import pytest

from parley_node.demo.crowd import together


async def test_results_come_in_the_order_of_what_was_asked() -> None:
    async def one(number: int) -> int:
        for _ in range(100 - number):
            await asyncio.sleep(0)
        return number

    assert list(range(100)) == await together(one(number) for number in range(100))


async def test_what_is_cut_short_leaves_nothing_that_nobody_awaits() -> None:
    begun, some = 0, asyncio.Event()

    async def one(number: int) -> None:
        nonlocal begun
        begun = number + 1
        some.set()
        await asyncio.Event().wait()

    acting = asyncio.create_task(together(one(number) for number in range(1000)))
    await some.wait()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        acting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await acting
        gc.collect()
    assert [] == [str(warning.message) for warning in warned]
    assert 0 < begun < 100
