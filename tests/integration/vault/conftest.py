"""Fixtures of the vault's tests."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from tests.support.clocks import StillClock
from tests.support.databases import FreshDatabase
from tests.support.servers import Pair
from tests.support.vault import Keys, World, migrate_vault, running

Start = Callable[[], AbstractAsyncContextManager[World]]


@pytest.fixture
async def start(pair: Pair, fresh_database: FreshDatabase, stream_prefix: str, tmp_path: Path) -> Start:
    """Start a vault, and again on the same database."""
    keys = Keys(tmp_path)
    config = keys.config(await fresh_database("vault", migrate_vault))
    return partial(
        running, keys, config, StillClock(datetime(2031, 5, 4, 12, tzinfo=UTC)), pair.valkey_url, stream_prefix
    )


@pytest.fixture
async def world(start: Start) -> AsyncIterator[World]:
    async with start() as running_world:
        yield running_world
