"""A consent service to call: assembled as in production, on a database and streams of the test's own."""

import asyncio
import hashlib
import io
import secrets
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from google.protobuf.message import Message
from prometheus_client import CollectorRegistry

from parley.common.v1 import permit_pb2 as permitpb
from parley.common.v1 import receipt_pb2 as receiptpb
from parley.common.v1 import terms_pb2 as termspb
from parley.common.v1.event_envelope_pb2 import EventEnvelope
from parley.consent.v1 import consent_pb2 as consentpb
from parley.consent.v1.consent_pb2_grpc import ConsentServiceStub
from parley_bus.bus import Bus, Entry
from parley_bus.envelopes import envelope
from parley_consent.app import build
from parley_consent.basis import Basis
from parley_consent.config import Config
from parley_crypto.batch import sign_batch
from parley_crypto.commitment import Opening, unseal_opening
from parley_crypto.jws import verify_statement
from parley_crypto.keyfiles import ensure_key
from parley_crypto.keyring import KeyRing
from parley_crypto.signing import Sealer, Signer
from parley_crypto.statements import Card, Token, issue_card, issue_token
from parley_crypto.subject_ref import SubjectRef, open_ref, seal_ref
from parley_crypto.trust import Trust
from parley_db.database import Database
from parley_db.migrate import migrate
from parley_kit.ids import encode_id, new_id
from parley_rpc.inproc import InprocessHub
from parley_rpc.logs import logger
from parley_rpc.metrics import Metrics
from parley_rpc.platform import Platform, Service
from parley_rpc.tokens import bearer
from parley_rpc.zones import Zones
from parley_terms.purposes import DPV
from parley_terms.wire import timestamp
from tests.support.calls import request_id
from tests.support.clocks import StillClock

T = TypeVar("T")

DEADLINE = 20.0
AT_ONCE = 12  # calls; the service's pool has 16 connections
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
_KEYS = ("signing_key", "ref_key", "request_key", "audit_ref_key", "identity_key", "audit_key")


async def migrated(dsn: str) -> None:
    """Bring a database to consent's schema."""
    await migrate(dsn, "parley_consent")


@dataclass(frozen=True)
class Person:
    """A customer: consent's id for them, and audit's."""

    customer: str = field(default_factory=new_id)
    audit: str = field(default_factory=new_id)

    def pseudonym(self, marketer: "Asker") -> str:
        """Who they are to a marketer."""
        return encode_id(hashlib.sha256(f"{self.customer} {marketer.name}".encode()).digest()[:16])


@dataclass(frozen=True)
class Asker:
    """A marketer, as identity vouches for it."""

    name: str = field(default_factory=lambda: f"marketers/{new_id()}")
    level: int = 2
    display_name: str = "Hiker's Friend"
    sealer: Sealer = field(default_factory=lambda: Sealer(secrets.token_bytes(32)))

    def card(self) -> Card:
        """What its card says."""
        entity, contact = "Hiker's Friend GmbH", "privacy@hikers.example"
        return Card(self.name, self.display_name, entity, self.level, contact, self.sealer.public_key)


