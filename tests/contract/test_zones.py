"""Code, databases and streams do what deploy/trust-zones.toml lists, and it lists nothing that isn't there."""

import re
import tomllib
from collections.abc import AsyncIterator, Iterator, Mapping
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
_ON_COLUMNS = """
SELECT count(*) FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
WHERE c.relnamespace = 'public'::regnamespace AND a.attacl IS NOT NULL
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


def test_broker_conducts_and_the_others_call_nobody() -> None:
    """As the design has it. Whoever changes the list changes this as well: consent signs permits, and must never use one."""
    between = {
        (caller, method.split(".")[1], method.rpartition("/")[2])
        for method, callers in ZONES.calls.items()
        for kind, caller in callers
        if kind == "service"
    }
    assert between == {
        ("broker", "identity", "GetMarketerCard"),
        ("broker", "identity", "Introduce"),
        ("broker", "vault", "Match"),
        ("broker", "vault", "Release"),
        ("broker", "consent", "Decide"),
        ("broker", "consent", "BatchDecide"),
        ("broker", "consent", "Settle"),
    }


@pytest.mark.parametrize("name", SERVICES)
def test_service_calls_what_is_listed_for_it_and_all_of_that(name: str) -> None:
    code = "".join(path.read_text("utf-8") for path in (ROOT / "services" / f"parley_{name}").rglob("*.py"))
    stubs = {stub.lower() for stub in re.findall(r"\b([A-Z]\w+)ServiceStub\(", code)}
    called = set(re.findall(r"\._stub\.(\w+)", code))
    listed = {method for method, callers in ZONES.calls.items() if ("service", name) in callers}
    open_to_all = {method for method, callers in ZONES.calls.items() if ("anyone", "") in callers}
    assert stubs == {method.split(".")[1] for method in listed}
    assert {method.rpartition("/")[2] for method in listed} <= called
    assert called <= {method.rpartition("/")[2] for method in listed | open_to_all}


@pytest.mark.parametrize("name", SERVICES)
def test_role_is_granted_what_a_statement_needs_and_nothing_else(name: str) -> None:
    shared = tomllib.loads((ROOT / "deploy/trust-zones.toml").read_text("utf-8"))["tables"]
    own = {table: verbs for table, verbs in ZONES.zones[name].tables.items() if table not in shared}
    granted = {(table, verb) for table, verbs in own.items() for verb in verbs if verb != "SELECT"}
    needed = {need for statement in _statements(name) for need in _needs(statement) if need[0] in own}
    assert granted - needed == {need for need in OF_THE_VERSION_BEFORE if need[0] in own}
    assert needed <= granted


OF_THE_VERSION_BEFORE = {("suspended_marketers", "DELETE")}
_WRITES = re.compile(r"\b(INSERT INTO|DELETE FROM|(?<!DO )(?<!FOR )(?<!KEY )UPDATE) ([a-z_]+)")
_LOCKS = re.compile(r"\bFOR (?:NO KEY )?UPDATE(?: OF ([a-z_]+))?")
_NAMED = re.compile(r"\b(?:FROM|JOIN) ([a-z_]+)(?: AS ([a-z_]+))?")


def _statements(name: str) -> Iterator[str]:
    """What a service says to its database, and what functions say there."""
    folder = ROOT / "services" / f"parley_{name}"
    for path in (each for each in folder.rglob("*.sql") if each.parent.name != "migrations"):
        yield from path.read_text("utf-8").split(";\n")
    for path in (folder / "migrations").glob("*.sql"):
        for function in re.findall(r"\bFUNCTION .*?\$\$(.*?)\$\$", path.read_text("utf-8"), re.DOTALL):
            yield from function.split(";\n")
    for path in folder.rglob("*.py"):
        copied = re.findall(r'\.copy_records_to_table\(\s*"([a-z_]+)"', path.read_text("utf-8"))
        yield from (f"INSERT INTO {table}" for table in copied)


def _needs(statement: str) -> Iterator[tuple[str, str]]:
    """Tables, and what must be granted on them beside SELECT."""
    writes = [*_WRITES.finditer(statement)]
    starts = [*(each.start() for each in writes), len(statement)]
    for write, end in zip(writes, starts[1:], strict=True):
        verb, table = write.groups()
        yield table, verb.split()[0]
        if "DO UPDATE" in statement[write.end() : end]:
            yield table, "UPDATE"
    for lock in _LOCKS.finditer(
        statement
    ):  # a row is locked by whoever may change it: of what is named, or stands before
        named = [each.groups() for each in _NAMED.finditer(statement[: lock.start()])]
        tables = {alias or table: table for table, alias in named}
        yield tables[lock[1]] if lock[1] else named[-1][0], "UPDATE"


@pytest.mark.parametrize("name", SERVICES)
async def test_every_table_is_listed_and_its_role_holds_what_is_listed_and_nothing_else(
    world: World, name: str
) -> None:
    listed: Mapping[str, tuple[str, ...]] = ZONES.zones[name].tables
    connection = await asyncpg.connect(database_url(world, name))
    try:
        tables = {row["tablename"] for row in await connection.fetch(_TABLES)}
        held = {tuple(row) for row in await connection.fetch(_GRANTS, f"parley_{name}")}
        on_columns = await connection.fetchval(_ON_COLUMNS)
        owned = await connection.fetchval(
            "SELECT count(*) FROM pg_class WHERE relowner = $1::regrole", f"parley_{name}"
        )
    finally:
        await connection.close()
    assert set(listed) == tables
    assert {(table, verb) for table, verbs in listed.items() for verb in verbs} == held
    assert (0, 0) == (owned, on_columns)


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
