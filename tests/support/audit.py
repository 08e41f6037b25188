"""An audit service on real servers, and streams of events for it to log."""

import asyncio
import io
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import grpc
from google.protobuf.message import Message
from prometheus_client import CollectorRegistry

from parley.audit.v1 import audit_pb2 as auditpb
from parley.audit.v1.audit_pb2_grpc import AuditServiceStub
from parley.broker.v1 import broker_events_pb2 as brokerpb
from parley.common.v1.event_envelope_pb2 import EventEnvelope
from parley.common.v1.receipt_pb2 import AuditNote
from parley.consent.v1 import consent_events_pb2 as consentpb
from parley.identity.v1 import identity_events_pb2 as identitypb
from parley.vault.v1 import vault_events_pb2 as vaultpb
from parley_audit.app import build
from parley_audit.commands import Growing
from parley_audit.config import Config
from parley_audit.policy import policy_text
from parley_audit.publisher import Publisher
from parley_audit.store import Store
from parley_audit.ticking import Ticking
from parley_bus.bus import Bus, Entry
from parley_bus.consumer import Received
from parley_bus.envelopes import Notary, envelope
from parley_crypto.commitment import Opening
from parley_crypto.keyfiles import ensure_key, read_key
from parley_crypto.keyring import KeyRing
from parley_crypto.signing import Sealer, Signer
from parley_crypto.statements import Token, issue_token
from parley_crypto.subject_ref import SubjectRef, seal_ref
from parley_crypto.tlog import receipt
from parley_crypto.tlog.note import PrivateKey, VerifierKey
from parley_crypto.tlog.policy import parse_sealed_policy
from parley_crypto.trust import Trust
from parley_db.database import Database
from parley_db.migrate import migrate
from parley_kit.clock import SystemClock
from parley_kit.ids import new_id
from parley_rpc.inproc import InprocessHub
from parley_rpc.logs import logger
from parley_rpc.metrics import Metrics
from parley_rpc.platform import Platform, Service
from parley_rpc.tokens import bearer
from parley_rpc.zones import Zones
from tests.support.waiting import until

ORIGIN = "parley.test/log"
CLOCK = SystemClock()
ORDINARY: Mapping[str, Any] = {
    "identity": identitypb.AccountOpened,
    "vault": vaultpb.ItemsChanged,
    "consent": consentpb.ConsentChanged,
    "broker": brokerpb.DeliveryAcknowledged,
}


async def migrate_audit(dsn: str) -> None:
    """Give a database audit's schema."""
    await migrate(dsn, "parley_audit")


@dataclass(frozen=True)
class Secrets:
    """Audit's key files in a directory, and what the others share with it."""

    folder: Path
    identity: Signer = field(default_factory=lambda: Signer(secrets.token_bytes(32)))

    def __post_init__(self) -> None:
        for name in ("master", "sealing", "ref", "log"):
            ensure_key(self.folder / name)
        (self.folder / "trust.json").write_text(self.trust.dump())

    @property
    def sealer(self) -> Sealer:
        return Sealer.load(self.folder / "sealing")

    @property
    def refs(self) -> KeyRing:
        return KeyRing.load(self.folder / "ref")

    @property
    def vkey(self) -> VerifierKey:
        return PrivateKey(ORIGIN, read_key(self.folder / "log")).vkey()

    @property
    def trust(self) -> Trust:
        keys = {"identity": {self.identity.key_id: self.identity.public_key}}
        return Trust(keys, {"audit": self.sealer.public_key})

    def config(self, dsn: str) -> Config:
        return Config(
            postgres_dsn=dsn,
            master_key=self.folder / "master",
            sealing_key=self.folder / "sealing",
            ref_key=self.folder / "ref",
            log_key=self.folder / "log",
            origin=ORIGIN,
            published=self.folder / "published",
            trust=self.folder / "trust.json",
            tick=timedelta(milliseconds=10),
        )


@dataclass(frozen=True)
class Told:
    """An event as its writer made it, with the opening that only its parties know."""

    event_id: UUID
    envelope: bytes
    opening: Opening

    def received(self, seq: int) -> Received:
        return Received(seq, EventEnvelope.FromString(self.envelope))


