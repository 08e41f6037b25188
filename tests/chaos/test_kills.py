"""
G6 and G7: kill -9 of anything, at any moment of a campaign, loses nothing and does nothing twice.

A node runs in a process of its own while a marketer asks 1,000 customers; it, PostgreSQL and Valkey are killed, each ten
times, at moments drawn from a seed that is printed. Then three histories are compared: what consent settled, what the
broker finished and was told to be kept, and what the marketer holds; and every settlement is in the log, once.
"""

import asyncio
import hashlib
import os
import random
import secrets
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import asyncpg
import grpc
import pytest

from parley.broker.v1 import broker_pb2 as brokerpb
from parley.identity.v1 import identity_pb2 as identitypb
from parley.vault.v1 import vault_pb2 as vaultpb
from parley_crypto.keyring import KeyRing
from parley_crypto.subject_ref import SubjectRef, seal_ref
from parley_kit.ids import new_id
from parley_node.embedded.pair import ServerPair
from parley_node.embedded.paths import layout, try_lock
from parley_node.home import Home
from parley_node.provision import key_file
from tests.support.chaos import ALLOW, rows
from tests.support.crashes import kill_listener
from tests.support.dumps import database_url
from tests.support.servers import scratch_directory
from tests.support.waiting import until
from tests.support.world import Marketer, Stubs, World, between, by_criteria, terms

ROOT = Path(__file__).parents[2]
PEOPLE, KILLS, BATCH = 1000, 10, 20
ASKED = ("profile.city", "profile.age")
FINALIZED = 5


