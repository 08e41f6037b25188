"""Identity, assembled."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from parley.identity.v1.identity_pb2_grpc import add_IdentityServiceServicer_to_server
from parley_bus.envelopes import Notary
from parley_bus.relay import Relay
from parley_crypto.keyfiles import read_key
from parley_crypto.keyring import KeyRing
from parley_crypto.signing import Signer
from parley_crypto.trust import Trust
from parley_db.database import Database
from parley_db.migrate import check
from parley_db.mutations import Mutations
from parley_db.pulse import Pulse
from parley_identity.commands.accounts import Accounts
from parley_identity.commands.introductions import Introductions
from parley_identity.commands.marketers import Marketers
from parley_identity.commands.signin import SignIn
from parley_identity.config import Config
from parley_identity.domain.accounts import Blinder
from parley_identity.domain.staff import Staff, StaffUnusable
from parley_identity.events import Publishing
from parley_identity.keys import Naming, Seeds
from parley_identity.servicer import IdentityServicer
from parley_identity.store import Store
from parley_identity.upkeep import Upkeep
from parley_rpc.platform import Platform, Service
from parley_rpc.server import Registration
from parley_rpc.settings import SettingsWrong


@asynccontextmanager
async def build(config: Config, platform: Platform) -> AsyncIterator[Service]:
    """Assemble identity; leaving the block closes what it opened."""
    trust, signer = Trust.load(config.trust), Signer.load(config.signing_key)
    clock, telemetry = platform.clock, platform.telemetry
    staff = _staff(config.operators)
    request_key = read_key(config.request_key)
    seeds = Seeds(KeyRing.load(config.wrap_key), read_key(config.pseudonym_key))
    naming = _naming(config)
    publishing = Publishing(Notary(trust.sealing["audit"], clock), naming)
    async with Database.open(config.postgres_dsn, application_name="parley_identity", telemetry=telemetry) as db:
        await check(db, "parley_identity")
        store = Store(db)
        if kept := await store.any_account():
            seeds.require(config.wrap_key, kept)
        relay = Relay(
            db,
            platform.bus,
            service="identity",
            groups=("audit", "consent"),
            log=platform.log,
            telemetry=telemetry,
        )
        servicer = IdentityServicer(
            accounts=Accounts(store, seeds, Blinder(read_key(config.row_key)), publishing, clock, config.claim_life),
            sign_in=SignIn(store, staff, naming, signer, clock, request_key),
            marketers=Marketers(store, publishing, signer, clock),
            introductions=Introductions(store, seeds, naming, clock),
            naming=naming,
            mutations=Mutations(db, request_key),
            clock=clock,
            key_set=trust.dump(),
        )
        yield Service(
            registrations=[Registration(add_IdentityServiceServicer_to_server, servicer)],
            tasks={
                "relay": relay.run,
                "upkeep": Upkeep(store, clock, platform.log).run,
                "pulse": Pulse(db, telemetry.meter, platform.log).run,
            },
            pings={"postgres": db.ping},
        )


def _staff(path: Path) -> Staff:
    try:
        return Staff.parse(path.read_text("utf-8"))
    except (OSError, StaffUnusable) as error:
        raise SettingsWrong(
            f"PARLEY_IDENTITY_OPERATORS: {path} lists no operators and importers; `parley up` writes one"
        ) from error


def _naming(config: Config) -> Naming:
    return Naming(
        vault=KeyRing.load(config.ref_vault_key),
        consent=KeyRing.load(config.ref_consent_key),
        audit=KeyRing.load(config.ref_audit_key),
        identity=KeyRing.load(config.ref_identity_key),
        candidate=KeyRing.load(config.candidate_key),
        host=config.vault_host,
    )