@dataclass(frozen=True)
class Writer:
    """Makes events as the other services do, sealed to audit's public key and with refs under the key it shares."""

    audit_key: bytes
    refs: KeyRing

    def tell(self, service: str, subject: str = "", kind: str = "test:thing:done", **detail: Any) -> Told:
        """An event."""
        return self._told(ORDINARY[service], subject, kind, detail)

    def release(self, subject: str = "", **detail: Any) -> Told:
        """A release that was settled."""
        return self._told(consentpb.ReleaseSettled, subject, "consent:release:settled", detail)

    def liar(self, service: str) -> Told:
        """An event whose sealed opening does not open its commitment."""
        one, other = self.tell(service), self.tell(service)
        payload, true = (_payload(service, each) for each in (one, other))
        payload.note.sealed_opening = true.note.sealed_opening
        return _in_envelope(payload, one.opening)

    def _told(self, kind_of_event: Any, subject: str, kind: str, detail: Mapping[str, Any]) -> Told:
        ref = seal_ref(self.refs, "audit", SubjectRef(subject)) if subject else b""
        note, opening = Notary(self.audit_key, CLOCK).note(kind, detail, ref)
        return _in_envelope(_noting(kind_of_event, note), opening)


def _noting(kind_of_event: Any, note: AuditNote) -> Any:
    """An event that tells of one thing, whether its kind comes in numbers or not."""
    many = "notes" in kind_of_event.DESCRIPTOR.fields_by_name
    return kind_of_event(notes=[note]) if many else kind_of_event(note=note)


def _payload(service: str, told: Told) -> Any:
    return ORDINARY[service].FromString(EventEnvelope.FromString(told.envelope).payload)


def _in_envelope(payload: Message, opening: Opening) -> Told:
    event = envelope(payload, CLOCK.now())
    return Told(event.event_id, event.envelope, opening)


