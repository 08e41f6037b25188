"""What a copy of identity's database, its log and its events give away without its keys: nothing."""

import asyncio
import base64
from contextlib import suppress
from functools import partial

from parley.common.v1.event_envelope_pb2 import EventEnvelope
from parley.identity.v1 import identity_pb2 as identitypb
from parley_bus.bus import GroupMissing
from parley_crypto.keyring import KeyRing
from parley_crypto.signing import Signer
from parley_kit.faults import Internal
from tests.support.calls import fault_of
from tests.support.identity import DEADLINE, World, rows
from tests.support.waiting import until

TABLES = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"


async def dump(world: World) -> str:
    """Every row of every table, as text."""
    tables = [name for (name,) in await rows(world, TABLES)]
    found = [await rows(world, f'SELECT t::text FROM "{name}" AS t') for name in tables]
    return "\n".join(str(row) for table in found for row in table)


def forms(secret: bytes) -> list[str]:
    """How it might stand in a dump."""
    return [secret.hex(), base64.b64encode(secret).decode(), base64.b32encode(secret).decode().lower()]


async def test_dump_holds_no_code_no_row_key_and_no_seed_in_clear(world: World) -> None:
    await world.open_imported("may", ["row-key-canary", "other"])
    codes = await world.complete_imported("may", ["row-key-canary", "other"])
    await world.claim(codes[0], Signer(b"o" * 32))
    ring = KeyRing.load(world.keys / "wrap_key")
    wrapped = await rows(world, "SELECT customer, wrapped_seed FROM customers")
    seeds = [ring.unwrap(sealed, "identity", "customers", customer, "seed") for customer, sealed in wrapped]

    found = await dump(world)

    assert wrapped[0][0] in found  # what stands there is found
    bare = [code.replace("-", "") for code in codes]
    secrets = ["row-key-canary", *codes, *bare, *(code.encode().hex() for code in [*codes, *bare])]
    secrets += [form for seed in seeds for form in forms(seed)]
    assert [] == [secret for secret in secrets if secret in found]


async def test_seed_opens_in_its_own_row_alone(world: World) -> None:
    await world.register_customer()
    await world.register_customer()
    marketer = await world.register_marketer()
    swap = (
        """UPDATE customers AS a SET wrapped_seed = b.wrapped_seed FROM customers AS b WHERE a.customer <> b.customer"""
    )
    await rows(world, swap)
    ((subject,), *_) = await rows(world, "SELECT vault_subject FROM customers")

    request = identitypb.IntroduceRequest(
        marketer=marketer.name, exchange="e", candidate_refs=[world.candidate(subject, marketer.name, "e")]
    )
    assert Internal is type(await fault_of(world.broker.Introduce(request, timeout=DEADLINE)))


async def test_outbox_and_log_name_no_customer(world: World) -> None:
    customer = await world.register_customer()
    ids = [
        customer.name.removeprefix("customers/"),
        *(token.subject for token in (await world.tokens(customer)).values()),
    ]
    envelopes = b"".join(envelope for (envelope,) in await rows(world, "SELECT envelope FROM outbox"))

    assert envelopes
    assert [] == [id_ for id_ in ids if id_.encode() in envelopes or id_ in world.logged.getvalue()]


async def test_events_reach_audit_and_consent(world: World) -> None:
    await world.register_customer()
    await world.register_marketer()
    stream = world.bus.stream("identity")
    relay = asyncio.ensure_future(world.service.tasks["relay"]())
    read: dict[str, list[str]] = {"audit": [], "consent": []}

    async def has_both(group: str) -> bool:
        with suppress(GroupMissing):
            batch = await world.bus.read(stream, group, "test", 10)
            read[group] += [EventEnvelope.FromString(entry.envelope).type for entry in batch.entries]
        return len(read[group]) == 2

    for group in read:
        await until(partial(has_both, group))
    relay.cancel()

    types = ["parley.identity.v1.AccountOpened", "parley.identity.v1.MarketerChanged"]
    assert {"audit": types, "consent": types} == read
