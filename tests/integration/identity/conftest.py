"""One identity service a test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.databases import FreshDatabase
from tests.support.identity import World, migrated, world_of
from tests.support.servers import Pair


@pytest.fixture
async def world(pair: Pair, fresh_database: FreshDatabase, stream_prefix: str, tmp_path: Path) -> AsyncIterator[World]:
    """Identity, ready to be called."""
    dsn = await fresh_database("identity", migrated)
    async with world_of(dsn, pair.valkey_url, stream_prefix, tmp_path) as made:
        yield made
