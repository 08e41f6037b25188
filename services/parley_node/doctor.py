"""
What is wrong here, one line a check, each failure with what mends it. Starts nothing and changes nothing.

What can't be looked at, because something before it is missing, says so and doesn't fail.
"""

import asyncio
import os
import stat
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

import asyncpg
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from parley_bus.bus import Bus, BusAway
from parley_crypto.keyfiles import KeyFileUnusable, read_keys, read_secret
from parley_crypto.tlog.checkpoint import Checkpoint
from parley_crypto.tlog.errors import TlogInvalid
from parley_crypto.tlog.policy import Policy, parse_sealed_policy
from parley_crypto.trust import Trust, TrustUnusable
from parley_db.migrate import MigrationError, plan
from parley_db.queries import load
from parley_node.embedded import ServersUnavailable, from_environment, paths, postgres, valkey
from parley_node.embedded.databases import missing_grants
from parley_node.embedded.locate import locate
from parley_node.embedded.pair import ServerPair
from parley_node.home import Home, NotRunning, Running
from parley_node.node import configure
from parley_node.provision import key_files, secret_files
from parley_node.services import SERVICES
from parley_node.stores import Servers, dsn
from parley_rpc import confine
from parley_rpc.channels import at, connect
from parley_rpc.settings import SettingsWrong
from parley_rpc.zones import Zones

_SQL = load("parley_node", "doctor.sql")
_OLDEST_POSTGRES = 150000
_MOST_SKEW = timedelta(seconds=2)
_MOST_LAG_S = 60.0
_PATIENCE_S = 3.0
_TRIES = 20


class State(StrEnum):
    """What came of a check."""

    OK = "ok"
    FAILED = "failed"
    SKIPPED = "not looked at"


@dataclass(frozen=True)
class Finding:
    """What one check found, and the command that mends it, if it failed."""

    check: str
    state: State
    found: str
    mend: str = ""

    def __str__(self) -> str:
        marks = {State.OK: "ok    ", State.FAILED: "FAILED", State.SKIPPED: "-     "}
        return f"{marks[self.state]}  {self.check}: {self.found}" + (f"; run `{self.mend}`" if self.mend else "")


@dataclass(frozen=True)
class Trouble(Exception):
    """A check failed: what was found, and the command that mends it."""

    found: str
    mend: str


async def examine(home: Home) -> list[Finding]:
    """Look at everything, in an order in which the first failure explains those after it."""
    findings = [await _look(check, look) for check, look in _still(home)]
    now = await _look("running", lambda: _running(home))
    findings.append(now)
    async with _reach(home) as pair:
        findings += [await _look(check, look) for check, look in _servers(pair, home)]
    if now.state is not State.OK:
        return [*findings, *(_skipped(check) for check in ("services", "log"))]
    running = home.running()
    findings.append(await _look("services", lambda: _services(running)))
    findings.append(await _look("log", lambda: _log(home, running)))
    return findings


Look = Callable[[], Awaitable[str]]


async def _look(check: str, look: Look) -> Finding:
    try:
        return Finding(check, State.OK, await look())
    except Trouble as trouble:
        return Finding(check, State.FAILED, trouble.found, trouble.mend)
    except NotLooked as reason:
        return Finding(check, State.SKIPPED, str(reason))


class NotLooked(Exception):
    """It can't be looked at before something else is mended."""


def _skipped(check: str) -> Finding:
    return Finding(check, State.SKIPPED, "nothing runs")


def _still(home: Home) -> Iterator[tuple[str, Look]]:
    """What can be looked at while nothing runs."""
    yield "home", lambda: _home(home)
    yield "settings", lambda: _settings(home)
    yield "keys", lambda: _keys(home)
    yield "trust", lambda: _trust(home)
    yield "policy", lambda: _policy_file(home)
    yield "servers", _binaries
    yield "confinement", _confinement


async def _home(home: Home) -> str:
    up = _up(home)
    try:
        mode = home.root.stat().st_mode
    except OSError as error:
        raise Trouble(f"{home.root}: {error.strerror}", up) from error
    if mode & (stat.S_IRGRP | stat.S_IROTH | stat.S_IWGRP | stat.S_IWOTH):
        raise Trouble(f"others may read {home.root}", f"chmod 700 {home.root}")
    return str(home.root)


async def _settings(home: Home) -> str:
    if not all(path.exists() for path in key_files(home)):
        raise NotLooked("keys are missing")
    try:
        for name in SERVICES:
            configure(name, home, "postgresql:///unused")
    except SettingsWrong as error:
        raise Trouble(str(error), f"unset {str(error).partition(':')[0]}") from error
    return "every service can read its own"