@dataclass
class Audit:
    """A running audit service, and the ways into it."""

    config: Config
    platform: Platform
    service: Service
    db: Database
    bus: Bus
    hub: InprocessHub
    keys: Secrets
    log: io.StringIO
    seqs: dict[str, int] = field(default_factory=dict)

    @property
    def writer(self) -> Writer:
        return Writer(self.keys.sealer.public_key, self.keys.refs)

    @property
    def stub(self) -> AuditServiceStub:
        return AuditServiceStub(self.hub.channel())

    async def publish(self, service: str, told: Sequence[Told]) -> None:
        """Put events on a service's stream, in its next places."""
        first = self.seqs.get(service, 0) + 1
        entries = [Entry(seq, each.event_id, each.envelope) for seq, each in enumerate(told, first)]
        await self.bus.publish(self.bus.stream(service), entries, ["audit"], 0)
        self.seqs[service] = first + len(told) - 1

    async def size(self) -> int:
        return int(await self.db.fetchval("SELECT size FROM log_head"))

    async def published_size(self) -> int:
        return int(await self.db.fetchval("SELECT size FROM log_checkpoint"))

    async def logged(self, service: str) -> int:
        return int(await self.db.fetchval("SELECT logged_seq FROM stream_progress WHERE service = $1", service) or 0)

    async def covered(self) -> bool:
        """Whether all that was published is logged, and a checkpoint covers it."""
        done = [seq == await self.logged(service) for service, seq in self.seqs.items()]
        return all(done) and await self.size() <= await self.published_size()

    async def taken_in(self) -> bool:
        """Whether all that was published waits for a tick, or is logged."""
        waiting = await self.db.fetch("SELECT service, max(seq) AS last FROM waiting GROUP BY service")
        last = {row["service"]: row["last"] for row in waiting}
        return all([seq == last.get(service, await self.logged(service)) for service, seq in self.seqs.items()])

    @property
    def ticking(self) -> Ticking:
        """The log's clock, to have it tick by hand."""
        clock = self.service.tasks["ticking"].__self__  # type: ignore[attr-defined] # a bound method
        assert isinstance(clock, Ticking)
        return clock

    async def grow(self, ticks: int = 1) -> None:
        """Let so many ticks pass of which nothing is published, all in one transaction."""
        growing = Growing(Store(self.db, ORIGIN), CLOCK, lambda _: None)
        async with self.db.tx("test.grow") as tx:
            for _ in range(ticks):
                await growing.grow(tx)

    @property
    def publisher(self) -> Publisher:
        """What signs the log, to have it sign by hand."""
        made = self.service.pings["log"].__self__  # type: ignore[attr-defined] # a bound method
        assert isinstance(made, Publisher)
        return made

    async def log_at_once(self, told: Mapping[str, Sequence[Told]]) -> None:
        """Have one tick log what services publish, and all that waits."""
        await self.publisher.publish()
        async with self.running(*(f"consumer.{service}" for service in told)):
            for service, events in told.items():
                await self.publish(service, events)
            await until(self.taken_in)
        await self.ticking.tick()

    async def history(self, subject: str, size: int = 0, token: str = "") -> auditpb.ListHistoryResponse:
        request = auditpb.ListHistoryRequest(page_size=size, page_token=token)
        return await self.stub.ListHistory(request, metadata=self.sign_in(subject), timeout=10)

    def sign_in(self, subject: str) -> tuple[tuple[str, str], ...]:
        token = issue_token(self.keys.identity, Token("customer", subject), "audit", CLOCK.now())
        return (("authorization", f"Bearer {token}"),)

    async def receipt(self, opening: Opening) -> receipt.Receipt:
        """Fetch an opening's proof and verify the receipt whole, as its holder would offline."""
        answer = await self.stub.GetProof(auditpb.GetProofRequest(commitment=opening.commitment), timeout=10)
        way = receipt.Opening(opening.salt, opening.detail, answer.index, answer.size, tuple(answer.path))
        policy = parse_sealed_policy(policy_text(self.keys.vkey))
        return receipt.verify_receipt(policy, answer.proof, answer.entry, way.to_bytes())

    async def get(self, path: str, method: str = "GET") -> "Answer":
        """Ask the HTTP application."""
        return await ask(self.service.http, path, method)

    @asynccontextmanager
    async def running(self, *names: str) -> AsyncIterator[None]:
        """Run the service's tasks (those named, or all) for the length of a block."""
        chosen = [task for name, task in self.service.tasks.items() if not names or name in names]
        tasks = [asyncio.ensure_future(task()) for task in chosen]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            for task in tasks:
                with suppress(asyncio.CancelledError):
                    await task


@asynccontextmanager
async def audit_service(config: Config, keys: Secrets, bus: Bus) -> AsyncIterator[Audit]:
    """Assemble audit, with its streams there as the relays would have made them; its tasks don't run yet."""
    lines = io.StringIO()
    log = logger("audit", lines)

    def nobody(name: str) -> grpc.aio.Channel:
        raise AssertionError(f"audit called {name}")

    platform = Platform(CLOCK, bus, nobody, log)
    hub = InprocessHub()
    async with (
        build(config, platform) as service,
        Database.open(config.postgres_dsn, application_name="test") as db,
    ):
        hub.register(
            service.registrations,
            authenticate=bearer(keys.trust, CLOCK),
            clock=CLOCK,
            zones=Zones.load(),
            metrics=Metrics(CollectorRegistry()),
            log=log,
        )
        yield Audit(config, platform, service, db, bus, hub, keys, lines)
        await hub.close()


async def make_streams(bus: Bus) -> None:
    """Make what relays would: a stream and audit's group for each service."""
    for service in ORDINARY:
        await bus.rebuild(bus.stream(service), ["audit"])


@dataclass(frozen=True)
class Answer:
    """What HTTP answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes


async def ask(app: Any, path: str, method: str = "GET") -> Answer:
    """Make one request of an ASGI application."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [],
    }
    await app(scope, receive, send)
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return Answer(sent[0]["status"], headers, b"".join(each.get("body", b"") for each in sent[1:]))


def customer() -> str:
    """A customer's id in audit."""
    return new_id()