@dataclass(frozen=True)
class World:
    """One running consent service, and everything that its neighbours hold."""

    service: Service
    hub: InprocessHub
    clock: StillClock
    bus: Bus
    db: Database
    keys: Path
    logged: io.StringIO

    # --- who is there ---

    @property
    def broker(self) -> ConsentServiceStub:
        """Calls as the broker."""
        return ConsentServiceStub(self.hub.channel("broker"))

    def as_customer(self, person: Person) -> "AsCustomer":
        """Calls as a customer, with a token of theirs."""
        return AsCustomer(ConsentServiceStub(self.hub.channel()), self._signed_in(person))

    def _signed_in(self, person: Person) -> Sequence[tuple[str, str]]:
        token = Token("customer", person.customer, self.audit_ref(person))
        return (("authorization", f"Bearer {issue_token(self.identity, token, 'consent', self.clock.now())}"),)

    @cached_property
    def identity(self) -> Signer:
        return Signer.load(self.keys / "identity_key")

    @cached_property
    def signer(self) -> Signer:
        """Consent's own key."""
        return Signer.load(self.keys / "signing_key")

    @cached_property
    def _rings(self) -> Mapping[str, KeyRing]:
        return {"consent": KeyRing.load(self.keys / "ref_key"), "audit": KeyRing.load(self.keys / "audit_ref_key")}

    def verified(self, kind: str, statement: str) -> dict[str, Any]:
        """What consent signed."""
        return verify_statement(kind, statement, {self.signer.key_id: self.signer.public_key})

    def audit_ref(self, person: Person) -> bytes:
        return seal_ref(self._rings["audit"], "audit", SubjectRef(person.audit))

    def basis(self, person: Person, revision: int, rule_id: str = "") -> bytes:
        """What a permit rests on, as consent seals it."""
        return Basis(revision, rule_id).seal(self._rings["consent"], person.customer)

    def basis_of(self, person: Person, entry: consentpb.SettleEntry) -> Basis:
        """What a permit rests on, as consent opens it."""
        return Basis.open(self._rings["consent"], person.customer, body_of(entry).basis)

    def consent_ref(self, person: Person, marketer: Asker) -> bytes:
        """As identity introduces a customer to a marketer."""
        ref = SubjectRef(person.customer, "vault", person.pseudonym(marketer), marketer.name)
        return seal_ref(self._rings["consent"], "consent", ref)

    # --- what the broker does ---

    def terms(self, **changes: Any) -> termspb.Terms:
        """Terms that a request may have: see :func:`terms`."""
        return terms(self.clock.now(), **changes)

    def request(
        self, marketer: Asker, people: Iterable[Person], exchange: str, asked: termspb.Terms | None = None
    ) -> consentpb.DecideRequest:
        entries = [
            consentpb.DecideEntry(consent_ref=self.consent_ref(person, marketer), audit_ref=self.audit_ref(person))
            for person in people
        ]
        return consentpb.DecideRequest(
            marketer_card=issue_card(self.identity, marketer.card(), self.clock.now()),
            exchange=exchange,
            terms=asked or self.terms(),
            offer_text="Walks near you",
            entries=entries,
        )

    async def decide(
        self, marketer: Asker, people: Iterable[Person], exchange: str, asked: termspb.Terms | None = None
    ) -> consentpb.DecideResponse:
        """Decide about people, in their order."""
        return await self.broker.Decide(self.request(marketer, people, exchange, asked), timeout=DEADLINE)

    async def outcome(
        self, marketer: Asker, person: Person, exchange: str, asked: termspb.Terms | None = None
    ) -> consentpb.DecisionOutcome.ValueType:
        """What is decided about one person."""
        return (await self.decide(marketer, [person], exchange, asked)).decisions[0].outcome

    async def permits(
        self, marketer: Asker, people: Sequence[Person], exchange: str, asked: termspb.Terms | None = None
    ) -> list[consentpb.SettleEntry]:
        """Decide about people who all allow it; answers what may be settled."""
        response = await self.decide(marketer, people, exchange, asked)
        assert {consentpb.DECISION_OUTCOME_ALLOWED} == {decision.outcome for decision in response.decisions}
        return [
            consentpb.SettleEntry(
                consent_ref=self.consent_ref(person, marketer), permit=decision.permit, batch=response.batch
            )
            for person, decision in zip(people, response.decisions, strict=True)
        ]

    async def settle(self, *entries: consentpb.SettleEntry) -> list[consentpb.SettleOutcome]:
        """Settle in one call."""
        response = await self.broker.Settle(consentpb.SettleRequest(entries=entries), timeout=DEADLINE)
        return list(response.outcomes)

    # --- both sides ---

    async def consented(
        self, marketer: Asker, people: Sequence[Person], exchange: str, asked: termspb.Terms | None = None
    ) -> list[consentpb.Consent]:
        """Put an offer to each and have it accepted."""
        await self.decide(marketer, people, exchange, asked)
        return await several([self.as_customer(person).accept_only_open() for person in people])

    # --- what is there afterwards ---

    async def dump(self) -> Mapping[str, list[str]]:
        """Every row of every table."""
        names = await self.db.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY tablename")
        tables = [row["tablename"] for row in names]
        return {name: await self._rows(name) for name in tables}

    async def _rows(self, table: str) -> list[str]:
        query: Any = f'SELECT each::text AS row FROM "{table}" AS each ORDER BY 1'
        return [row["row"] for row in await self.db.fetch(query)]

    async def count(self, table: str) -> int:
        """How many rows a table has."""
        return len(await self._rows(table))

    async def suspended(self) -> int:
        """How many marketers are suspended, as far as consent has heard."""
        return int(await self.db.fetchval("SELECT count(*) FROM suspended_marketers WHERE seq > reinstated_seq"))

    async def events(self, name: str = "") -> list[EventEnvelope]:
        """Events written and not yet relayed, in order; only those of a type, if one is given."""
        rows = await self.db.fetch("SELECT envelope FROM outbox WHERE type ~ $1 ORDER BY id", f"{name}$")
        return [EventEnvelope.FromString(row["envelope"]) for row in rows]

    def opening(self, note: receiptpb.AuditNote) -> Opening:
        """A note as audit opens it."""
        return unseal_opening(Sealer.load(self.keys / "audit_key"), note.sealed_opening)[0]

    def subject_of(self, note: receiptpb.AuditNote) -> str:
        """Whose history a note goes into, as audit reads it."""
        _, ref = unseal_opening(Sealer.load(self.keys / "audit_key"), note.sealed_opening)
        return open_ref(self._rings["audit"], "audit", ref).subject

    async def hear(self, stream: str, seq: int, event: Message) -> None:
        """Put another service's event on its stream, as its relay would."""
        written = envelope(event, self.clock.now())
        entry = Entry(seq, written.event_id, written.envelope)
        if seq == 1:
            await self.bus.rebuild(self.bus.stream(stream), ["consent"])
        await self.bus.publish(self.bus.stream(stream), [entry], ["consent"], 0)

    @asynccontextmanager
    async def running(self, *names: str) -> AsyncIterator[None]:
        """Run tasks of the service for the length of a block."""
        tasks = [asyncio.ensure_future(self.service.tasks[name]()) for name in names]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    async def write_due_notices(self) -> None:
        """Let the service look once for notices that are due."""
        notices: Any = self.service.tasks["notices"]
        await notices.__self__.turn()

    async def write_all_notices(self) -> None:
        """Let time pass until each planned notice was due, and was written then."""
        while due := (await self.db.fetchrow("SELECT min(due_at) AS due FROM notices"))["due"]:
            self.clock.move(max(due - self.clock.now(), timedelta()))
            await self.write_due_notices()


