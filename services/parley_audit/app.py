"""The audit service, assembled."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from parley.audit.v1.audit_pb2_grpc import add_AuditServiceServicer_to_server
from parley_audit.commands import Growing, Intake, Reading
from parley_audit.config import Config
from parley_audit.events import READERS, STREAMS
from parley_audit.faults import SealingKeyUnknown
from parley_audit.notes import NoteReader
from parley_audit.policy import policy_text
from parley_audit.published import PublishedFile
from parley_audit.publisher import Publisher
from parley_audit.servicer import AuditServicer
from parley_audit.store import Store
from parley_audit.subject_keys import SubjectKeys
from parley_audit.ticking import Ticking
from parley_audit.web import tiles_app
from parley_bus.consumer import Consumer, Handler, Received
from parley_bus.relay import Relay
from parley_crypto.keyfiles import read_key
from parley_crypto.keyring import KeyRing
from parley_crypto.signing import Sealer
from parley_crypto.tlog.note import Ed25519Signer, PrivateKey
from parley_crypto.trust import Trust
from parley_db.database import Database, Tx
from parley_db.migrate import check
from parley_db.pulse import Pulse
from parley_db.upkeep import Upkeep
from parley_rpc.platform import Platform, Service
from parley_rpc.server import Registration


@asynccontextmanager
async def build(config: Config, platform: Platform) -> AsyncIterator[Service]:
    """
    Assemble the service; leaving the block closes what it opened.

    Raises KeyFileUnusable, TrustUnusable, SealingKeyUnknown, LogForeign, MigrationError and Unavailable.
    """
    sealer, telemetry = _sealer(config), platform.telemetry
    signer = Ed25519Signer(PrivateKey(config.origin, read_key(config.log_key)))
    async with Database.open(config.postgres_dsn, application_name="parley_audit", telemetry=telemetry) as db:
        await check(db, "parley_audit")
        store = Store(db, config.origin)
        await store.open()
        keys = SubjectKeys(KeyRing.load(config.master_key), store)
        await keys.require(config.master_key)
        file = PublishedFile(config.published, signer.key)
        publisher = Publisher(db, store, file, signer)
        relay = Relay(db, platform.bus, service="audit", groups=READERS, log=platform.log, telemetry=telemetry)
        notes = NoteReader(sealer, KeyRing.load(config.ref_key), platform.log)
        intake = Intake(notes, store, keys, publisher.require)
        growing = Growing(store, platform.clock, publisher.require)
        ticking = Ticking(db, growing, publisher, config.tick, platform.log)
        consumers = _consumers(config, platform, db, intake)
        yield Service(
            registrations=[
                Registration(add_AuditServiceServicer_to_server, AuditServicer(Reading(db, store, keys))),
            ],
            tasks={
                "relay": relay.run,
                "ticking": ticking.run,
                "upkeep": Upkeep(db, platform.log).run,
                "pulse": Pulse(db, telemetry.meter, platform.log).run,
                **{f"consumer.{stream}": consumer.run for stream, consumer in consumers.items()},
            },
            pings={"postgres": db.ping, "log": publisher.ping},
            http=tiles_app(db, store, policy_text(signer.key)),
        )


def _sealer(config: Config) -> Sealer:
    sealer = Sealer.load(config.sealing_key)
    if Trust.load(config.trust).sealing.get("audit") != sealer.public_key:
        raise SealingKeyUnknown(
            "PARLEY_AUDIT_SEALING_KEY: not the one that PARLEY_AUDIT_TRUST names; put back what belongs together"
        )
    return sealer


def _consumers(config: Config, platform: Platform, db: Database, intake: Intake) -> dict[str, Consumer]:
    return {
        stream: Consumer(
            db,
            platform.bus,
            stream_of=stream,
            group="audit",
            handler=_handler(intake, stream),
            batch=config.batch,
            strict=True,  # an event that is skipped would be missing from the log for ever
            log=platform.log,
            telemetry=platform.telemetry,
        )
        for stream in STREAMS
    }


def _handler(intake: Intake, stream: str) -> Handler:
    async def handle(tx: Tx, received: Sequence[Received]) -> None:
        await intake.take_in(tx, stream, received)

    return handle
