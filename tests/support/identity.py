"""An identity service to call: assembled as in production, on a database and streams of the test's own."""

import base64
import io
import json
import secrets
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
from prometheus_client import CollectorRegistry

from parley.common.v1 import terms_pb2 as termspb
from parley.common.v1.event_envelope_pb2 import EventEnvelope
from parley.identity.v1 import identity_pb2 as identitypb
from parley.identity.v1.identity_pb2_grpc import IdentityServiceStub
from parley_bus.bus import Bus
from parley_crypto.keyfiles import ensure_key
from parley_crypto.keyring import KeyRing
from parley_crypto.signing import Sealer, Signer
from parley_crypto.statements import Token, make_assertion, verify_token
from parley_crypto.subject_ref import CandidateRef, SubjectRef, open_ref, seal_candidate
from parley_crypto.trust import Trust
from parley_db.migrate import migrate
from parley_identity.app import build
from parley_identity.config import Config
from parley_rpc import logs
from parley_rpc.inproc import InprocessHub
from parley_rpc.metrics import Metrics
from parley_rpc.platform import Platform, Service
from parley_rpc.tokens import bearer
from parley_rpc.zones import Zones
from tests.support.calls import request_id
from tests.support.clocks import StillClock
from tests.support.waiting import until

DEADLINE = 20.0
EXCHANGE = "marketers/m/exchanges/e"
_KEYS = (
    "signing_key", "wrap_key", "pseudonym_key", "row_key", "ref_vault_key", "ref_consent_key", "ref_audit_key",
    "ref_identity_key", "candidate_key", "request_key", "audit_key",
)  # fmt: skip


async def migrated(dsn: str) -> None:
    """Bring a database to identity's schema."""
    await migrate(dsn, "parley_identity")


@dataclass(frozen=True)
class Party:
    """Somebody who can sign in: a resource name and the key that goes with it."""

    name: str
    signer: Signer = field(default_factory=lambda: Signer(_random_key()))

    @property
    def public_key(self) -> bytes:
        return self.signer.public_key


@dataclass(frozen=True)
class World:
    """One running identity service, and everything that its neighbours hold."""

    service: Service
    hub: InprocessHub
    clock: StillClock
    bus: Bus
    dsn: str
    trust: Trust
    keys: Path
    operator: Party
    importer: Party
    logged: io.StringIO

    @property
    def anyone(self) -> IdentityServiceStub:
        """Calls without a token; calls with one pass its metadata."""
        return IdentityServiceStub(self.hub.channel())

    @property
    def broker(self) -> IdentityServiceStub:
        """Calls as the broker."""
        return IdentityServiceStub(self.hub.channel("broker"))

    def ring(self, name: str) -> KeyRing:
        """The ring that a neighbour shares with identity: ``vault``, ``consent``, ``audit``, ``identity``."""
        return KeyRing.load(self.keys / f"ref_{name}_key")

    def sealer(self) -> Sealer:
        """Audit's own key."""
        return Sealer.load(self.keys / "audit_key")

    def assertion(self, party: Party, jti: str = "") -> str:
        """A fresh assertion of a party's."""
        return make_assertion(party.signer, party.name, jti or uuid.uuid4().hex, self.clock.now())

    async def sign_in(self, party: Party) -> dict[str, str]:
        """Access tokens by service."""
        request = identitypb.SignInRequest(assertion=self.assertion(party))
        answer = await self.anyone.SignIn(request, timeout=DEADLINE)
        return {token.service: token.token for token in answer.tokens}

    async def tokens(self, party: Party) -> dict[str, Token]:
        """What the tokens say, by service, as each of them reads its own."""
        now, keys = self.clock.now(), self.trust.keys("identity")
        issued = await self.sign_in(party)
        return {service: verify_token(token, keys, service, now) for service, token in issued.items()}

    async def metadata(self, party: Party) -> Sequence[tuple[str, str]]:
        """What a call to identity carries for a signed-in party."""
        return (("authorization", f"Bearer {(await self.sign_in(party))['identity']}"),)

    async def register_customer(self) -> Party:
        """A customer with a key of their own."""
        signer = Signer(_random_key())
        request = identitypb.RegisterCustomerRequest(public_key=signer.public_key, request_id=request_id())
        answer = await self.anyone.RegisterCustomer(request, timeout=DEADLINE)
        return Party(answer.customer, signer)

    async def register_marketer(self, legal_entity: str = "Hiker's Friend GmbH") -> Party:
        """A verified marketer, named after its legal entity."""
        signer = Signer(_random_key())
        request = registration(signer.public_key, legal_entity=legal_entity)
        metadata = await self.metadata(self.operator)
        answer = await self.anyone.RegisterMarketer(request, metadata=metadata, timeout=DEADLINE)
        return Party(answer.name, signer)

    async def update(self, marketer: Party, **changes: Any) -> identitypb.Marketer:
        """Change a marketer, as the operator."""
        request = identitypb.UpdateMarketerRequest(name=marketer.name, request_id=request_id(), **changes)
        metadata = await self.metadata(self.operator)
        return await self.anyone.UpdateMarketer(request, metadata=metadata, timeout=DEADLINE)

    async def open_imported(self, name: str, rows: Sequence[str]) -> Sequence[identitypb.ImportedAccount]:
        """Open accounts, as the importer."""
        request = identitypb.OpenImportedAccountsRequest(**{"import": name}, row_keys=rows)
        metadata = await self.metadata(self.importer)
        answer = await self.anyone.OpenImportedAccounts(request, metadata=metadata, timeout=DEADLINE)
        return answer.accounts

    async def complete_imported(self, name: str, rows: Sequence[str]) -> Sequence[str]:
        """Complete them, as the importer: claim codes."""
        request = identitypb.CompleteImportedAccountsRequest(**{"import": name}, row_keys=rows)
        metadata = await self.metadata(self.importer)
        answer = await self.anyone.CompleteImportedAccounts(request, metadata=metadata, timeout=DEADLINE)
        return answer.claim_codes

    async def claim(self, code: str, signer: Signer, asked: str = "") -> Party:
        """Claim an account for the owner of a key."""
        request = identitypb.ClaimAccountRequest(
            claim_code=code, public_key=signer.public_key, request_id=asked or request_id()
        )
        answer = await self.anyone.ClaimAccount(request, timeout=DEADLINE)
        return Party(answer.customer, signer)

    async def vault_subject(self, customer: Party) -> str:
        """Vault's id for a customer, from their own token."""
        return (await self.tokens(customer))["vault"].subject

    def candidate(self, subject: str, marketer: str, exchange: str = EXCHANGE) -> bytes:
        """A candidate as vault seals it."""
        ring = KeyRing.load(self.keys / "candidate_key")
        return seal_candidate(ring, CandidateRef(subject, exchange, marketer))

    async def introduce(self, marketer: Party, candidates: Sequence[bytes]) -> Sequence[identitypb.Introduction]:
        """Introduce candidates, as the broker."""
        request = identitypb.IntroduceRequest(marketer=marketer.name, exchange=EXCHANGE, candidate_refs=candidates)
        return (await self.broker.Introduce(request, timeout=DEADLINE)).introductions

    def opened(self, introduction: identitypb.Introduction) -> Mapping[str, SubjectRef]:
        """The refs of an introduction, each as its reader opens it."""
        readers = ("consent", "vault", "audit", "identity")
        return {name: open_ref(self.ring(name), name, getattr(introduction, f"{name}_ref")) for name in readers}

    async def until_blocked(self) -> None:
        """Wait until a transaction waits for another's lock."""
        waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        await until(lambda: rows(self, waiting))


