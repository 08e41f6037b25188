"""Consent, assembled."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from parley.consent.v1.consent_pb2_grpc import add_ConsentServiceServicer_to_server
from parley_bus.consumer import Consumer
from parley_bus.envelopes import Notary
from parley_bus.relay import Relay
from parley_consent.agreements import Scribe
from parley_consent.commands import Acts
from parley_consent.config import Config
from parley_consent.decisions import Decisions
from parley_consent.events import Hearing, Notices
from parley_consent.servicer import ConsentServicer
from parley_consent.settlements import Settlements
from parley_consent.store import Store
from parley_crypto.keyfiles import read_key
from parley_crypto.keyring import KeyRing
from parley_crypto.signing import Signer
from parley_crypto.trust import Trust
from parley_db.database import Database
from parley_db.migrate import check
from parley_db.mutations import Mutations
from parley_db.pulse import Pulse
from parley_db.upkeep import Upkeep
from parley_rpc.platform import Platform, Service
from parley_rpc.server import Registration


@asynccontextmanager
async def build(config: Config, platform: Platform) -> AsyncIterator[Service]:
    """Assemble consent; leaving the block closes what it opened."""
    trust, signer, request_key = Trust.load(config.trust), Signer.load(config.signing_key), read_key(config.request_key)
    clock, telemetry = platform.clock, platform.telemetry
    async with Database.open(config.postgres_dsn, application_name="parley_consent", telemetry=telemetry) as db:
        await check(db, "parley_consent")
        store = Store(db, config.audit_limit)
        scribe = Scribe(signer, Notary(trust.sealing["audit"], clock), config.jurisdiction)
        acts = Acts(store, scribe, clock, config.longest_notice_delay)
        refs = KeyRing.load(config.ref_key)
        decisions = Decisions(store, scribe, signer, refs, request_key, clock)
        settlements = Settlements(store, scribe, signer, refs, clock)
        hearing = Hearing(store)
        relay = Relay(
            db,
            platform.bus,
            service="consent",
            groups=("audit", "broker"),
            proven=store.logged,  # what isn't in the log is kept, for settling to notice, whoever acknowledged it
            log=platform.log,
            telemetry=telemetry,
        )
        consumers = {
            "audit": Consumer(
                db,
                platform.bus,
                stream_of="audit",
                group="consent",
                handler=hearing.audit,
                on_applied=lambda _seq: relay.poke(),
                log=platform.log,
                telemetry=telemetry,
            ),
            "identity": Consumer(
                db,
                platform.bus,
                stream_of="identity",
                group="consent",
                handler=hearing.identity,
                log=platform.log,
                telemetry=telemetry,
                strict=True,  # a suspension that is skipped would let a suspended marketer go on for ever
            ),
        }
        servicer = ConsentServicer(acts, decisions, settlements, Mutations(db, request_key), trust, telemetry.meter)
        yield Service(
            registrations=[Registration(add_ConsentServiceServicer_to_server, servicer)],
            tasks={
                "relay": relay.run,
                "upkeep": Upkeep(db, platform.log).run,
                "pulse": Pulse(db, telemetry.meter, platform.log).run,
                "notices": Notices(store, scribe, clock, config.longest_notice_delay, platform).run,
                **{f"hear_{name}": consumer.run for name, consumer in consumers.items()},
            },
            pings={"postgres": db.ping},
        )
