"""A vault on real servers, and everyone it deals with, each with real keys: identity, consent, audit, a marketer."""

import asyncio
import io
import json
import secrets
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import grpc
from prometheus_client import CollectorRegistry

from parley.common.v1 import permit_pb2 as permitpb
from parley.common.v1 import terms_pb2 as termspb
from parley.common.v1.event_envelope_pb2 import EventEnvelope
from parley.vault.v1 import vault_pb2 as vaultpb
from parley.vault.v1.vault_events_pb2 import ItemsChanged
from parley.vault.v1.vault_pb2_grpc import VaultServiceStub
from parley_bus.bus import Bus
from parley_crypto.batch import sign_batch
from parley_crypto.commitment import unseal_opening
from parley_crypto.keyfiles import ensure_key, write_key
from parley_crypto.keyring import KeyRing
from parley_crypto.release import open_release
from parley_crypto.signing import Sealer, Signer, key_id
from parley_crypto.statements import Card, Token, issue_card, issue_token
from parley_crypto.subject_ref import SubjectRef, open_candidate, seal_ref
from parley_crypto.trust import Trust
from parley_db.database import Database
from parley_db.migrate import migrate
from parley_kit.ids import new_id
from parley_rpc.inproc import InprocessHub
from parley_rpc.logs import logger
from parley_rpc.metrics import Metrics
from parley_rpc.platform import Platform, Service
from parley_rpc.tokens import bearer
from parley_rpc.zones import Zones
from parley_terms.terms import Level
from parley_terms.wire import timestamp
from parley_vault.app import build
from parley_vault.config import Config
from tests.support.calls import request_id
from tests.support.clocks import StillClock

EXACT, ANSWER = termspb.FORM_EXACT, termspb.FORM_ANSWER
MARKETER = "marketers/aaaaaaaaaaaaaaaaaaaaaaaaaa"
EXCHANGE = f"{MARKETER}/exchanges/bbbbbbbbbbbbbbbbbbbbbbbbbb"

migrate_vault = partial(migrate, package="parley_vault")


@dataclass(frozen=True)
class Keys:
    """Keys of all, and the files that vault is started with."""

    directory: Path
    identity: Signer = field(default_factory=lambda: Signer(secrets.token_bytes(32)))
    consent: Signer = field(default_factory=lambda: Signer(secrets.token_bytes(32)))
    vault: Signer = field(default_factory=lambda: Signer(secrets.token_bytes(32)))
    audit: Sealer = field(default_factory=lambda: Sealer(secrets.token_bytes(32)))
    marketer: Sealer = field(default_factory=lambda: Sealer(secrets.token_bytes(32)))

    def config(self, dsn: str, **more: Any) -> Config:
        for name in ("master", "ref", "candidate", "order", "request"):
            ensure_key(self.directory / name)
        write_key(self.directory / "signing", self.vault.seed)
        signing = {"identity": self.identity, "consent": self.consent, "vault": self.vault}
        trust = Trust(
            {zone: {signer.key_id: signer.public_key} for zone, signer in signing.items()},
            {"audit": self.audit.public_key},
        )
        (self.directory / "trust.json").write_text(trust.dump())
        paths: dict[str, Any] = {
            f"{name}_key": self.directory / name for name in ("master", "ref", "candidate", "order")
        }
        paths |= {name: self.directory / name.removesuffix("_key") for name in ("request_key", "signing_key")}
        return Config(postgres_dsn=dsn, trust=self.directory / "trust.json", **paths, **more)

    def ring(self, name: str) -> KeyRing:
        return KeyRing.load(self.directory / name)


