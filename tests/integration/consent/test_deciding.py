"""The broker asks who of its customers allows a release, asks to be asked, or refuses."""

import asyncio
from contextlib import suppress
from datetime import timedelta

import pytest

from parley.common.v1 import terms_pb2 as termspb
from parley.consent.v1 import consent_events_pb2 as eventspb
from parley.consent.v1 import consent_pb2 as consentpb
from parley_consent.basis import Basis
from parley_consent.store import Asked, Store
from parley_crypto.batch import Batch, verify_in_batch
from parley_kit.faults import NotSupportedYet, Unauthenticated
from tests.support.calls import fault_of
from tests.support.consent import DEADLINE, HOUR, Asker, Person, World, body_of, rule_terms
from tests.support.releases import (
    ALLOWED,
    ASKED,
    E1,
    E2,
    E3,
    INVALID,
    LATER,
    REFUSED,
    SETTLED,
    once_released,
    under_rule,
)
from tests.support.waiting import until


async def test_one_offer_is_made_for_a_customer_and_exchange(world: World) -> None:
    ann, marketer = Person(), Asker()

    outcomes = await asyncio.gather(*[world.outcome(marketer, ann, E1) for _ in range(5)])
    twice = await world.decide(marketer, [ann, ann], E1)
    await world.outcome(marketer, ann, E2)

    assert [ASKED] * 7 == [*outcomes, *(decision.outcome for decision in twice.decisions)]
    assert [E1, E2] == sorted(offer.exchange for offer in (await world.as_customer(ann).offers()).offers)
    assert 2 == len(await world.events("OfferMade"))


async def test_offers_to_the_same_people_in_another_order_wait_for_each_other_and_never_deadlock(world: World) -> None:
    marketer = Asker()
    first, second, last = people = sorted((Person() for _ in range(3)), key=lambda person: person.customer)
    await world.decide(marketer, people, E1)
    with suppress(_RolledBack):
        async with world.db.tx("test") as tx:
            await tx.execute(_SAME_OFFER, last.customer, E2)
            forth = asyncio.ensure_future(world.decide(marketer, [first, last, second], E2))
            await until(lambda: _waiting(world, 1))
            back = asyncio.ensure_future(world.decide(marketer, [second, first], E2))
            await until(lambda: _waiting(world, 2))
            raise _RolledBack

    outcomes = [decision.outcome for answer in (await forth, await back) for decision in answer.decisions]
    assert ([ASKED] * 5, 6) == (outcomes, len(await world.events("OfferMade")))


_SAME_OFFER = """
    INSERT INTO consents SELECT (jsonb_populate_record(offer, jsonb_build_object('consent_id', 'x', 'exchange', $2::text))).*
    FROM consents AS offer WHERE customer = $1
"""


class _RolledBack(Exception):
    pass


async def _waiting(world: World, count: int) -> bool:
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    return count == int(await world.db.fetchval(query))


async def test_offer_event_names_nobody_in_clear(world: World) -> None:
    ann, marketer = Person(), Asker()
    await world.outcome(marketer, ann, E1)

    (event,) = await world.events("OfferMade")
    opened = world.opening(eventspb.OfferMade.FromString(event.payload).note)
    plain = (marketer.name, ann.pseudonym(marketer), E1, ann.customer, "Walks")
    assert not any(text.encode() in event.SerializeToString() for text in plain)
    assert ann.pseudonym(marketer).encode() in opened.detail


async def test_known_consent_covers_a_later_exchange_with_the_same_marketer_alone(world: World) -> None:
    ann, marketer = Person(), Asker()
    (consent,) = await world.consented(marketer, [ann], E1)

    (entry,) = await world.permits(marketer, [ann], E2)

    body = body_of(entry)
    assert (consent.name, E2) == (body.consent, body.exchange)
    assert Basis(1) == world.basis_of(ann, entry)
    assert ASKED == await world.outcome(Asker(), ann, E3)
    assert ASKED == await world.outcome(marketer, ann, E3, world.terms(attributes=["profile.birthdate"]))


async def test_exchanges_that_each_end_later_than_the_last_have_no_more_read_for_each(world: World) -> None:
    ann, marketer, store, now = Person(), Asker(), Store(world.db, HOUR), world.clock.now()
    await world.as_customer(ann).rule("ALLOW", rule_terms())
    for hours in range(1, 6):
        asked = world.terms(end=now + hours * HOUR, deadline=now + HOUR)
        (entry,) = await world.permits(marketer, [ann], f"exchanges/{hours}", asked)
        assert [SETTLED] == [outcome.refusal for outcome in await world.settle(entry)]

    async def read(hours: int) -> int:
        asked = Asked(ann.customer, marketer.name, "exchanges/next", now + hours * HOUR)
        (stood,) = await store.stand([asked], now)
        return len(stood.standing.consents)

    assert [5, 1, 0] == [await read(hours) for hours in (1, 5, 6)]
    (paused, *_) = (await world.as_customer(ann).consents()).consents
    await world.as_customer(ann).pause(paused.name)
    assert 1 == await read(6), "a pause answers for its customer, however soon it ends"