@asynccontextmanager
async def world_of(dsn: str, valkey_url: str, prefix: str, directory: Path) -> AsyncIterator[World]:
    """Assemble identity, registered on a hub behind the standard guards; its tasks are not started."""
    for name in _KEYS:
        ensure_key(directory / name)
    operator, importer = Party("operators/local"), Party("importers/local")
    config, trust = _config(dsn, directory, operator, importer)
    clock, hub, logged = StillClock(datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)), InprocessHub(), io.StringIO()
    log = logs.logger("identity", logged)
    async with (
        Bus.open(valkey_url, prefix) as bus,
        build(config, Platform(clock, bus, hub.channel, log)) as service,
    ):
        hub.register(
            service.registrations,
            authenticate=bearer(trust, clock),
            clock=clock,
            zones=Zones.load(),
            metrics=Metrics(CollectorRegistry()),
            log=log,
        )
        yield World(service, hub, clock, bus, dsn, trust, directory, operator, importer, logged)
        await hub.close()


def _config(dsn: str, directory: Path, *staff: Party) -> tuple[Config, Trust]:
    signer, audit = Signer.load(directory / "signing_key"), Sealer.load(directory / "audit_key")
    trust = Trust({"identity": {signer.key_id: signer.public_key}}, {"audit": audit.public_key})
    (directory / "trust.json").write_text(trust.dump())
    members = {party.name: base64.b64encode(party.public_key).decode() for party in staff}
    (directory / "operators.json").write_text(json.dumps(members))
    paths: dict[str, Any] = {name: directory / name for name in _KEYS if name != "audit_key"}
    config = Config(postgres_dsn=dsn, trust=directory / "trust.json", operators=directory / "operators.json", **paths)
    return config, trust


def registration(signing_key: bytes, **changes: Any) -> identitypb.RegisterMarketerRequest:
    """A good request to register a marketer, but for the changes."""
    fields: dict[str, Any] = {
        "display_name": "Hiker's Friend",
        "legal_entity": "Hiker's Friend GmbH",
        "verification_level": termspb.VERIFICATION_LEVEL_VERIFIED,
        "contact": "privacy@hikers.example",
        "sealing_key": Sealer(_random_key()).public_key,
        "signing_key": signing_key,
        "request_id": request_id(),
    }
    return identitypb.RegisterMarketerRequest(**{**fields, **changes})


def _random_key() -> bytes:
    return secrets.token_bytes(32)


async def rows(world: World, query: str) -> list[tuple[Any, ...]]:
    """What identity's database answers to a query."""
    connection = await asyncpg.connect(world.dsn)
    try:
        return [tuple(row) for row in await connection.fetch(query)]
    finally:
        await connection.close()


async def events(world: World, name: str) -> list[EventEnvelope]:
    """The events of a type that identity has written, in order."""
    written = await rows(world, f"SELECT envelope FROM outbox WHERE type = 'parley.identity.v1.{name}' ORDER BY id")
    return [EventEnvelope.FromString(envelope) for (envelope,) in written]
