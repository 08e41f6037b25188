"""What zones keep their things in: their databases and their users of Valkey, made and granted as the zones' file says."""

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
from structlog.typing import FilteringBoundLogger

from parley_bus.users import User, ensure_users
from parley_crypto.keyfiles import read_secret
from parley_crypto.signing import key_id
from parley_crypto.trust import Trust
from parley_db.migrate import Phase, migrate, plan, titles
from parley_node.embedded import paths, postgres
from parley_node.embedded.databases import ensure_databases, settle_grants
from parley_node.embedded.errors import ServersUnavailable
from parley_node.embedded.external import POSTGRES_URL, VALKEY_URL, ExternalServers, from_environment
from parley_node.embedded.pair import ServerPair, servers
from parley_node.home import Home, NotRunning
from parley_rpc.zones import Zones

Servers = ServerPair | ExternalServers


@asynccontextmanager
async def servers_of(home: Home, log: FilteringBoundLogger | None = None) -> AsyncIterator[Servers]:
    """
    The operator's own servers, where the environment names them; else embedded ones, as :func:`embedded.servers` runs them.

    Raises ServersUnavailable, also where a home's databases are gone, and KeyFileUnusable.
    """
    if given := from_environment(os.environ):
        yield given
        return
    _refuse_lost(home)
    async with servers(home.servers, log) as pair:
        yield pair


def _refuse_lost(home: Home) -> None:
    """
    Make no databases in the place of those that were there, and use no password that others may read.

    Raises ServersUnavailable and KeyFileUnusable.
    """
    where = paths.layout(home.servers)
    if home.published.exists() and not where.postgres_data.exists():
        raise ServersUnavailable(
            f"{where.postgres_data}: it isn't there, and this home's log was published; restore it from your backup, or "
            f"name your own servers ({POSTGRES_URL}, {VALKEY_URL})"
        )
    for path in filter(Path.exists, server_passwords(home)):
        read_secret(path)


def server_passwords(home: Home) -> list[Path]:
    """The administrators' passwords on a home's embedded servers."""
    where = paths.layout(home.servers)
    return [where.password(server) for server in ("postgres", "valkey")]


def servers_up(home: Home) -> Servers:
    """The servers that a home stands on, which must be up. Raises NotRunning."""
    if given := from_environment(os.environ):
        return given
    where = paths.layout(home.servers)
    if not postgres.ready(where):
        raise NotRunning(f"nothing runs on {home.root}: start it with `parley up`")
    return ServerPair("embedded", adopted=True, where=where)


async def prepare(
    pair: Servers, home: Home, zones: Zones, names: Sequence[str], *, phase: Phase | None = None
) -> list[str]:
    """
    Bring zones up to date: databases, roles, schemas, grants, and which streams they may use; answers migrations applied.

    Raises BusAway, MigrationError, KeyFileUnusable, ServersUnavailable for another home's, and asyncpg's errors.
    """
    await make_databases(pair, home, names)  # first: it refuses what is another home's
    await ensure_users(pair.valkey_url, users(home, zones, names))
    applied = await asyncio.gather(*(_prepare_one(pair, zones, name, phase) for name in names))
    return [title for titles in applied for title in titles]


async def pending(pair: Servers, names: Sequence[str]) -> list[str]:
    """Titles of what :func:`prepare` would apply: of all where there is no database. Raises as it does, and changes nothing."""
    return [title for name in names for title in await _planned(pair, f"parley_{name}")]


async def _planned(pair: Servers, package: str) -> list[str]:
    try:
        return await plan(pair.database_dsn(package), package)
    except asyncpg.InvalidCatalogNameError:
        return titles(package)


async def make_databases(pair: Servers, home: Home, names: Sequence[str]) -> None:
    """Make databases and roles where they are missing."""
    # What is written there is sealed to this key, and to no other home's.
    owner = key_id(Trust.load(home.trust).sealing["audit"])
    await ensure_databases(pair.admin_dsn, {name: home.postgres_password(name) for name in names}, owner)


async def _prepare_one(pair: Servers, zones: Zones, name: str, phase: Phase | None) -> list[str]:
    owner, tables = pair.database_dsn(f"parley_{name}"), zones.zones[name].tables
    # Before, too: an earlier release's code may be running on them.
    await settle_grants(owner, f"parley_{name}", tables)
    titles = await migrate(owner, f"parley_{name}", phase=phase)
    await settle_grants(owner, f"parley_{name}", tables)
    return titles


def dsn(pair: Servers, home: Home, name: str) -> str:
    """Where a zone's database is, as its own role."""
    return pair.postgres_dsn(f"parley_{name}", f"parley_{name}", home.postgres_password(name))


def users(home: Home, zones: Zones, names: Sequence[str]) -> list[User]:
    """Zones' users of Valkey. Raises KeyFileUnusable."""
    return [User(name, f"parley_{name}", read_secret(home.valkey_password(name)), zones.reads(name)) for name in names]