class AsCustomer:
    """The API as a signed-in customer calls it; each mutation with a request id of its own unless one is given."""

    def __init__(self, stub: ConsentServiceStub, metadata: Sequence[tuple[str, str]]) -> None:
        self._stub = stub
        self._metadata = metadata

    async def call(self, method: str, request: Message) -> Any:
        """Call any method."""
        return await getattr(self._stub, method)(request, metadata=self._metadata, timeout=DEADLINE)

    async def rule(
        self, effect: str, about: termspb.Terms | None = None, scope: consentpb.RuleScope | None = None, asked: str = ""
    ) -> consentpb.Rule:
        rule = consentpb.Rule(
            effect=consentpb.RuleEffect.Value(f"RULE_EFFECT_{effect}"),
            scope=scope or consentpb.RuleScope(everyone=consentpb.Everyone()),
            terms=about,
        )
        request = consentpb.CreateRuleRequest(rule=rule, request_id=asked or request_id())
        made: consentpb.Rule = await self.call("CreateRule", request)
        return made

    async def rules(self, size: int = 0, token: str = "") -> consentpb.ListRulesResponse:
        request = consentpb.ListRulesRequest(page_size=size, page_token=token)
        answer: consentpb.ListRulesResponse = await self.call("ListRules", request)
        return answer

    async def end_rule(self, name: str) -> None:
        await self.call("DeleteRule", consentpb.DeleteRuleRequest(name=name, request_id=request_id()))

    async def offers(self, size: int = 0, token: str = "", *, open_only: bool = False) -> consentpb.ListOffersResponse:
        request = consentpb.ListOffersRequest(page_size=size, page_token=token, open_only=open_only)
        answer: consentpb.ListOffersResponse = await self.call("ListOffers", request)
        return answer

    async def offer(self, name: str) -> consentpb.Offer:
        found: consentpb.Offer = await self.call("GetOffer", consentpb.GetOfferRequest(name=name))
        return found

    async def accept(self, name: str) -> consentpb.AcceptOfferResponse:
        request = consentpb.AcceptOfferRequest(name=name, request_id=request_id())
        answer: consentpb.AcceptOfferResponse = await self.call("AcceptOffer", request)
        return answer

    async def only_offer(self) -> consentpb.Offer:
        """The one offer there is."""
        (offer,) = (await self.offers()).offers
        return offer

    async def accept_only_open(self) -> consentpb.Consent:
        """Accept the one offer that is open."""
        (offer,) = (await self.offers(open_only=True)).offers
        return (await self.accept(offer.name)).consent

    async def refuse(self, name: str) -> None:
        await self.call("RefuseOffer", consentpb.RefuseOfferRequest(name=name, request_id=request_id()))

    async def defer(self, name: str) -> None:
        await self.call("DeferOffer", consentpb.DeferOfferRequest(name=name, request_id=request_id()))

    async def consents(self, size: int = 0, token: str = "") -> consentpb.ListConsentsResponse:
        request = consentpb.ListConsentsRequest(page_size=size, page_token=token)
        answer: consentpb.ListConsentsResponse = await self.call("ListConsents", request)
        return answer

    async def consent(self, name: str) -> consentpb.Consent:
        found: consentpb.Consent = await self.call("GetConsent", consentpb.GetConsentRequest(name=name))
        return found

    async def withdraw(self, name: str) -> consentpb.WithdrawConsentResponse:
        request = consentpb.WithdrawConsentRequest(name=name, request_id=request_id())
        answer: consentpb.WithdrawConsentResponse = await self.call("WithdrawConsent", request)
        return answer

    async def pause(self, name: str) -> consentpb.Consent:
        request = consentpb.PauseConsentRequest(name=name, request_id=request_id())
        answer: consentpb.PauseConsentResponse = await self.call("PauseConsent", request)
        return answer.consent

    async def resume(self, name: str) -> consentpb.Consent:
        request = consentpb.ResumeConsentRequest(name=name, request_id=request_id())
        answer: consentpb.ResumeConsentResponse = await self.call("ResumeConsent", request)
        return answer.consent


