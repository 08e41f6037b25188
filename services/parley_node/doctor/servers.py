"""PostgreSQL and Valkey: whether they are there, and as they should be."""

import asyncio
import os
import shlex
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

from parley_bus.bus import Bus, BusAway
from parley_bus.users import wrong_users
from parley_crypto.keyfiles import KeyFileUnusable, read_secret
from parley_db.migrate import MigrationError, plan
from parley_db.queries import load
from parley_node.doctor.findings import Look, NotLooked, Trouble
from parley_node.doctor.mending import again, option
from parley_node.doctor.metrics import Told
from parley_node.embedded import paths, postgres, valkey
from parley_node.embedded.databases import missing_grants
from parley_node.embedded.errors import ServersUnavailable
from parley_node.embedded.external import from_environment
from parley_node.embedded.pair import ServerPair
from parley_node.embedded.postgres import listener_of
from parley_node.home import Home, Running
from parley_node.services import SERVICES
from parley_node.stores import Servers, dsn, users
from parley_rpc.zones import Zones

SQL = load("parley_node", "doctor.sql")
_OLDEST_POSTGRES = 150000
_MOST_SKEW = timedelta(seconds=2)
_PATIENCE_S = 3.0


class Unreached(Trouble):
    """PostgreSQL isn't there, or silent."""

    def __init__(self) -> None:
        super().__init__("PostgreSQL can't be reached", "pg_isready")


@dataclass(frozen=True)
class Around:
    """What the checks look at: the home, what runs on it, what that says of itself, and the servers."""

    home: Home
    running: Running | None
    told: Told
    pair: Servers
    postgres_down: Trouble | NotLooked | None
    """What keeps PostgreSQL from opening a session, if anything does."""


Check = Callable[[Around], Awaitable[str]]


async def around(home: Home, running: Running | None, told: Told) -> Around:
    """Find the servers: the operator's own, or embedded ones, which run if Parley does."""
    try:
        given = from_environment(os.environ)
    except ServersUnavailable:
        given = None
    where = paths.layout(home.servers)
    pair = given or ServerPair("embedded", adopted=True, where=where)
    there = given is not None or await asyncio.to_thread(postgres.ready, where)
    return Around(home, running, told, pair, await _down(pair) if there else Unreached())


async def _down(pair: Servers) -> Trouble | NotLooked | None:
    """What keeps PostgreSQL from opening a session: asked once, because whoever asks one that hangs has to wait."""
    if isinstance(pair, ServerPair):
        try:
            read_secret(pair.where.password("postgres"))
        except KeyFileUnusable:
            return NotLooked("its password can't be read")
    try:
        async with connected(pair.admin_dsn):
            return None
    except Trouble as trouble:
        return trouble


def checks(here: Around) -> Iterator[tuple[str, Look]]:
    """All of them."""
    yield "postgres", lambda: _postgres(here)
    for name in SERVICES:
        yield f"schema {name}", on_postgres(here, _schema(name))
    yield "roles", on_postgres(here, _roles)
    yield "clock", on_postgres(here, _clock)
    yield "valkey", lambda: _valkey(here)
    yield "users", lambda: _users(here)


def on_postgres(here: Around, check: Check) -> Look:
    """A check that needs PostgreSQL."""

    async def looking() -> str:
        if here.postgres_down:
            raise NotLooked("PostgreSQL opens no session")
        return await check(here)

    return looking


@asynccontextmanager
async def connected(where: str) -> AsyncIterator[Any]:
    """A session of PostgreSQL. Raises Trouble."""
    try:
        connection = await asyncpg.connect(where, timeout=_PATIENCE_S)
    except OSError as error:
        raise Unreached from error
    except asyncpg.PostgresError as error:
        found = f"PostgreSQL answers, but opens no session ({type(error).__name__})"
        raise Trouble(found, 'psql "$PARLEY_POSTGRES_URL" -c "SELECT 1"  # it says why') from error
    try:
        yield connection
    finally:
        await connection.close(timeout=_PATIENCE_S)


async def _postgres(here: Around) -> str:
    if isinstance(here.postgres_down, Unreached):
        if not isinstance(here.pair, ServerPair):
            raise Trouble(
                "it can't be reached where PARLEY_POSTGRES_URL points", 'pg_isready -d "$PARLEY_POSTGRES_URL"'
            )
        raise _away(here, here.pair.where.postgres_sockets / f".s.PGSQL.{postgres.PORT}")
    if isinstance(here.postgres_down, Trouble) and isinstance(here.pair, ServerPair):
        raise Trouble(here.postgres_down.found, f"tail -n 20 {shlex.quote(str(here.pair.where.log('postgres')))}")
    if here.postgres_down:
        raise here.postgres_down
    async with connected(here.pair.admin_dsn) as admin:
        version = await admin.fetchval(SQL.server_version)
    if version < _OLDEST_POSTGRES:
        raise Trouble(f"PostgreSQL {version // 10000} is too old", "parley doctor  # once 15 or newer runs")
    return f"PostgreSQL {version // 10000}, {here.pair.provider}"


