"""Marketers: registered, changed, their keys rotated, their cards signed."""

import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from parley.common.v1 import terms_pb2 as termspb
from parley.identity.v1 import identity_pb2 as identitypb
from parley.identity.v1.identity_events_pb2 import MarketerChanged
from parley_crypto.commitment import unseal_opening
from parley_crypto.signing import Sealer, Signer
from parley_crypto.statements import verify_card
from parley_crypto.trust import Trust
from parley_identity.faults import MarketerNotFound, MarketerSuspended, PublicKeyInvalid
from parley_kit.faults import CallerNotAllowed, InvalidRequest, Unauthenticated
from tests.support.calls import fault_of, request_id
from tests.support.identity import DEADLINE, Party, World, events, registration, rows

NOBODY = Party("marketers/" + "a" * 26)
NEWER = Signer(b"n" * 32)


async def get(world: World, marketer: Party) -> identitypb.Marketer:
    return await world.anyone.GetMarketer(identitypb.GetMarketerRequest(name=marketer.name), timeout=DEADLINE)


async def card(world: World, marketer: Party) -> str:
    request = identitypb.GetMarketerCardRequest(name=marketer.name)
    return (await world.broker.GetMarketerCard(request, timeout=DEADLINE)).card


async def add_key(world: World, marketer: Party, use: identitypb.KeyUse.ValueType, key: bytes) -> identitypb.Marketer:
    request = identitypb.AddMarketerKeyRequest(use=use, public_key=key, request_id=request_id())
    return await world.anyone.AddMarketerKey(request, metadata=await world.metadata(marketer), timeout=DEADLINE)


async def changes(world: World) -> list[tuple[str, bool]]:
    found = [MarketerChanged.FromString(event.payload) for event in await events(world, "MarketerChanged")]
    return [(change.marketer, change.suspended) for change in found]


async def test_registered_marketer_is_public(world: World) -> None:
    marketer = await world.register_marketer("Hiker's Friend GmbH")
    shown = await get(world, marketer)

    assert ("Hiker's Friend", "Hiker's Friend GmbH", "privacy@hikers.example") == (
        shown.display_name, shown.legal_entity, shown.contact,
    )  # fmt: skip
    assert (termspb.VERIFICATION_LEVEL_VERIFIED, False) == (shown.verification_level, shown.suspended)
    assert {identitypb.KEY_USE_SEALING, identitypb.KEY_USE_SIGNING} == {key.use for key in shown.keys}
    assert [False, False] == [key.HasField("expire_time") for key in shown.keys]


async def test_registration_is_noted_for_audit(world: World) -> None:
    marketer = await world.register_marketer()
    (event,) = await events(world, "MarketerChanged")
    detail = unseal_opening(world.sealer(), MarketerChanged.FromString(event.payload).note.sealed_opening)[0].detail

    assert b'"kind":"identity:marketer:registered"' in detail
    assert marketer.name.encode() in detail


async def test_retried_registration_makes_one_marketer(world: World) -> None:
    request, metadata = registration(NEWER.public_key), await world.metadata(world.operator)
    calls = [world.anyone.RegisterMarketer(request, metadata=metadata, timeout=DEADLINE) for _ in range(4)]

    assert 1 == len({answer.name for answer in await asyncio.gather(*calls)})
    assert [(1,)] == await rows(world, "SELECT count(*) FROM marketers")


@pytest.mark.parametrize("field", ["sealing_key", "signing_key"])
@pytest.mark.parametrize("key", [bytes(32), b"\x01" + bytes(31), b"\xff" * 32], ids=["zero", "one", "high"])
async def test_key_of_small_order_is_refused(world: World, field: str, key: bytes) -> None:
    request = registration(NEWER.public_key)
    setattr(request, field, key)
    call = world.anyone.RegisterMarketer(request, metadata=await world.metadata(world.operator), timeout=DEADLINE)

    assert PublicKeyInvalid is type(await fault_of(call))
    assert [] == await rows(world, "SELECT marketer FROM marketers")


@pytest.mark.parametrize("field", ["display_name", "legal_entity", "contact"])
async def test_text_that_cannot_be_shown_is_refused_by_name(world: World, field: str) -> None:
    for text in ("a\x00b", " ", "a\nb"):
        request = registration(NEWER.public_key, **{field: text})
        call = world.anyone.RegisterMarketer(request, metadata=await world.metadata(world.operator), timeout=DEADLINE)
        fault = await fault_of(call)
        assert (InvalidRequest, [field]) == (type(fault), [violation.field for violation in fault.violations])


async def test_only_the_operator_registers_and_changes(world: World) -> None:
    marketer = await world.register_marketer()
    update = identitypb.UpdateMarketerRequest(name=marketer.name, suspended=True, request_id=request_id())

    assert Unauthenticated is type(
        await fault_of(world.anyone.RegisterMarketer(registration(b"k" * 32), timeout=DEADLINE))
    )
    call = world.anyone.UpdateMarketer(update, metadata=await world.metadata(marketer), timeout=DEADLINE)
    assert CallerNotAllowed is type(await fault_of(call))


