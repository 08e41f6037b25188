"""Objection to all marketing: it holds from its first commit, and ends whatever number of consents there are."""

import json
from datetime import timedelta

import pytest

from parley.consent.v1 import consent_events_pb2 as eventspb
from parley.consent.v1 import consent_pb2 as consentpb
from parley_consent import store
from parley_kit.faultpoints import armed
from parley_kit.faults import Unavailable
from tests.support.calls import fault_of, request_id
from tests.support.consent import HOUR, Asker, Person, World, body_of
from tests.support.releases import E1, E2, E3, REFUSED, ids, much_released


async def test_objection_names_the_newest_releases_of_each_consent(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parley_consent.wire._MOST_IN_ALL", 15)
    ann = Person()
    customer = world.as_customer(ann)
    consents = [(await world.consented(Asker(), [ann], f"{E2}{number}"))[0] for number in range(3)]
    made = {one.name: await much_released(world, one, count) for one, count in zip(consents, (0, 11, 10), strict=True)}

    ended = (
        await customer.call("ObjectToMarketing", consentpb.ObjectToMarketingRequest(request_id=request_id()))
    ).ended

    assert [0, 5, 10] == sorted(len(one.settlements) for one in ended)
    for one in ended:
        assert ids(one.settlements) == made[one.name][: len(one.settlements)]
        assert one.more_settlements is (len(one.settlements) < len(made[one.name]))


async def test_objection_ends_whatever_number_of_consents_and_none_that_has_expired(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "MOST_ENDED", 2)
    ann, askers = Person(), [Asker() for _ in range(3)]
    customer = world.as_customer(ann)
    brief = world.terms(end=world.clock.now() + HOUR, deadline=world.clock.now() + HOUR)
    await world.consented(Asker(), [ann], E1, brief)
    consents = [(await world.consented(asker, [ann], f"{E2}{asker.name[-5:]}"))[0] for asker in askers]
    await world.settle(*(made := await world.permits(askers[0], [ann], f"{E2}{askers[0].name[-5:]}")))
    await customer.pause(consents[2].name)
    world.clock.move(2 * HOUR)
    customer = world.as_customer(ann)

    request = consentpb.ObjectToMarketingRequest(request_id=request_id())
    answer = await customer.call("ObjectToMarketing", request)
    ended = answer.ended

    assert (3, answer) == (answer.ended_count, await customer.call("ObjectToMarketing", request))
    assert sorted(consent.name for consent in consents) == sorted(one.name for one in ended)
    settled = {one.name: [each.release_id for each in one.settlements] for one in ended}
    assert [[body_of(made[0]).release_id], [], []] == [settled[consent.name] for consent in consents]
    for one in ended:
        whole = await customer.consent(one.name)
        said = (whole.state, whole.revoked_by, whole.revoke_time, list(whole.settlements))
        assert said == (one.state, one.revoked_by, one.revoke_time, list(one.settlements))
    told = await world.db.fetch("SELECT marketer, notice FROM notices")
    assert {(asker.name, "ConsentRevoked") for asker in askers} == {tuple(row) for row in told}
    kinds = [
        json.loads(world.opening(eventspb.ConsentChanged.FromString(event.payload).note).detail)["kind"]
        for event in await world.events("ConsentChanged")
    ]
    assert 3 == kinds.count("consent:consent:withdrawn")


async def test_objection_holds_though_it_stops_midway_and_what_it_left_is_ended_before_it_is_lifted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "MOST_ENDED", 1)
    ann, marketer = Person(), Asker()
    me = world.as_customer(ann)
    await world.consented(marketer, [ann], E1)
    await world.consented(Asker(), [ann], E2)
    entries = await world.permits(marketer, [ann], E3)
    objection = consentpb.ObjectToMarketingRequest(request_id=request_id())
    turns = 0

    async def stop_at_the_second() -> None:
        nonlocal turns
        turns += 1
        if turns == 2:
            raise Unavailable

    with armed("consent.EndConsents.before_commit", stop_at_the_second):
        assert Unavailable is type(await fault_of(me.call("ObjectToMarketing", objection)))
    assert consentpb.SETTLE_REFUSAL_STALE == (await world.settle(*entries))[0].refusal
    assert REFUSED == await world.outcome(marketer, ann, E3)

    await me.call("LiftObjection", consentpb.LiftObjectionRequest(request_id=request_id()))
    states = {one.state for one in (await me.consents()).consents}
    assert {consentpb.CONSENT_STATE_REVOKED} == states


async def test_objection_that_is_lifted_while_it_ends_consents_ends_no_more(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "MOST_ENDED", 1)
    ann = Person()
    for exchange in (E1, E2, E3):
        await world.consented(Asker(), [ann], exchange)

    async def lift() -> None:
        await world.db.execute("UPDATE customers SET objected_at = NULL WHERE customer = $1", ann.customer)

    with armed("consent.EndConsents.after_commit", lift):
        request = consentpb.ObjectToMarketingRequest(request_id=request_id())
        answer = await world.as_customer(ann).call("ObjectToMarketing", request)
    assert 1 == answer.ended_count


async def test_consent_given_after_an_objection_outlives_its_end(world: World) -> None:
    ann = Person()
    me = world.as_customer(ann)
    await world.consented(Asker(), [ann], E1)
    await world.outcome(Asker(), ann, E2)
    await me.call("ObjectToMarketing", consentpb.ObjectToMarketingRequest(request_id=request_id()))
    world.clock.move(timedelta(milliseconds=1))
    (offer,) = [one for one in (await me.offers()).offers if one.exchange == E2]
    given = await me.accept(offer.name)

    await me.call("LiftObjection", consentpb.LiftObjectionRequest(request_id=request_id()))

    states = {one.name: one.state for one in (await me.consents()).consents}
    assert consentpb.CONSENT_STATE_ACTIVE == states.pop(given.consent.name)
    assert {consentpb.CONSENT_STATE_REVOKED} == {*states.values()}