@dataclass(frozen=True)
class Person:
    """A customer, as vault and its callers know them."""

    world: "World"
    subject: str = field(default_factory=new_id)
    pseudonym: str = field(default_factory=lambda: new_id() + "234567")

    def __getattr__(self, rpc: str) -> Any:
        """``person.GetItem(request)`` calls as them."""
        token = Token("customer", self.subject, b"audit:" + self.subject.encode())
        return self.world.rpc(rpc, token)

    async def put(self, **values: str) -> vaultpb.PutItemsResponse:
        """``put(profile__age="42")``"""
        items = [vaultpb.ItemValue(attribute=name.replace("__", "."), value=value) for name, value in values.items()]
        answer: vaultpb.PutItemsResponse = await self.PutItems(
            vaultpb.PutItemsRequest(items=items, request_id=request_id())
        )
        return answer

    async def show(self, *attributes: str, level: Level | None = Level.UNVERIFIED) -> None:
        for attribute in attributes:
            name = f"items/{attribute}"
            at = termspb.VerificationLevel.ValueType(level or 0)
            await self.SetDiscoverable(
                vaultpb.SetDiscoverableRequest(name=name, discoverable_to=at, request_id=request_id())
            )

    async def delete(self, attribute: str) -> None:
        await self.DeleteItem(vaultpb.DeleteItemRequest(name=f"items/{attribute}", request_id=request_id()))

    async def get(self, attribute: str) -> vaultpb.Item:
        item: vaultpb.Item = await self.GetItem(vaultpb.GetItemRequest(name=f"items/{attribute}"))
        return item

    def ref(self, **changes: str) -> bytes:
        parts = {"subject": self.subject, "host": "local", "pseudonym": self.pseudonym, "marketer": MARKETER} | changes
        return seal_ref(self.world.keys.ring("ref"), "vault", SubjectRef(**parts))


@dataclass(frozen=True)
class World:
    """A running vault and who calls it."""

    keys: Keys
    config: Config
    clock: StillClock
    db: Database
    bus: Bus
    hub: InprocessHub
    logged: io.StringIO

    def rpc(self, name: str, token: Token) -> Any:
        issued = issue_token(self.keys.identity, token, "vault", self.clock.now())
        call = getattr(VaultServiceStub(self.hub.channel()), name)
        return partial(call, metadata=(("authorization", f"Bearer {issued}"),))

    @property
    def broker(self) -> Any:
        return VaultServiceStub(self.hub.channel("broker"))

    @property
    def importer(self) -> Any:
        return self.rpc("ImportItems", Token("importer", "importer"))

    def person(self) -> Person:
        return Person(self)

    async def musical(self, count: int) -> list[Person]:
        """People who let everybody know that they like music."""
        people = [self.person() for _ in range(count)]
        for person in people:
            await person.put(interest__music="yes")
            await person.show("interest.music")
        return people

    def card(self, level: Level = Level.VERIFIED, signer: Signer | None = None) -> str:
        card = Card(MARKETER, "Acme", "Acme Ltd", level, "privacy@acme.example", self.keys.marketer.public_key)
        return issue_card(signer or self.keys.identity, card, self.clock.now())

    async def match(self, criteria: termspb.Criteria, level: Level = Level.VERIFIED, **more: Any) -> list[str]:
        """The subjects that match, in the order that broker learns of them."""
        answer = await self.match_page(criteria, level, **more)
        return self.subjects(answer.candidate_refs)

    async def match_page(self, criteria: termspb.Criteria, level: Level = Level.VERIFIED, **more: Any) -> Any:
        fields: dict[str, Any] = {"marketer_card": self.card(level), "exchange": EXCHANGE, "criteria": criteria} | more
        return await self.broker.Match(vaultpb.MatchRequest(**fields))

    def subjects(self, refs: Iterable[bytes]) -> list[str]:
        return [open_candidate(self.keys.ring("candidate"), ref).subject for ref in refs]

    def permit(self, person: Person, fields: Sequence[termspb.Field], **changes: Any) -> permitpb.PermitBody:
        body = permitpb.PermitBody(
            permit_id=new_id(),
            release_id=new_id(),
            exchange=EXCHANGE,
            consent=f"consents/{new_id()}",
            marketer=MARKETER,
            sealing_key=self.keys.marketer.public_key,
            sealing_key_id=key_id(self.keys.marketer.public_key),
            pseudonym=person.pseudonym,
            fields=fields,
            vault_host="local",
            issue_time=timestamp(self.clock.now()),
            expire_time=timestamp(self.clock.now() + timedelta(seconds=30)),
            marketer_level=termspb.VERIFICATION_LEVEL_ACCREDITED,
        )
        body.MergeFrom(permitpb.PermitBody(**changes))
        return body

    def asking(
        self, entries: Sequence[tuple[bytes, permitpb.PermitBody]], signer: Signer | None = None
    ) -> vaultpb.ReleaseRequest:
        """A request for releases, with permits that consent signed as one batch."""
        signing = signer or self.keys.consent
        bodies = [body.SerializeToString() for _, body in entries]
        batch, proofs = sign_batch(signing, bodies)
        return vaultpb.ReleaseRequest(
            batch=permitpb.PermitBatch(
                root=batch.root, size=batch.size, signature=batch.signature, key_id=self.keys.consent.key_id
            ),
            entries=[
                vaultpb.ReleaseEntry(vault_ref=ref, permit=permitpb.Permit(body=body, index=index, proof=proof))
                for index, ((ref, _), body, proof) in enumerate(zip(entries, bodies, proofs, strict=True))
            ],
        )

    async def release(self, *entries: tuple[bytes, permitpb.PermitBody]) -> list[Any]:
        """What came of each: what the marketer reads, or the refusal."""
        answer = await self.broker.Release(self.asking(entries))
        return [self.read(outcome) for outcome in answer.outcomes]

    def read(self, outcome: vaultpb.ReleaseOutcome) -> Any:
        if outcome.refusal:
            assert outcome.sealed_release == b""
            return outcome.refusal
        return open_release(
            self.keys.marketer, outcome.sealed_release, {self.keys.vault.key_id: self.keys.vault.public_key}
        )

    async def events(self) -> list[tuple[bytes, dict[str, Any]]]:
        """Each event's audit ref, and what audit reads in it; the relay numbers them, and audit never acknowledges."""
        rows = await self.db.fetch("SELECT envelope FROM outbox ORDER BY id")
        found = []
        for row in rows:
            envelope = EventEnvelope.FromString(row["envelope"])
            opening, ref = unseal_opening(
                self.keys.audit, ItemsChanged.FromString(envelope.payload).note.sealed_opening
            )
            found.append((ref, json.loads(opening.detail)))
        return found


