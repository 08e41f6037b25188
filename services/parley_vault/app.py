"""Vault's composition root."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from parley.vault.v1.vault_pb2_grpc import add_VaultServiceServicer_to_server
from parley_bus.envelopes import Notary
from parley_bus.relay import Relay
from parley_crypto.keyfiles import read_key
from parley_crypto.keyring import KeyRing
from parley_crypto.signing import Signer
from parley_crypto.trust import Trust
from parley_db import migrate
from parley_db.database import Database
from parley_db.mutations import Mutations
from parley_db.pulse import Pulse
from parley_db.upkeep import Upkeep
from parley_rpc.platform import Platform, Service
from parley_rpc.server import Registration
from parley_vault import catalogue as catalogues
from parley_vault.commands import Acts, Imports
from parley_vault.config import Config
from parley_vault.finding import Finder
from parley_vault.releases import Releases
from parley_vault.safe import Safe
from parley_vault.searching import Matcher, Orders
from parley_vault.servicer import VaultServicer
from parley_vault.store import Store

READERS = ("audit",)


@asynccontextmanager
async def build(config: Config, platform: Platform) -> AsyncIterator[Service]:
    """
    Assemble the vault, its matching index rebuilt; leaving the block closes what it opened.

    Raises what a schema, key, trust or catalogue file that doesn't fit raises, and Unavailable.
    """
    telemetry = platform.telemetry
    async with Database.open(config.postgres_dsn, application_name="parley_vault", telemetry=telemetry) as db:
        await migrate.check(db, "parley_vault")
        clock, log = platform.clock, platform.log
        trust, refs = Trust.load(config.trust), KeyRing.load(config.ref_key)
        catalogue = catalogues.load(config.catalogue)
        store, safe = Store(db), Safe(KeyRing.load(config.master_key))
        if kept := await store.any_dek():
            safe.require(config.master_key, *kept)
        finder = Finder(store, safe, catalogue, log)
        servicer = VaultServicer(
            mutations=Mutations(db, read_key(config.request_key)),
            catalogue=catalogue,
            acts=Acts(store, safe, Notary(trust.sealing["audit"], clock), clock),
            imports=Imports(store, safe, clock),
            finder=finder,
            matcher=Matcher(
                finder=finder,
                orders=Orders(clock),
                catalogue=catalogue,
                clock=clock,
                identity=trust.keys("identity"),
                candidates=KeyRing.load(config.candidate_key),
                order_key=read_key(config.order_key),
            ),
            releases=Releases(
                store=store,
                safe=safe,
                catalogue=catalogue,
                clock=clock,
                consent=trust.keys("consent"),
                signer=Signer.load(config.signing_key),
                refs=refs,
                host=config.vault_host,
                log=log,
            ),
            refs=refs,
        )
        relay = Relay(db, platform.bus, service="vault", groups=READERS, log=log, telemetry=telemetry)
        await finder.rebuild()
        yield Service(
            registrations=[Registration(add_VaultServiceServicer_to_server, servicer)],
            tasks={
                "relay": relay.run,
                "index": finder.run,
                "index_others": finder.listen,
                "upkeep": Upkeep(db, log).run,
                "pulse": Pulse(db, telemetry.meter, log).run,
            },
            pings={"postgres": db.ping},
        )