async def test_customer_with_more_consents_than_are_looked_at_has_no_more_born(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parley_consent.store.MOST_LIVE", 2)
    ann, marketer = Person(), Asker()
    names = ["profile.city", "profile.age", "profile.country", "profile.language"]
    await world.as_customer(ann).rule("ALLOW", rule_terms(attributes=names))

    async def ask(name: str) -> consentpb.DecisionOutcome.ValueType:
        asked, exchange = world.terms(attributes=[name]), f"exchanges/{name}"
        outcome = await world.outcome(marketer, ann, exchange, asked)
        if outcome == ALLOWED:
            await world.settle(*await world.permits(marketer, [ann], exchange, asked))
        return outcome

    assert [ALLOWED, ALLOWED, ALLOWED, REFUSED] == [await ask(name) for name in names]
    other = world.terms(attributes=["profile.country"])
    assert ALLOWED == await world.outcome(marketer, ann, E1, other), "one of those that are looked at covers it"
    assert ALLOWED == await world.outcome(Asker(), ann, E1, other), "it stands in no other marketer's way"


async def test_what_was_accepted_is_looked_at_however_many_were_born_since(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parley_consent.store.MOST_LIVE", 2)
    ann, marketer = Person(), Asker()
    customer, offered = world.as_customer(ann), world.terms(attributes=["contact.email"])
    assert ASKED == await world.outcome(marketer, ann, E1, offered)
    names = ["profile.city", "profile.age", "profile.country"]
    await customer.rule("ALLOW", rule_terms(attributes=names))
    for name in names:
        world.clock.move(timedelta(seconds=1))
        asked, exchange = world.terms(attributes=[name]), f"exchanges/{name}"
        await world.settle(*await world.permits(marketer, [ann], exchange, asked))
    await customer.accept_only_open()
    assert ALLOWED == await world.outcome(marketer, ann, E1, offered)


async def test_permit_says_all_that_the_vault_must_know(world: World) -> None:
    ann, marketer = Person(), Asker()
    entry = await under_rule(world, ann, marketer)

    body, batch = body_of(entry), entry.batch
    verify_in_batch(
        world.signer.public_key,
        Batch(batch.root, batch.size, batch.signature),
        entry.permit.body,
        entry.permit.index,
        entry.permit.proof,
    )
    assert (marketer.name, marketer.sealer.public_key) == (body.marketer, body.sealing_key)
    assert (marketer.sealer.key_id, "vault") == (body.sealing_key_id, body.vault_host)
    assert (ann.pseudonym(marketer), list(world.terms().content.fields)) == (body.pseudonym, list(body.fields))
    assert 30 == body.expire_time.seconds - body.issue_time.seconds
    assert ann.customer not in str(body)


async def test_release_keeps_its_id_in_every_permit(world: World) -> None:
    ann, bob, marketer = Person(), Person(), Asker()
    first = await under_rule(world, ann, marketer)
    (again,) = await world.permits(marketer, [ann], E1)
    (later,) = await world.permits(marketer, [ann], E2)
    other = await under_rule(world, bob, marketer)

    ids = [body_of(entry).release_id for entry in (first, again, later, other)]
    assert (ids[0], 3) == (ids[1], len(set(ids)))
    assert body_of(first).permit_id != body_of(again).permit_id


async def test_many_are_decided_in_the_order_asked(world: World) -> None:
    allows, asks, refuses, marketer = Person(), Person(), Person(), Asker()
    await world.as_customer(allows).rule("ALLOW", rule_terms())
    await world.as_customer(refuses).rule("REFUSE")

    response = await world.decide(marketer, [asks, allows, refuses, allows], E1)

    assert [ASKED, ALLOWED, REFUSED, ALLOWED] == [decision.outcome for decision in response.decisions]
    assert 2 == response.batch.size
    assert 0 == len((await world.as_customer(refuses).offers()).offers)


async def test_several_requests_are_decided_as_each_by_itself_with_one_batch_of_permits(world: World) -> None:
    allows, asks, marketer, rival = Person(), Person(), Asker(), Asker()
    await world.as_customer(allows).rule("ALLOW", rule_terms())
    silent = world.request(rival, [allows, asks], E2)
    silent.opens_no_offer = True
    requests = [world.request(marketer, [asks, allows], E1), silent]

    answer = await world.broker.BatchDecide(consentpb.BatchDecideRequest(requests=requests), timeout=DEADLINE)

    found = [[decision.outcome for decision in response.decisions] for response in answer.responses]
    assert [[ASKED, ALLOWED], [ALLOWED, ASKED]] == found
    assert [E1] == [offer.exchange for offer in (await world.as_customer(asks).offers()).offers]
    assert [False, False] == [response.HasField("batch") for response in answer.responses]
    permits = [(marketer, answer.responses[0].decisions[1].permit), (rival, answer.responses[1].decisions[0].permit)]
    entries = [
        consentpb.SettleEntry(consent_ref=world.consent_ref(allows, of), permit=permit, batch=answer.batch)
        for of, permit in permits
    ]
    assert [(E1, marketer.name), (E2, rival.name)] == [
        (body_of(entry).exchange, body_of(entry).marketer) for entry in entries
    ]
    assert [SETTLED, SETTLED] == [outcome.refusal for outcome in await world.settle(*entries)]
    assert 1 == len(await world.events("ReleaseSettled"))  # one tells of what was settled in one call
    entries[0].consent_ref, entries[1].consent_ref = entries[1].consent_ref, entries[0].consent_ref
    assert [INVALID, INVALID] == [outcome.refusal for outcome in await world.settle(*entries)]


async def test_request_that_is_wrong_is_refused_with_all_that_came_with_it(world: World) -> None:
    marketer, rival = Asker(), Asker()
    requests = [world.request(marketer, [Person()], E1), world.request(rival, [Person()], E2)]
    requests[1].marketer_card = requests[0].marketer_card[:-8] + "AAAAAAAA"
    asked = consentpb.BatchDecideRequest(requests=requests)

    assert Unauthenticated is type(await fault_of(world.broker.BatchDecide(asked, timeout=DEADLINE)))
    assert 0 == await world.count("consents")


async def test_refs_that_are_not_for_this_marketer_are_refused(world: World) -> None:
    ann, marketer, rival = Person(), Asker(), Asker()
    request = world.request(marketer, [ann, ann], E1)
    request.entries[0].consent_ref = world.consent_ref(ann, rival)
    request.entries[1].consent_ref = b"x" * 100

    response = await world.broker.Decide(request, timeout=DEADLINE)

    assert [REFUSED, REFUSED] == [decision.outcome for decision in response.decisions]
    assert (0, False) == (await world.count("consents"), response.HasField("batch"))


async def test_decision_needs_a_card_that_is_good_now(world: World) -> None:
    request = world.request(Asker(), [Person()], E1)
    forged_card = world.request(Asker(), [Person()], E1)
    forged_card.marketer_card = request.marketer_card[:-8] + "AAAAAAAA"
    world.clock.move(HOUR)

    for each in (request, forged_card):
        assert Unauthenticated is type(await fault_of(world.broker.Decide(each, timeout=DEADLINE)))


async def test_request_with_parts_that_nobody_enforces_is_refused_by_path(world: World) -> None:
    asked = world.terms()
    asked.mode.channels.append(termspb.CHANNEL_SMS)

    faulty = await fault_of(world.decide(Asker(), [Person()], E1, asked))

    assert (NotSupportedYet, ["terms.mode.channels[2]"]) == (type(faulty), [each.field for each in faulty.violations])


async def test_request_that_could_not_be_answered_is_refused_and_opens_no_offer(world: World) -> None:
    now = world.clock.now()
    for asked in (world.terms(end=None), world.terms(deadline=None), world.terms(deadline=now), world.terms(end=now)):
        assert REFUSED == await world.outcome(Asker(), Person(), E1, asked)
    assert 0 == await world.count("consents")


async def test_paused_consent_is_for_later_and_opens_no_offer(world: World) -> None:
    ann, marketer = Person(), Asker()
    (consent,) = await world.consented(marketer, [ann], E1)
    me = world.as_customer(ann)

    await me.pause(consent.name)
    paused = [await world.outcome(marketer, ann, exchange) for exchange in (E1, E2)]
    offers = len((await me.offers(open_only=True)).offers)
    await me.rule("REFUSE")
    refused = await world.outcome(marketer, ann, E2)

    assert ([LATER, LATER], 0, REFUSED) == (paused, offers, refused)


@pytest.mark.parametrize("ahead", [timedelta(seconds=-2), timedelta(seconds=2)])
async def test_consent_has_begun_whatever_the_clock_says_of_whoever_decides(world: World, ahead: timedelta) -> None:
    ann, bob, marketer, asked = Person(), Person(), Asker(), world.terms()
    await world.consented(marketer, [ann], E1, asked)
    once, _ = await once_released(world, bob, other := Asker())

    world.clock.move(ahead)

    assert [ALLOWED] * 2 == [await world.outcome(marketer, ann, E1, asked), await world.outcome(other, bob, E1, once)]


async def test_what_was_agreed_to_is_blocked_for_now_and_anything_else_refused(world: World) -> None:
    ann, marketer = Person(), Asker()
    await world.consented(marketer, [ann], E1)
    rule = await world.as_customer(ann).rule("REFUSE", scope=consentpb.RuleScope(marketer=marketer.name))

    blocked = [await world.outcome(marketer, ann, exchange) for exchange in (E1, E2)]
    await world.as_customer(ann).end_rule(rule.name)

    assert ([LATER, REFUSED], ALLOWED) == (blocked, await world.outcome(marketer, ann, E1))
