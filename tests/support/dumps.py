"""What somebody has who copied it: every row of every database, every key of Valkey, every file and log of a home."""

import asyncio
import contextlib
import gc
import os
import urllib.request
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import asyncpg
from prometheus_client import CollectorRegistry, generate_latest
from redis.asyncio import Redis

from parley_node.embedded import paths
from parley_node.embedded.pair import ServerPair
from parley_node.home import Home, NotRunning
from parley_node.services import SERVICES
from parley_node.stores import Servers

Tables = Mapping[str, Sequence[tuple[Any, ...]]]
Dump = Mapping[str, Tables]
"""Rows by service and table, each table sorted, so that two dumps of one state are equal."""

CLOCKWORK = {"log_head", "log_checkpoint", "log_entries", "log_tiles"}
"""Tables of audit's that grow with time, and not with what happens."""

_TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY tablename"


@dataclass(frozen=True)
class Piece:
    """Some bytes, and where they were found, for people."""

    where: str
    data: bytes


class Copied(Protocol):
    """A Parley that is copied: where its files and servers are, and what it logged to its test."""

    @property
    def home(self) -> Home:
        """Its home."""

    @property
    def servers(self) -> Servers:
        """Its PostgreSQL and Valkey."""

    @property
    def logged(self) -> str:
        """What it logged, but for logs in its home."""


@dataclass(frozen=True)
class Apart:
    """A Parley that runs on a home and embedded servers in a process of its own, and logs to its home."""

    home: Home
    logged: str = ""

    @property
    def servers(self) -> Servers:
        """The servers that run there."""
        where = paths.layout(self.home.servers)
        return ServerPair("embedded", adopted=True, where=where)


def database_url(world: Copied, service: str) -> str:
    """A service's database, for the administrator."""
    return world.servers.database_dsn(f"parley_{service}")


async def dump_databases(world: Copied, services: Iterable[str] = SERVICES) -> Dump:
    """Copy databases, each as of one moment."""
    names = list(services)
    return dict(zip(names, await asyncio.gather(*(_dump(database_url(world, name)) for name in names)), strict=True))


async def _dump(url: str) -> Tables:
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            return {
                row["tablename"]: sorted(
                    (tuple(each) for each in await connection.fetch(f'SELECT * FROM "{row["tablename"]}"')), key=repr
                )
                for row in await connection.fetch(_TABLES)
            }
    finally:
        await connection.close()


def without(dump: Dump, left_out: Collection[str]) -> Dump:
    """A dump without some tables, each named ``service.table`` or ``table``."""
    return {
        service: {
            name: rows for name, rows in tables.items() if name not in left_out and f"{service}.{name}" not in left_out
        }
        for service, tables in dump.items()
    }


def changes(before: Dump, after: Dump) -> dict[str, tuple[int, int]]:
    """How many rows came and went, by ``service.table``; tables that stayed as they were are left out."""
    found = {}
    for service, tables in after.items():
        for name, rows in tables.items():
            old, new = Counter(map(repr, before[service][name])), Counter(map(repr, rows))
            if old != new:
                found[f"{service}.{name}"] = ((new - old).total(), (old - new).total())
    return found


def pieces_of(dump: Dump) -> Iterator[Piece]:
    """Every cell of a dump: binary as it is, anything else as text."""
    for service, tables in dump.items():
        for name, rows in tables.items():
            where = f"database {service}.{name}"
            for row in rows:
                for cell in row:
                    if cell is not None:
                        yield Piece(where, cell if isinstance(cell, bytes) else str(cell).encode())


async def dump_valkey(world: Copied) -> list[Piece]:
    """Every key of Valkey, with its name."""
    async with Redis.from_url(world.servers.valkey_url) as client:
        keys = [key async for key in client.scan_iter(count=1000)]
        return [piece for key in keys for piece in await _key(client, key)]


_READ: Mapping[bytes, tuple[Any, ...]] = {
    b"stream": ("XRANGE", "-", "+"),
    b"string": ("GET",),
    b"hash": ("HGETALL",),
    b"list": ("LRANGE", 0, -1),
    b"set": ("SMEMBERS",),
    b"zset": ("ZRANGE", 0, -1),
}


async def _key(client: Any, key: bytes) -> list[Piece]:
    command, *options = _READ[await client.type(key)]
    value = await client.execute_command(command, key, *options)
    return [Piece(f"valkey {key.decode()}", each) for each in (key, *_flat(value))]


def _flat(value: Any) -> Iterator[bytes]:
    match value:
        case bytes():
            yield value
        case dict():
            for pair in value.items():
                yield from _flat(pair)
        case list() | tuple() | set():
            for each in value:
                yield from _flat(each)


def metrics(world: Copied) -> list[Piece]:
    """What every registry of this process would answer a scrape, and what other processes of this Parley do answer."""
    gc.unfreeze()  # a node at work leaves what stays out of what is looked through
    registries = [each for each in gc.get_objects() if isinstance(each, CollectorRegistry)]
    found = [Piece("metrics", generate_latest(each)) for each in registries]
    with contextlib.suppress(NotRunning):
        running = world.home.running()
        if running.apart or running.pid != os.getpid():  # who runs here can't answer while this waits
            found += [Piece("metrics", _scraped(url)) for url in set(running.metrics.values())]
    return found


def _scraped(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return bytes(answer.read())


def logs(world: Copied) -> list[Piece]:
    """Its log, and all files of its home but keys and PostgreSQL's own: the servers' logs, Valkey's, what is published."""
    found = [Piece("log", world.logged.encode())]
    for path in sorted(world.home.root.rglob("*")):
        inside = path.relative_to(world.home.root).parts
        if inside[0] == "keys" or inside[:2] == ("servers", "postgres") or not path.is_file():
            continue
        with contextlib.suppress(OSError):  # a server may replace its files meanwhile
            found.append(Piece(f"file {'/'.join(inside)}", path.read_bytes()))
    return found


async def quiet(world: Copied) -> Dump:
    """Wait until nothing is under way any more: events are read and logged, and two dumps in a row differ by time alone."""
    last: Dump = {}
    async with asyncio.timeout(30):
        while True:
            dump = await dump_databases(world)
            still = without(dump, CLOCKWORK)
            under_way = [*(tables["outbox"] for tables in dump.values()), dump["audit"]["waiting"]]
            if still == last and not any(under_way):
                return dump
            last = still
            await asyncio.sleep(0.4)  # longer than an event takes from one service to another
