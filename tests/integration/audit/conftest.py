"""An audit service for each test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from parley_bus.bus import Bus
from tests.support.audit import Audit, Secrets, audit_service, make_streams, migrate_audit
from tests.support.databases import FreshDatabase
from tests.support.servers import Pair


@pytest.fixture
def keys(tmp_path: Path) -> Secrets:
    return Secrets(tmp_path)


@pytest.fixture
async def bus(pair: Pair, stream_prefix: str) -> AsyncIterator[Bus]:
    async with Bus.open(pair.valkey_url, stream_prefix) as made:
        await make_streams(made)
        yield made


@pytest.fixture
async def audit(keys: Secrets, bus: Bus, fresh_database: FreshDatabase) -> AsyncIterator[Audit]:
    config = keys.config(await fresh_database("audit", migrate_audit))
    async with audit_service(config, keys, bus) as made:
        yield made