async def _valkey(here: Around) -> str:
    try:
        if isinstance(here.pair, ServerPair) and not await asyncio.to_thread(valkey.ready, here.pair.where):
            raise _away(here, here.pair.where.valkey_socket)
        async with Bus.open(here.pair.valkey_url) as bus:
            await bus.ping()
    except KeyFileUnusable as error:
        raise NotLooked("its password can't be read") from error
    except BusAway as error:
        mend = "systemctl restart valkey  # where PARLEY_VALKEY_URL points"
        raise Trouble("it doesn't answer: events wait in PostgreSQL until it does", mend) from error
    return "answers"


async def _users(here: Around) -> str:
    try:
        wrong = await wrong_users(here.pair.valkey_url, users(here.home, Zones.load(), SERVICES))
    except KeyFileUnusable as error:
        raise NotLooked("a password can't be read") from error
    except BusAway as error:
        raise NotLooked("Valkey doesn't answer, or not to this user") from error
    if wrong:
        found = f"in Valkey {', '.join(wrong)} may not do just what their zones list"
        raise Trouble(found, f"parley migrate{option(here.home)}")
    return "each service writes its own stream in Valkey, and reads those its zone lists"


def _away(here: Around, socket: Any) -> Exception:
    """An embedded server that doesn't answer: one that hangs is started again once it is gone."""
    if here.running is None:
        return NotLooked("the embedded servers don't run")
    if pid := listener_of(socket):
        return Trouble(f"process {pid} doesn't answer; it is started again once it is gone", f"kill -9 {pid}")
    return Trouble("it is gone, and doesn't come back", again(here.home, here.running))


def _schema(name: str) -> Check:
    async def check(here: Around) -> str:
        mend = f"parley migrate {name}{option(here.home)}"
        await _require_database(here.pair, name, mend)
        try:
            pending = await plan(dsn(here.pair, here.home, name), f"parley_{name}")
        except MigrationError as error:
            raise Trouble(str(error), "pip install .  # in the folder of a newer Parley") from error
        except (OSError, asyncpg.PostgresError) as error:
            raise Trouble(f"its role can't sign in ({type(error).__name__})", mend) from error
        if needed := [title for title in pending if title.endswith(".pre")]:
            raise Trouble(f"pending: {', '.join(needed)}", f"{mend} --phase pre")
        if pending:  # an older version may still need what they take away
            return f"up to date; once no older version runs: {mend} --phase post"
        return "up to date"

    return check


async def _require_database(pair: Servers, name: str, mend: str) -> None:
    async with connected(pair.admin_dsn) as admin:
        if not await admin.fetch(SQL.databases, [f"parley_{name}"]):
            raise Trouble("there is no database", mend)


async def _roles(here: Around) -> str:
    async with connected(here.pair.admin_dsn) as admin:
        wrong = await admin.fetch(SQL.grants_beyond, [f"parley_{name}" for name in SERVICES])
    found = [row["wrong"] for row in wrong] + [
        f"parley_{name} doesn't hold the grants of its zone" for name in SERVICES if await _differs(here.pair, name)
    ]
    if found:
        raise Trouble("; ".join(found), f"parley migrate{option(here.home)}")
    return "each service enters its own database alone, and may do there what its zone lists"


async def _differs(pair: Servers, name: str) -> bool:
    try:
        async with connected(pair.database_dsn(f"parley_{name}")) as admin:
            return bool(await missing_grants(admin, f"parley_{name}", Zones.load().zones[name].tables))
    except Trouble:  # no database: its own line says so
        return False


async def _clock(here: Around) -> str:
    async with connected(here.pair.admin_dsn) as admin:
        theirs = await admin.fetchval(SQL.clock)
    ahead = datetime.now(UTC) - theirs
    if abs(ahead) > _MOST_SKEW:
        raise Trouble(f"this machine's clock is {_said(ahead)} PostgreSQL's", "timedatectl set-ntp true")
    wrong = {name: skew for name, skew in _skews(here).items() if abs(skew) > _MOST_SKEW}
    if wrong and here.running:
        # They run on this machine, and its clock is right: only what they were started with can have set theirs.
        named = "; ".join(f"{name}'s clock is {_said(skew)} this machine's" for name, skew in wrong.items())
        raise Trouble(named, again(here.home, here.running, "env -u PARLEY_FAULTS "))
    return "this machine, PostgreSQL and every service agree"


def _skews(here: Around) -> Mapping[str, timedelta]:
    skews = {name: here.told.skew(name) for name in SERVICES}
    return {name: skew for name, skew in skews.items() if skew is not None}


def _said(ahead: timedelta) -> str:
    return f"{abs(ahead.total_seconds()):.1f} s {'ahead of' if ahead > timedelta(0) else 'behind'}"
