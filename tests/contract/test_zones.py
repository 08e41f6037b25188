"""Code, databases and streams do what deploy/trust-zones.toml lists, and it lists nothing that isn't there."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis

from parley.audit.v1 import audit_pb2
from parley.broker.v1 import broker_pb2
from parley.consent.v1 import consent_pb2
from parley.identity.v1 import identity_pb2
from parley.vault.v1 import vault_pb2
from parley_bus.bus import stream_key
from parley_node.services import SERVICES
from parley_rpc.zones import Zones
from tests.support.dumps import database_url
from tests.support.servers import scratch_directory
from tests.support.waiting import until
from tests.support.world import World, living_world

ROOT = Path(__file__).parents[2]
ZONES = Zones.load(ROOT / "deploy/trust-zones.toml")

_TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
_GRANTS = """
SELECT table_name, privilege_type FROM information_schema.role_table_grants
WHERE grantee IN ('PUBLIC', $1) AND table_schema = 'public'
"""


@pytest.fixture(scope="module")
async def world() -> AsyncIterator[World]:
    """A node, whose databases are as any node's."""
    with scratch_directory() as root:
        async with living_world(root / "home") as living:
            yield living


def test_services_are_the_zones() -> None:
    folders = {path.parent.name.removeprefix("parley_") for path in (ROOT / "services").glob("*/app.py")}
    assert set(ZONES.zones) == set(SERVICES) == folders


def test_every_rpc_is_listed_and_every_listed_one_is_there() -> None:
    modules: tuple[Any, ...] = (audit_pb2, broker_pb2, consent_pb2, identity_pb2, vault_pb2)
    there = {
        f"/{service.full_name}/{method.name}"
        for module in modules
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    assert there == set(ZONES.calls)


@pytest.mark.parametrize("name", SERVICES)
async def test_every_table_is_listed_and_its_role_holds_what_is_listed_and_nothing_else(
    world: World, name: str
) -> None:
    listed: Mapping[str, tuple[str, ...]] = ZONES.zones[name].tables
    connection = await asyncpg.connect(database_url(world, name))
    try:
        tables = {row["tablename"] for row in await connection.fetch(_TABLES)}
        held = {tuple(row) for row in await connection.fetch(_GRANTS, f"parley_{name}")}
        owned = await connection.fetchval(
            "SELECT count(*) FROM pg_class WHERE relowner = $1::regrole", f"parley_{name}"
        )
    finally:
        await connection.close()
    assert set(listed) == tables
    assert {(table, verb) for table, verbs in listed.items() for verb in verbs} == held
    assert 0 == owned


async def test_streams_have_the_readers_that_are_listed_and_each_of_them_reads(world: World) -> None:
    async with Redis.from_url(world.servers.valkey_url, decode_responses=True) as client:

        async def readers(writer: str) -> set[str]:
            groups = await client.xinfo_groups(stream_key(writer))
            return {group["name"] for group in groups if group["consumers"]}

        for writer, listed in ZONES.readers.items():
            await until(lambda: _equal(readers(writer), set(listed)))  # noqa: B023 - waited for within the turn
            assert {group["name"] for group in await client.xinfo_groups(stream_key(writer))} == set(listed)


async def _equal(found: Any, expected: object) -> bool:
    try:
        return bool(expected == await found)
    except Exception:  # noqa: BLE001 - a stream is made at its relay's first turn
        return False