async def _keys(home: Home) -> str:
    for path in key_files(home):
        try:
            read_keys(path)
        except KeyFileUnusable as error:
            raise Trouble(str(error).partition(";")[0], f"chmod 600 {path}" if path.exists() else _up(home)) from error
    for path in filter(Path.exists, secret_files(home)):
        try:
            read_secret(path)
        except KeyFileUnusable as error:
            raise Trouble(str(error).partition(";")[0], f"chmod 600 {path}") from error
    return f"{len(key_files(home))} key files, each its owner's alone, as are the passwords"


async def _trust(home: Home) -> str:
    try:
        trust = Trust.load(home.trust)
    except TrustUnusable as error:
        raise Trouble(str(error).partition(";")[0], _up(home)) from error
    return f"keys of {', '.join(sorted(trust.signing))}"


async def _policy_file(home: Home) -> str:
    return f"believes {', '.join(key.name for key in _policy(home).logs)}"


def _policy(home: Home) -> Policy:
    try:
        return parse_sealed_policy(home.policy.read_bytes())
    except OSError as error:
        raise Trouble(f"{home.policy}: {error.strerror}", _up(home)) from error
    except TlogInvalid as error:
        raise Trouble(f"{home.policy}: {error}", f"rm {home.policy} && {_up(home)}") from error


async def _binaries() -> str:
    try:
        given = from_environment(os.environ)
        return given.provider if given else locate().provider
    except ServersUnavailable as error:
        raise Trouble(str(error), "pip install 'parley[embedded]'") from error


async def _confinement() -> str:
    if known := confine.version():
        return f"Landlock {known}: services that run apart read their own secrets only"
    return "this kernel has no Landlock: services that run apart could read whatever this user can"


async def _running(home: Home) -> str:
    try:
        running = home.running()
    except NotRunning as error:
        raise Trouble("nothing runs on this home", _up(home)) from error
    return f"process {running.pid} answers on {running.address}, its log on {running.http}"


@asynccontextmanager
async def _reach(home: Home) -> AsyncIterator[Servers | None]:
    """The servers, if they are up: the operator's own, or embedded ones that another process runs."""
    try:
        given = from_environment(os.environ)
    except ServersUnavailable:
        given = None
    where = paths.layout(home.servers)
    up = await asyncio.to_thread(lambda: postgres.ready(where) and valkey.ready(where))
    yield given or (ServerPair("embedded", adopted=True, where=where) if up else None)


def _servers(pair: Servers | None, home: Home) -> Iterator[tuple[str, Look]]:
    """What can be looked at once the servers are up."""
    checks: Sequence[tuple[str, Callable[[Servers], Awaitable[str]]]] = (
        ("postgres", _postgres),
        *((f"schema {name}", _schema(name, home)) for name in SERVICES),
        ("roles", lambda pair: _roles(pair, home)),
        ("clock", _clock),
        ("valkey", _valkey),
        *((f"events {name}", _events(name, home)) for name in SERVICES),
    )
    for check, look in checks:
        yield check, _with(pair, look)


def _with(pair: Servers | None, look: Callable[[Servers], Awaitable[str]]) -> Look:
    async def looking() -> str:
        if pair is None:
            raise NotLooked("the embedded servers don't run")
        return await look(pair)

    return looking


async def _postgres(pair: Servers) -> str:
    async with _connected(pair.admin_dsn) as admin:
        version = await admin.fetchval(_SQL.server_version)
    if version < _OLDEST_POSTGRES:
        raise Trouble(f"PostgreSQL {version // 10000} is too old", "parley doctor  # once 15 or newer runs")
    return f"PostgreSQL {version // 10000}, {pair.provider}"


def _schema(name: str, home: Home) -> Callable[[Servers], Awaitable[str]]:
    async def look(pair: Servers) -> str:
        mend = f"parley migrate {name}{_option(home)}"
        await _require_database(pair, name, mend)
        try:
            pending = await plan(dsn(pair, home, name), f"parley_{name}")
        except MigrationError as error:
            raise Trouble(str(error), "pip install --upgrade parley") from error
        except (OSError, asyncpg.PostgresError) as error:
            raise Trouble(f"its role can't sign in ({type(error).__name__})", mend) from error
        if pending:
            raise Trouble(f"pending: {', '.join(pending)}", mend)
        return "up to date"

    return look


async def _require_database(pair: Servers, name: str, mend: str) -> None:
    async with _connected(pair.admin_dsn) as admin:
        if not await admin.fetch(_SQL.databases, [f"parley_{name}"]):
            raise Trouble("there is no database", mend)


async def _roles(pair: Servers, home: Home) -> str:
    async with _connected(pair.admin_dsn) as admin:
        wrong = await admin.fetch(_SQL.grants_beyond, [f"parley_{name}" for name in SERVICES])
    found = [row["wrong"] for row in wrong] + [
        f"parley_{name} doesn't hold the grants of its zone" for name in SERVICES if await _differs(pair, name)
    ]
    if found:
        raise Trouble("; ".join(found), f"parley migrate{_option(home)}")
    return "each service enters its own database alone, and may do there what its zone lists"


