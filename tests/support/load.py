"""
A load of real exchanges over many customers, and what is left of it in the end.

Everything is written down in a history as it is asked and answered, for the independent checker.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import asyncpg
import grpc

from parley.broker.v1 import broker_pb2 as brokerpb
from parley.identity.v1 import identity_pb2 as identitypb
from parley.vault.v1 import vault_pb2 as vaultpb
from parley_crypto.keyring import KeyRing
from parley_crypto.release import open_release
from parley_crypto.subject_ref import SubjectRef, seal_ref
from parley_crypto.trust import Trust
from parley_kit.ids import new_id
from parley_node.provision import key_file
from parley_node.services import SERVICES
from tests.support.calls import request_id
from tests.support.chaos import ALLOW, rows
from tests.support.checker import Violation, check
from tests.support.dumps import database_url
from tests.support.hesitating import Hesitant
from tests.support.history import History
from tests.support.waiting import beside, until
from tests.support.wavering import HAMLET, Waverer
from tests.support.world import Marketer, World, between, by_criteria, terms, to_known

ASKED = ("profile.city", "profile.age")
_NOT_OVER = {
    "broker": (
        "SELECT 1 FROM deliveries WHERE marketer = $1 LIMIT 1",
        "SELECT 1 FROM exchanges WHERE marketer = $1 AND NOT matched LIMIT 1",
        "SELECT 1 FROM participants WHERE marketer = $1 AND state < 5 LIMIT 1",
    ),
    "consent": ("SELECT 1 FROM notices WHERE marketer = $1 LIMIT 1",),
}
_UNREAD = "SELECT 1 FROM outbox LIMIT 1"
_LOSES_EVERY = 50


# --- Everybody -------------------------------------------------------------------------------------------------------------


async def populate(world: World, people: int) -> None:
    """
    Import everybody, then write what each would say with two calls of their own: discoverable age, and an allow rule.

    Vault must be started anew before it finds them.
    """
    importer, keys = await world.staff("importer"), [str(n) for n in range(people)]
    opened = await importer.call(
        "identity",
        "OpenImportedAccounts",
        identitypb.OpenImportedAccountsRequest(row_keys=keys, **{"import": "everybody"}),
    )
    accounts = list(zip(keys, opened.accounts, strict=True))
    for start in range(0, people, 500):
        entries = [_entry(account.vault_ref, key) for key, account in accounts[start : start + 500]]
        await importer.call(
            "vault", "ImportItems", vaultpb.ImportItemsRequest(entries=entries, request_id=request_id())
        )
    complete = identitypb.CompleteImportedAccountsRequest(row_keys=keys, **{"import": "everybody"})
    await importer.call("identity", "CompleteImportedAccounts", complete)
    await rows(world, "vault", "INSERT INTO discoverable SELECT subject, 'profile.age', 1 FROM subjects")
    await _allow(world)


def _entry(vault_ref: bytes, key: str) -> vaultpb.ImportEntry:
    """Everybody is 34, and lives in a town that is theirs alone: so a release that is another's shows."""
    items = [
        vaultpb.ImportedItem(attribute=name, value=value, provenance=vaultpb.PROVENANCE_IMPORTED)
        for name, value in (("profile.age", "34"), ("profile.city", f"Town {key}"))
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
    history: History
    customers: int
    trust: Trust | None = None
    """With which it opens what it gets, where customers can be told by their town."""
    waverers: Sequence[Waverer] = ()
    """Who is asked beside these, and takes back what they accept."""
    kept: dict[str, tuple[str, str]] = field(default_factory=dict)
    """(exchange, pseudonym) by the delivery's name."""
    wavered: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Likewise, of those who waver or hesitate: whether one comes is chance."""
    notices: set[str] = field(default_factory=set)
    """The names of notices."""
    repeats: int = 0
    exchanges: list[str] = field(default_factory=list)
    expected: int = 0
    """How many releases are to come in all."""
    broke: list[grpc.aio.AioRpcError] = field(default_factory=list)
    """With what the feed, or signing in for it, ended."""
    hesitant: Hesitant | None = None
    """Who is asked in between, and pauses just then."""
    is_finishing: bool = False
    """Whether nothing new is asked any more."""
    _token: str = ""
    _to_acknowledge: set[str] = field(default_factory=set)
    _came: Iterator[int] = field(default_factory=lambda: count(1))

    def __str__(self) -> str:
        taken_back = f"{len(self.notices)} taken back, {len(self.wavered)} of those releases came before"
        return f"{len(self.exchanges)} exchanges, {len(self.kept)} releases, {self.repeats} repeats, {taken_back}"

    @property
    def name(self) -> str:
        """The marketer's."""
        return self.marketer.name

    async def ask(self) -> None:
        """Ask everybody once more; a retry carries the same request id."""
        request = by_criteria(terms("profile.city"), between("profile.age", "34", "34"))
        answer = await self._insist(lambda: self.tried(request, self.customers + len(self.waverers)))
        self.exchanges.append(answer.exchange.name)
        self.expected += self.customers

    async def ask_one(self, pseudonym: str, by: Marketer | None = None, seconds: float = 5.0) -> bool:
        """Ask one customer for a release in the answer, once; whether it was in it. Raises grpc.aio.AioRpcError."""
        return await self._asked_one(_in_answer(pseudonym), by, seconds)

    async def _asked_one(
        self, request: brokerpb.CreateExchangeRequest, by: Marketer | None = None, seconds: float = 5.0
    ) -> bool:
        answer = await self.tried(request, 1, by, timeout=seconds)
        self.expected += 1
        if answer.HasField("delivery"):
            self._keep(answer.delivery)
        return bool(answer.HasField("delivery"))

    async def ask_perhaps(self, request: brokerpb.CreateExchangeRequest) -> None:
        """Make an exchange with one customer that may bring a release, until it is answered."""
        answer = await self._insist(lambda: self.tried(request, 1))
        if answer.HasField("delivery"):
            self._keep(answer.delivery)

    async def tried(
        self, request: brokerpb.CreateExchangeRequest, customers: int, by: Marketer | None = None, **options: Any
    ) -> brokerpb.CreateExchangeResponse:
        """Ask once, over the marketer's own line or another, and write down how that went. Raises grpc.aio.AioRpcError."""
        name, request_id = self.marketer.name, request.request_id
        self.history.asked(name, request_id, customers)
        try:
            answer: brokerpb.CreateExchangeResponse = await (by or self.marketer).call(
                "broker", "CreateExchange", request, **options
            )
        except grpc.aio.AioRpcError as error:
            self.history.failed(name, request_id, error.code().name)
            raise
        self.history.answered(name, request_id, answer.exchange.name)
        return answer

    def has_all(self) -> bool:
        """Whether every release that is to come is kept."""
        return len(self.kept) >= self.expected

    def pseudonyms(self) -> list[str]:
        """The customers it knows."""
        return sorted({pseudonym for _, pseudonym in self.kept.values()})

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Follow the feed and acknowledge for the length of a block, while some waver."""
        restless = [each.waver(self.history) for each in self.waverers]
        if self.hesitant:
            restless.append(self.hesitant.hesitate(self, lambda: self.is_finishing))
        async with beside(self._follow(), self._acknowledge(), *restless):
            yield

    async def busy(self) -> None:
        """Ask everybody again if all is done, so that there is something to disturb; else one of them, until it is answered."""
        if self.has_all():
            await self.ask()
        elif known := self.pseudonyms():
            request = _in_answer(known[self.expected % len(known)])
            await self._insist(lambda: self._asked_one(request))

    async def _follow(self) -> None:
        """Read the feed for ever. Now and then something is lost before it is kept: then it is read from its start again."""
        while True:
            try:
                await self.marketer.sign_in()
                async with self.marketer.feed(self._token) as feed:
                    async for delivery in feed:
                        if next(self._came) % _LOSES_EVERY == 0:
                            self._token = ""
                            break
                        self._keep(delivery)
            except grpc.aio.AioRpcError as error:
                self.broke.append(error)
                self.history.failed(self.marketer.name, "", error.code().name)
            await asyncio.sleep(0.1)  # as a marketer's backend does

    def _keep(self, delivery: brokerpb.Delivery) -> None:
        if delivery.HasField("notice"):
            self.history.notified(self.marketer.name, delivery)
            self.notices.add(delivery.name)
        else:
            self._keep_release(delivery)
        self._to_acknowledge.add(delivery.name)
        self._token = delivery.resume_token or self._token

    def _keep_release(self, delivery: brokerpb.Delivery) -> None:
        opened = self._opened(delivery)
        self.history.delivered(self.marketer.name, delivery, opened)
        kept = self.wavered if opened.get("town", "").startswith(HAMLET) else self.kept
        self.repeats += delivery.name in kept
        kept[delivery.name] = (delivery.release.exchange, delivery.release.pseudonym)

    def _opened(self, delivery: brokerpb.Delivery) -> Mapping[str, str]:
        """What a release says, under vault's signature: whose it is, and where they live."""
        if self.trust is None:
            return {}
        opened = open_release(self.marketer.sealer, delivery.release.sealed_release, self.trust.keys("vault"))
        (town,) = [each["value"] for each in opened["fields"] if each["attribute"] == "profile.city"]
        return {**{part: opened[part] for part in ("exchange", "pseudonym", "release")}, "town": town}

    async def _acknowledge(self) -> None:
        while True:
            names = sorted(self._to_acknowledge)[:100]
            if names:
                request = brokerpb.AcknowledgeDeliveriesRequest(names=names)
                await self._insist(lambda: self._tell(request))  # noqa: B023
                releases = self.kept | self.wavered
                for name in releases.keys() & {*names}:
                    self.history.acknowledged(self.marketer.name, *releases[name])
                self._to_acknowledge.difference_update(names)
            await asyncio.sleep(0.05)

    async def _tell(self, request: brokerpb.AcknowledgeDeliveriesRequest) -> None:
        """Acknowledge once, and write down how that went. Raises grpc.aio.AioRpcError."""
        try:
            await self.marketer.call("broker", "AcknowledgeDeliveries", request)
        except grpc.aio.AioRpcError as error:
            self.history.failed(self.marketer.name, "", error.code().name)
            raise

    async def _insist(self, call: Callable[[], Awaitable[Any]]) -> Any:
        while True:
            with suppress(grpc.aio.AioRpcError):
                return await call()
            await asyncio.sleep(0.1)

    async def finish(self, world: World, seconds: float = 60.0) -> float:
        """Wait until all is kept, and then until all is over everywhere; how many seconds that took after the last was kept."""

        async def has_all() -> bool:
            return self.has_all()

        async def is_over() -> bool:
            nothing_left = not await left(world, self.marketer.name)
            if not nothing_left or not all(each.calm for each in restless):
                return False
            return not await left(world, self.marketer.name)  # what came of the last who took something back

        self.is_finishing = True
        restless: list[Waverer | Hesitant] = [*self.waverers, *([self.hesitant] if self.hesitant else [])]
        try:
            await until(has_all, seconds)
            since = time.monotonic()
            await until(is_over, seconds)
        except TimeoutError:
            kept = f"{len(self.kept)} of {self.expected} kept"
            raise AssertionError(f"{kept}, and left are: {await left(world, self.marketer.name)}") from None
        return time.monotonic() - since


def _in_answer(pseudonym: str) -> brokerpb.CreateExchangeRequest:
    return to_known(terms("profile.city", valid_for=timedelta(days=20)), pseudonym, in_answer=True)


async def left(world: World, marketer: str) -> list[str]:
    """What isn't over yet of a marketer's, and which services have events that not all readers have read."""
    try:
        found = [
            query
            for service, queries in _NOT_OVER.items()
            for query in queries
            if await rows(world, service, query, marketer)
        ]
        return [*found, *[f"{service}: {_UNREAD}" for service in _NOT_OVER if await rows(world, service, _UNREAD)]]
    except (asyncpg.PostgresError, OSError):
        return ["PostgreSQL is just coming back"]


async def streams_are_read(world: World) -> bool:
    """Whether every event of every service is in the log, is read by all, and consent knows how far audit has logged."""
    logged = {row["service"]: row["logged_seq"] for row in await rows(world, "audit", "SELECT * FROM stream_progress")}
    ((known,),) = await rows(world, "consent", "SELECT logged_seq FROM audit_progress")
    for service in SERVICES:
        ((last, acked),) = await rows(world, service, "SELECT last_seq, acked_seq FROM stream_head")
        if acked != last or (service != "audit" and logged.get(service, 0) != last):
            return False
    return bool(known == logged.get("consent", 0))


async def checked(world: World, history: History) -> Sequence[Violation]:
    """What the independent checker says of a history and the databases."""
    databases = (database_url(world, name) for name in ("consent", "broker", "audit"))
    return await check(history.path, key_file(world.home, "audit", "master"), *databases)