@asynccontextmanager
async def world_of(dsn: str, valkey_url: str, prefix: str, directory: Path, **settings: Any) -> AsyncIterator[World]:
    """Assemble consent, registered on a hub behind the standard guards; its tasks are not started."""
    for name in _KEYS:
        ensure_key(directory / name)
    trust = _trust(directory)
    paths: dict[str, Any] = {name: directory / name for name in ("signing_key", "ref_key", "request_key")}
    config = Config(postgres_dsn=dsn, trust=directory / "trust.json", **paths, **settings)
    clock, hub, logged = StillClock(), InprocessHub(), io.StringIO()
    log = logger("consent", logged)
    async with (
        Bus.open(valkey_url, prefix) as bus,
        build(config, Platform(clock, bus, hub.channel, log)) as service,
        Database.open(dsn, application_name="test") as db,
    ):
        hub.register(
            service.registrations,
            authenticate=bearer(trust, clock),
            clock=clock,
            zones=Zones.load(),
            metrics=Metrics(CollectorRegistry()),
            log=log,
        )
        yield World(service, hub, clock, bus, db, directory, logged)
        await hub.close()


def _trust(directory: Path) -> Trust:
    identity, audit = Signer.load(directory / "identity_key"), Sealer.load(directory / "audit_key")
    trust = Trust({"identity": {identity.key_id: identity.public_key}}, {"audit": audit.public_key})
    (directory / "trust.json").write_text(trust.dump())
    return trust


def terms(now: datetime, **changes: Any) -> termspb.Terms:
    """
    Terms that a request may have, but for the changes: ``attributes`` (exact), ``use``, ``purposes``, ``channels``,
    ``start`` and ``end`` (moments), ``deadline`` (a moment, or None for a rule).
    """
    parts: dict[str, Any] = {
        "attributes": ["profile.language"],
        "use": termspb.USE_STANDING,
        "purposes": ["Marketing"],
        "channels": [termspb.CHANNEL_DATA, termspb.CHANNEL_WEB_INBOX],
        "start": None,
        "end": now + DAY,
        "deadline": now + HOUR,
        **changes,
    }
    message = termspb.Terms(purposes=[DPV + name for name in parts["purposes"]])
    message.content.fields.extend(
        termspb.Field(attribute=name, form=termspb.FORM_EXACT) for name in parts["attributes"]
    )
    message.content.use = parts["use"]
    message.mode.channels.extend(parts["channels"])
    for name, part in (("start", "start_time"), ("end", "end_time")):
        if parts[name]:
            getattr(message.timing.validity, part).CopyFrom(timestamp(parts[name]))
    if parts["deadline"]:
        message.timing.decision_deadline.CopyFrom(timestamp(parts["deadline"]))
    return message


def rule_terms(**changes: Any) -> termspb.Terms:
    """Terms of an allow rule that covers :func:`terms` without bounds in time, but for the changes."""
    unused = datetime.now(UTC)
    return terms(unused, **{"end": None, "deadline": None, "use": termspb.USE_UNSPECIFIED, **changes})


def body_of(entry: consentpb.SettleEntry) -> permitpb.PermitBody:
    """What a permit says."""
    return permitpb.PermitBody.FromString(entry.permit.body)


def forged(entry: consentpb.SettleEntry, signer: Signer, **changes: Any) -> consentpb.SettleEntry:
    """The entry with another body, signed by ``signer`` as a batch of one."""
    body = body_of(entry)
    for name, value in changes.items():
        setattr(body, name, value)
    raw = body.SerializeToString(deterministic=True)
    batch, (proof,) = sign_batch(signer, [raw])
    return consentpb.SettleEntry(
        consent_ref=entry.consent_ref,
        permit=permitpb.Permit(body=raw, index=0, proof=proof),
        batch=permitpb.PermitBatch(
            root=batch.root, size=batch.size, signature=batch.signature, key_id=entry.batch.key_id
        ),
    )


async def several(calls: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Make calls, several at a time; their answers in order."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(call: Coroutine[Any, Any, T]) -> T:
        async with gate:
            return await call

    return await asyncio.gather(*map(one, calls))
