"""Broker, assembled."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from parley.broker.v1.broker_pb2_grpc import add_BrokerServiceServicer_to_server
from parley_broker.answering import Answering
from parley_broker.bell import Bell
from parley_broker.clients import Consent, Identity, Peers, Vault
from parley_broker.config import Config
from parley_broker.events import Hearing
from parley_broker.exchanges import Exchanges
from parley_broker.feed import Feed
from parley_broker.matching import Matching
from parley_broker.names import Names
from parley_broker.releasing import Releasing
from parley_broker.servicer import BrokerServicer
from parley_broker.settling import Settling
from parley_broker.store import Store
from parley_broker.work import Work
from parley_bus.consumer import Consumer
from parley_bus.envelopes import Notary
from parley_bus.relay import Relay
from parley_crypto.keyfiles import read_key
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
    """Assemble broker; leaving the block closes what it opened."""
    trust, request_key = Trust.load(config.trust), read_key(config.request_key)
    clock, telemetry = platform.clock, platform.telemetry
    async with Database.open(config.postgres_dsn, application_name="parley_broker", telemetry=telemetry) as db:
        await check(db, "parley_broker")
        store, bell = Store(db, clock), Bell(asyncio.Event())
        peers = Peers(Identity(platform, trust), Vault(platform), Consent(platform))
        settling = Settling(peers.consent, clock)
        releasing = Releasing(store, peers, settling, bell, clock, platform.log, config.batch, telemetry.tracer)
        names = Names(request_key)
        feed = Feed(store, settling, releasing, names, bell, clock, config.heartbeat)
        answering = Answering(store, releasing, names, bell, clock)
        matching = Matching(store, peers, bell, platform.log, telemetry.tracer)
        work = Work(store, matching, releasing, bell, clock, platform.log)
        notary = Notary(trust.sealing["audit"], clock)
        exchanges = Exchanges(store, peers, Mutations(db, request_key), names, notary, clock)
        hearing = Hearing(store, clock, bell)
        consumer = Consumer(
            db,
            platform.bus,
            stream_of="consent",
            group="broker",
            handler=hearing.consent,
            on_applied=hearing.applied,
            log=platform.log,
            telemetry=telemetry,
        )
        relay = Relay(db, platform.bus, service="broker", groups=("audit",), log=platform.log, telemetry=telemetry)
        servicer = BrokerServicer(exchanges, answering, feed, bell)
        yield Service(
            registrations=[Registration(add_BrokerServiceServicer_to_server, servicer)],
            tasks={
                "relay": relay.run,
                "match": work.match,
                "release": work.release,
                "release_too": work.release,  # while one waits for consent's commit, the other opens the next
                "place": lambda: work.loop(answering.turn),
                "carry_on": lambda: work.loop(answering.carry_on),
                "lapse": work.lapse,
                "sweep": work.sweep,
                "upkeep": Upkeep(db, platform.log).run,
                "pulse": Pulse(db, telemetry.meter, platform.log).run,
                "hear_consent": consumer.run,
            },
            pings={"postgres": db.ping},
        )