@dataclass
class City:
    """A node in its own process, and the home that outlives it."""

    home: Home
    port: int
    world: World
    process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start the node and wait until it answers."""
        with self._log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.support.node_process", str(self.home.root), str(self.port), str(BATCH)),
                cwd=ROOT,
                env={"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT / 'libs'}:{ROOT / 'services'}:{ROOT}"},
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        assert self.process.stdout is not None
        async with asyncio.timeout(60):
            assert await self.process.stdout.readline(), self._log.read_text()[-2000:]

    @property
    def _log(self) -> Path:
        return self.home.root.parent / "node.log"

    async def kill(self) -> None:
        """Kill -9 the node; its servers go with it."""
        assert self.process is not None
        self.process.kill()
        await self.process.wait()


@pytest.fixture(scope="module")
async def city() -> AsyncIterator[City]:
    """A node with everybody in it."""
    with scratch_directory() as scratch:
        home, port = Home(scratch / "home"), _free_port()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=_EAGER) as channel:
            city = City(home, port, _world(home, channel))
            await city.start()
            try:
                await _populate(city.world)
                await city.kill()
                await city.start()  # vault reads what is discoverable
                yield city
            finally:
                await city.kill()
                await until(lambda: _servers_gone(home))


_EAGER = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 200)]


async def _servers_gone(home: Home) -> bool:
    where = layout(home.servers)
    locks = [try_lock(where.lock(server)) for server in ("postgres", "valkey")]
    for lock in locks:
        if lock is not None:
            os.close(lock)
    return None not in locks


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _world(home: Home, channel: grpc.aio.Channel) -> World:
    where = layout(home.servers)
    servers = ServerPair(provider="", adopted=True, where=where)
    node: Any = SimpleNamespace(servers=servers)  # all that is asked of a node in another process
    return World(home, node, Stubs(channel), log=None)  # type: ignore[arg-type] # the log is in a file


async def _populate(world: World) -> None:
    """Import everybody, then write what each would say with two calls of their own: discoverable age, and an allow rule."""
    importer, keys = await world.staff("importer"), [str(n) for n in range(PEOPLE)]
    opened = await importer.call(
        "identity",
        "OpenImportedAccounts",
        identitypb.OpenImportedAccountsRequest(row_keys=keys, **{"import": "everybody"}),
    )
    for start in range(0, PEOPLE, 500):
        entries = [_entry(account.vault_ref) for account in opened.accounts[start : start + 500]]
        await importer.call("vault", "ImportItems", vaultpb.ImportItemsRequest(entries=entries))
    complete = identitypb.CompleteImportedAccountsRequest(row_keys=keys, **{"import": "everybody"})
    await importer.call("identity", "CompleteImportedAccounts", complete)
    query = "INSERT INTO discoverable SELECT subject, 'profile.age', 1 FROM subjects"
    await rows(world, "vault", query)
    await _allow(world)


def _entry(vault_ref: bytes) -> vaultpb.ImportEntry:
    items = [
        vaultpb.ImportedItem(attribute=name, value=value, provenance=vaultpb.PROVENANCE_IMPORTED)
        for name, value in (("profile.age", "34"), ("profile.city", "Lisbon"))
    ]
    return vaultpb.ImportEntry(vault_ref=vault_ref, items=items)


async def _allow(world: World) -> None:
    ring = KeyRing.load(key_file(world.home, "audit", "ref"))
    people = await rows(world, "identity", "SELECT consent_subject, audit_subject FROM customers")
    rule = terms(*ASKED, valid_for=timedelta(days=365), decide_within=None).SerializeToString(deterministic=True)
    connection = await asyncpg.connect(database_url(world, "consent"))
    try:
        refs = [
            (person["consent_subject"], seal_ref(ring, "audit", SubjectRef(person["audit_subject"])))
            for person in people
        ]
        await connection.executemany("INSERT INTO customers (customer, revision, audit_ref) VALUES ($1, 1, $2)", refs)
        await connection.executemany(
            "INSERT INTO rules VALUES ($1, $2, $3, '', 0, $4, $5)",
            [(person["consent_subject"], new_id(), ALLOW, rule, datetime.now(UTC)) for person in people],
        )
    finally:
        await connection.close()


# --- The marketer ----------------------------------------------------------------------------------------------------------


@dataclass
class Backend:
    """A marketer's backend: it asks, keeps what comes, acknowledges it, and comes back whenever the line breaks."""

    marketer: Marketer
    kept: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    """(exchange, pseudonym, release id) by the delivery's name."""
    repeats: int = 0
    exchanges: list[str] = field(default_factory=list)
    _token: str = ""
    _to_acknowledge: set[str] = field(default_factory=set)

    async def ask(self) -> None:
        """Ask everybody once more; a retry carries the same request id."""
        request = by_criteria(terms("profile.city"), between("profile.age", "34", "34"))
        answer = await self._insist(lambda: self.marketer.ask(request))
        self.exchanges.append(answer.exchange.name)

    def has_all(self) -> bool:
        """Whether everybody's release to every exchange is kept."""
        return len(self.kept) >= PEOPLE * len(self.exchanges)

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Follow the feed and acknowledge for the length of a block."""
        tasks = [asyncio.create_task(self._follow()), asyncio.create_task(self._acknowledge())]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow(self) -> None:
        while True:
            with suppress(grpc.aio.AioRpcError):
                await self.marketer.sign_in()
                async with self.marketer.feed(self._token) as feed:
                    async for delivery in feed:
                        self._keep(delivery)
            await asyncio.sleep(0.1)

    def _keep(self, delivery: brokerpb.Delivery) -> None:
        self.repeats += delivery.name in self.kept
        release = delivery.release
        self.kept[delivery.name] = (release.exchange, release.pseudonym, release.release_id)
        self._to_acknowledge.add(delivery.name)
        self._token = delivery.resume_token

    async def _acknowledge(self) -> None:
        while True:
            names = sorted(self._to_acknowledge)[:100]
            if names:
                request = brokerpb.AcknowledgeDeliveriesRequest(names=names)
                await self._insist(lambda: self.marketer.call("broker", "AcknowledgeDeliveries", request))  # noqa: B023
                self._to_acknowledge.difference_update(names)
            await asyncio.sleep(0.05)

    async def _insist(self, call: Callable[[], Awaitable[Any]]) -> Any:
        while True:
            with suppress(grpc.aio.AioRpcError):
                return await call()
            await asyncio.sleep(0.1)


# --- Killing ---------------------------------------------------------------------------------------------------------------


async def kill_node(city: City) -> None:
    await city.kill()
    await city.start()


async def kill_postgres(city: City) -> None:
    await _kill_server(city.world.node.servers.where.postgres_sockets / ".s.PGSQL.5432")  # type: ignore[union-attr] # embedded


async def kill_valkey(city: City) -> None:
    await _kill_server(city.world.node.servers.where.valkey_socket)  # type: ignore[union-attr] # embedded


async def _kill_server(path: Path) -> None:
    """Kill it, as soon as it is back from the last time."""
    async with asyncio.timeout(30):
        while True:
            with suppress(OSError):
                kill_listener(path)
                return
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("kill", [kill_node, kill_postgres, kill_valkey])
async def test_campaign_survives_ten_kills(city: City, kill: Callable[[City], Awaitable[None]]) -> None:
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    rng = random.Random(seed)
    backend, midway = Backend(await city.world.marketer()), 0
    async with backend.working():
        await backend.ask()
        for _ in range(KILLS):
            await asyncio.sleep(rng.uniform(0.1, 1.0))
            if backend.has_all():  # it was faster than we: ask again, so that there is something to disturb
                await backend.ask()
                await asyncio.sleep(rng.uniform(0.1, 0.5))
            midway += not backend.has_all()
            await kill(city)
        print(f"{midway} kills in the middle, {len(backend.exchanges)} exchanges, {backend.repeats} repeats")
        await until(lambda: _is_over(city.world, backend), seconds=120)
    assert KILLS == midway
    await _check(city.world, backend)


async def _is_over(world: World, backend: Backend) -> bool:
    """Everything has an end state, is delivered and acknowledged, and is in the log."""
    if not backend.has_all():
        return False
    with suppress(asyncpg.PostgresError, OSError):  # just coming back
        name = backend.marketer.name
        left = await rows(world, "broker", "SELECT 1 FROM deliveries WHERE marketer = $1", name)
        left += await rows(world, "broker", "SELECT 1 FROM exchanges WHERE marketer = $1 AND NOT matched", name)
        left += await rows(world, "broker", "SELECT 1 FROM participants WHERE marketer = $1 AND state < 5", name)
        left += await rows(world, "consent", "SELECT 1 FROM outbox LIMIT 1")
        return not left
    return False


async def _check(world: World, backend: Backend) -> None:
    """Compare the histories of consent, broker and marketer; nobody's code is asked but the databases."""
    name, exchanges = backend.marketer.name, backend.exchanges
    settled = await rows(
        world,
        "consent",
        "SELECT s.exchange, c.pseudonym, s.release_id, s.salt, s.detail FROM settlements AS s "
        "JOIN consents AS c USING (customer, consent_id) WHERE s.exchange = ANY($1)",
        exchanges,
    )
    at_consent = [tuple(row)[:3] for row in settled]
    assert PEOPLE * len(exchanges) == len(at_consent)
    assert len(at_consent) == len({(exchange, pseudonym) for exchange, pseudonym, _ in at_consent})

    finished = await rows(
        world,
        "broker",
        "SELECT exchange_id, pseudonym, state, acknowledged FROM participants WHERE marketer = $1",
        name,
    )
    assert {(FINALIZED, True)} == {(row["state"], row["acknowledged"]) for row in finished}
    at_broker = {(f"{name}/exchanges/{row['exchange_id']}", row["pseudonym"]) for row in finished}
    assert {(exchange, pseudonym) for exchange, pseudonym, _ in at_consent} == at_broker
    assert sorted(at_consent) == sorted(backend.kept.values())  # nothing lost, nothing twice
    await _check_log(world, [hashlib.sha256(row["salt"] + row["detail"]).digest() for row in settled])


async def _check_log(world: World, commitments: list[bytes]) -> None:
    query = "SELECT commitment FROM {} WHERE commitment = ANY($1)"
    for table in ("log_commitments", "history"):
        found = [row["commitment"] for row in await rows(world, "audit", query.format(table), commitments)]
        assert sorted(commitments) == sorted(found)
    seen: dict[bytes, int] = {}
    for row in await rows(world, "audit", "SELECT entry FROM log_entries"):
        seen[row["entry"]] = seen.get(row["entry"], 0) + 1
    assert {1} == set(seen.values())  # no leaf stands in the log twice
