"""What is done every so often goes on, whatever fails once."""

import asyncio
import io
import json

import pytest

from parley_db.upkeep import every
from parley_kit.faults import Unavailable
from parley_rpc.logs import logger


async def test_what_is_done_every_so_often_outlives_whatever_fails_and_says_so_once() -> None:
    log, turns = io.StringIO(), 0
    failures = {1: TimeoutError(), 2: TimeoutError(), 3: Unavailable(), 5: TimeoutError()}

    async def turn() -> None:
        nonlocal turns
        turns += 1
        if turns in failures:
            raise failures[turns]
        if turns == 6:
            raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        await every(0, turn, logger("test", stream=log), "waiting")

    said = [json.loads(line) for line in log.getvalue().splitlines()]
    assert ["TimeoutError", "Unavailable", "TimeoutError"] == [line["error_type"] for line in said]