async def _differs(pair: Servers, name: str) -> bool:
    try:
        async with _connected(pair.database_dsn(f"parley_{name}")) as admin:
            return bool(await missing_grants(admin, f"parley_{name}", Zones.load().zones[name].tables))
    except Trouble:  # no database: its own line says so
        return False


async def _clock(pair: Servers) -> str:
    async with _connected(pair.admin_dsn) as admin:
        skew = abs(datetime.now(UTC) - await admin.fetchval(_SQL.clock))
    if skew > _MOST_SKEW:
        raise Trouble(f"this machine and PostgreSQL are {skew.total_seconds():.1f} s apart", "timedatectl set-ntp true")
    return "this machine and PostgreSQL agree"


async def _valkey(pair: Servers) -> str:
    try:
        async with Bus.open(pair.valkey_url) as bus:
            await bus.ping()
    except BusAway as error:
        raise Trouble("it doesn't answer", "valkey-cli ping") from error
    return "answers"


def _events(name: str, home: Home) -> Callable[[Servers], Awaitable[str]]:
    async def look(pair: Servers) -> str:
        try:
            async with _connected(dsn(pair, home, name)) as db:
                row = await db.fetchrow(_SQL.lag)
        except (asyncpg.PostgresError, Trouble) as error:
            raise NotLooked("its schema isn't there") from error
        if row["dead"]:
            raise Trouble(f"{row['dead']} events of others could not be applied", f"grep dead {home.root}/*.log")
        if row["oldest"] > _MOST_LAG_S:
            raise Trouble(f"{row['waiting']} wait, the oldest for {row['oldest']:.0f} s", _up(home))
        return f"{row['waiting']} on their way"

    return look


@asynccontextmanager
async def _connected(where: str) -> AsyncIterator[Any]:
    try:
        connection = await asyncpg.connect(where, timeout=_PATIENCE_S)
    except (OSError, asyncpg.PostgresError) as error:
        raise Trouble(f"PostgreSQL can't be reached ({type(error).__name__})", "pg_isready") from error
    try:
        yield connection
    finally:
        await connection.close(timeout=_PATIENCE_S)


async def _services(running: Running) -> str:
    for name in SERVICES:
        async with connect(at(running.address, name)) as channel:
            await _serving(health_pb2_grpc.HealthStub(channel), name, running)
    return f"{', '.join(SERVICES)} answer"


async def _serving(stub: Any, name: str, running: Running) -> None:
    request = health_pb2.HealthCheckRequest(service=f"parley.{name}.v1.{name.title()}Service")
    mend = f"kill {running.pid}; parley up"
    try:
        answer = await stub.Check(request, timeout=_PATIENCE_S)
    except grpc.RpcError as error:
        raise Trouble(f"{name} doesn't answer", mend) from error
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        raise Trouble(f"{name} doesn't serve", mend)


async def _log(home: Home, running: Running) -> str:
    """
    Compare the log as it is served with the newest checkpoint that was published.

    A checkpoint is published before it is served, so what is served, if read first, is never the larger.
    """
    policy = _policy(home)
    for _try in range(_TRIES):
        served = await _served(policy, running)
        published = _checked(policy, await asyncio.to_thread(_read, home))
        if served == published:
            return f"{served.size} entries, as published"
        if served.size > published.size:
            raise Trouble("it serves a checkpoint that was never published", f"kill {running.pid}")
        await asyncio.sleep(0.1)
    raise Trouble(f"{served.size} entries are served, but {published.size} were published", f"kill {running.pid}")


async def _served(policy: Policy, running: Running) -> Checkpoint:
    try:
        note = await asyncio.to_thread(_fetch, f"{running.http}/checkpoint")
    except (OSError, urllib.error.URLError) as error:
        raise Trouble(f"{running.http} doesn't answer", f"kill {running.pid}; parley up") from error
    return _checked(policy, note)


def _checked(policy: Policy, note: bytes) -> Checkpoint:
    try:
        return policy.check(note)
    except TlogInvalid as error:
        raise Trouble(f"a checkpoint isn't signed as the policy asks: {error}", "parley verify --help") from error


def _read(home: Home) -> bytes:
    try:
        return home.published.read_bytes()
    except OSError as error:
        raise Trouble(f"{home.published}: {error.strerror}", _up(home)) from error


def _fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=_PATIENCE_S) as answer:  # noqa: S310 - an address this home wrote down
        return bytes(answer.read())


def _up(home: Home) -> str:
    return f"parley up{_option(home)}"


def _option(home: Home) -> str:
    return "" if home == Home.choose(None) else f" --home {home.root}"