@asynccontextmanager
async def running(keys: Keys, config: Config, clock: StillClock, valkey_url: str, prefix: str) -> AsyncIterator[World]:
    """Start a vault as a process would."""
    logged = io.StringIO()
    log = logger("vault", logged)
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(Bus.open(valkey_url, prefix))
        db = await stack.enter_async_context(Database.open(config.postgres_dsn, application_name="test"))
        platform = Platform(clock=clock, bus=bus, channel=_no_calls, log=log)
        service = await stack.enter_async_context(build(config, platform))
        await stack.enter_async_context(_tasks(service))
        hub = InprocessHub()
        stack.push_async_callback(hub.close)
        hub.register(
            service.registrations,
            authenticate=bearer(Trust.load(config.trust), clock),
            clock=clock,
            zones=Zones.load(),
            metrics=Metrics(CollectorRegistry()),
            log=log,
        )
        yield World(keys, config, clock, db, bus, hub, logged)


def _no_calls(name: str) -> grpc.aio.Channel:
    raise AssertionError(f"vault calls nobody, not {name}")


@asynccontextmanager
async def _tasks(service: Service) -> AsyncIterator[None]:
    tasks = [asyncio.ensure_future(task()) for task in service.tasks.values()]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task


def one_of(*values: str) -> termspb.Question:
    return termspb.Question(one_of=termspb.OneOf(values=values))


def within(least: str = "", most: str = "") -> termspb.Question:
    return termspb.Question(range=termspb.Range(min=least, max=most))


def asks(attribute: str, question: termspb.Question) -> termspb.Criteria:
    return termspb.Criteria(test=termspb.Criterion(attribute=attribute, question=question))


def all_of(*criteria: termspb.Criteria) -> termspb.Criteria:
    return termspb.Criteria(all_of=termspb.CriteriaList(criteria=criteria))


def none_of(criteria: termspb.Criteria) -> termspb.Criteria:
    inverse: dict[str, Any] = {"not": criteria}  # a keyword of Python
    return termspb.Criteria(**inverse)


def exact(attribute: str) -> termspb.Field:
    return termspb.Field(attribute=attribute, form=EXACT)


def answer(attribute: str, question: termspb.Question) -> termspb.Field:
    return termspb.Field(attribute=attribute, form=ANSWER, question=question)