async def test_change_of_one_thing_leaves_the_other(world: World) -> None:
    marketer = await world.register_marketer()

    suspended = await world.update(marketer, suspended=True)
    raised = await world.update(marketer, verification_level=termspb.VERIFICATION_LEVEL_ACCREDITED)

    assert (True, termspb.VERIFICATION_LEVEL_VERIFIED) == (suspended.suspended, suspended.verification_level)
    assert (True, termspb.VERIFICATION_LEVEL_ACCREDITED) == (raised.suspended, raised.verification_level)


async def test_what_changes_is_published_and_what_does_not_is_not(world: World) -> None:
    marketer = await world.register_marketer()
    for suspended in (False, True, True, False):
        await world.update(marketer, suspended=suspended)

    name = marketer.name
    assert [(name, False), (name, True), (name, False)] == await changes(world)


async def test_absent_marketer_is_not_found_whatever_is_asked(world: World) -> None:
    introduce = identitypb.IntroduceRequest(marketer=NOBODY.name, exchange="e", candidate_refs=[b"x"])
    calls: list[Awaitable[Any]] = [
        get(world, NOBODY),
        card(world, NOBODY),
        world.update(NOBODY, suspended=True),
        world.broker.Introduce(introduce, timeout=DEADLINE),
    ]

    assert [MarketerNotFound] * 4 == [type(await fault_of(call)) for call in calls]


async def test_card_is_verified_offline_for_an_hour(world: World) -> None:
    marketer = await world.register_marketer()
    statement, shown = await card(world, marketer), await get(world, marketer)
    read = verify_card(statement, world.trust.keys("identity"), world.clock.now() + timedelta(minutes=59))

    sealing = next(key for key in shown.keys if key.use == identitypb.KEY_USE_SEALING)
    assert (marketer.name, 2, sealing.public_key) == (read.marketer, read.level, read.sealing_key)
    assert ("Hiker's Friend", "Hiker's Friend GmbH", "privacy@hikers.example") == (
        read.display_name, read.legal_entity, read.contact,
    )  # fmt: skip


async def test_suspended_marketer_gets_no_card(world: World) -> None:
    marketer = await world.register_marketer()
    await world.update(marketer, suspended=True)

    assert MarketerSuspended is type(await fault_of(card(world, marketer)))


async def test_only_the_broker_gets_cards(world: World) -> None:
    marketer = await world.register_marketer()
    request = identitypb.GetMarketerCardRequest(name=marketer.name)
    metadata = await world.metadata(marketer)

    call = world.anyone.GetMarketerCard(request, metadata=metadata, timeout=DEADLINE)
    assert CallerNotAllowed is type(await fault_of(call))


async def test_both_signing_keys_are_good_for_a_day(world: World) -> None:
    older = await world.register_marketer()
    newer = replace(older, signer=NEWER)

    shown = await add_key(world, older, identitypb.KEY_USE_SIGNING, NEWER.public_key)

    assert [False, True] == [key.HasField("expire_time") for key in shown.keys if key.use == identitypb.KEY_USE_SIGNING]
    assert NEWER.public_key == shown.keys[0].public_key
    for party in (older, newer):
        assert await world.sign_in(party)
    world.clock.move(timedelta(days=1))
    assert await world.sign_in(newer)
    assert Unauthenticated is type(await fault_of(world.sign_in(older)))
    assert 2 == len((await get(world, newer)).keys)


async def test_releases_are_sealed_to_the_newest_key_at_once(world: World) -> None:
    marketer, key = await world.register_marketer(), Sealer(b"x" * 32).public_key

    await add_key(world, marketer, identitypb.KEY_USE_SEALING, key)

    read = verify_card(await card(world, marketer), world.trust.keys("identity"), world.clock.now())
    assert key == read.sealing_key


async def test_new_key_is_published(world: World) -> None:
    marketer = await world.register_marketer()
    await add_key(world, marketer, identitypb.KEY_USE_SIGNING, NEWER.public_key)

    assert [(marketer.name, False)] * 2 == await changes(world)


async def test_key_is_never_taken_twice(world: World) -> None:
    marketer = await world.register_marketer()
    await add_key(world, marketer, identitypb.KEY_USE_SIGNING, NEWER.public_key)

    again = add_key(world, marketer, identitypb.KEY_USE_SIGNING, marketer.public_key)

    assert PublicKeyInvalid is type(await fault_of(again))
    shown = await get(world, marketer)
    assert NEWER.public_key == shown.keys[0].public_key
    assert not shown.keys[0].HasField("expire_time")


async def test_key_that_is_none_of_its_kind_is_refused(world: World) -> None:
    marketer = await world.register_marketer()

    for use in (identitypb.KEY_USE_SIGNING, identitypb.KEY_USE_SEALING):
        assert PublicKeyInvalid is type(await fault_of(add_key(world, marketer, use, bytes(32))))


async def test_keys_added_at_once_leave_one_newest(world: World) -> None:
    marketer = await world.register_marketer()
    keys = [Signer(bytes([number]) * 32).public_key for number in range(1, 6)]

    await asyncio.gather(*(add_key(world, marketer, identitypb.KEY_USE_SIGNING, key) for key in keys))

    newest = "SELECT count(*) FROM marketer_keys WHERE use = 2 AND expires_at IS NULL"
    assert [(1,)] == await rows(world, newest)


async def test_key_set_is_the_trust_file(world: World) -> None:
    answer = await world.anyone.GetKeySet(identitypb.GetKeySetRequest(), timeout=DEADLINE)

    assert world.trust == Trust.parse(answer.jwks)
