"""Consents: withdrawn, paused and resumed, and what their customer is told of the releases that were made."""

from collections.abc import AsyncIterator
from datetime import timedelta

from parley.common.v1 import terms_pb2 as termspb
from parley.consent.v1 import consent_events_pb2 as eventspb
from parley.consent.v1 import consent_pb2 as consentpb
from parley_consent.faults import ConsentNotFound, InvalidConsentStatus
from parley_consent.store import Asked, Store
from parley_terms.purposes import DPV
from parley_terms.wire import timestamp
from tests.support.calls import fault_of
from tests.support.consent import HOUR, AsCustomer, Asker, Person, World, body_of
from tests.support.releases import ALLOWED, ASKED, E1, E2, E3, REFUSED, ids, much_released


async def test_consent_says_when_it_was_agreed_and_not_when_it_was_offered(world: World) -> None:
    ann, marketer = Person(), Asker()
    await world.decide(marketer, [ann], E1)
    offered = world.clock.now()
    world.clock.move(timedelta(minutes=5))

    consent = await world.as_customer(ann).accept_only_open()

    assert timestamp(offered + timedelta(minutes=5)) == consent.create_time
    assert consent.create_time == (await world.as_customer(ann).consent(consent.name)).create_time
    (listed,) = (await world.as_customer(ann).consents()).consents
    assert consent.create_time == listed.create_time


async def test_withdrawal_ends_the_consent_and_names_its_settlements(world: World) -> None:
    ann, marketer, rival = Person(), Asker(), Asker()
    (consent,) = await world.consented(marketer, [ann], E1)
    await world.consented(rival, [ann], theirs := "exchanges/theirs")
    made = []
    for asker, exchange in ((rival, theirs), (marketer, E2), (marketer, E1)):
        made += await world.permits(asker, [ann], exchange)
        await world.settle(made[-1])
    _, later, earlier = (body_of(entry).release_id for entry in made)
    await world.db.execute(
        "UPDATE settlements SET settled_at = settled_at - interval '1 h' WHERE release_id = $1", earlier
    )
    world.clock.move(timedelta(seconds=1))

    answer = await world.as_customer(ann).withdraw(consent.name)

    ended = answer.consent
    assert (consentpb.CONSENT_STATE_REVOKED, "customer") == (ended.state, ended.revoked_by)
    assert timestamp(world.clock.now()) == ended.revoke_time
    assert [(E2, later), (E1, earlier)] == [(one.exchange, one.release_id) for one in ended.settlements]
    assert not ended.more_settlements
    assert ended == await world.as_customer(ann).consent(consent.name)


async def test_any_number_of_releases_stops_no_answer_and_all_of_them_are_listed(world: World) -> None:
    ann, bob, marketer = Person(), Person(), Asker()
    (consent,) = await world.consented(marketer, [ann], E1)
    made = await much_released(world, consent, 40_000)
    customer = world.as_customer(ann)

    answers = [
        await customer.consent(consent.name),
        await customer.pause(consent.name),
        await customer.resume(consent.name),
    ]
    answers.append((await customer.withdraw(consent.name)).consent)

    assert [(made[:500], True)] * 4 == [(ids(one.settlements), one.more_settlements) for one in answers]
    assert made == [name async for name in every_settlement(customer, consent.name)]
    request = consentpb.ListSettlementsRequest(parent=consent.name)
    assert ConsentNotFound is type(await fault_of(world.as_customer(bob).call("ListSettlements", request)))


async def every_settlement(customer: AsCustomer, consent: str) -> AsyncIterator[str]:
    request = consentpb.ListSettlementsRequest(parent=consent, page_size=1000)
    while True:
        page = await customer.call("ListSettlements", request)
        for name in ids(page.settlements):
            yield name
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


async def test_withdrawal_leaves_a_refuse_rule_for_that_marketer_and_purpose(world: World) -> None:
    ann, marketer, rival = Person(), Asker(), Asker()
    (consent,) = await world.consented(marketer, [ann], E1)

    await world.as_customer(ann).withdraw(consent.name)

    (rule,) = (await world.as_customer(ann).rules()).rules
    assert (consentpb.RULE_EFFECT_REFUSE, marketer.name) == (rule.effect, rule.scope.marketer)
    assert termspb.Terms(purposes=[DPV + "Marketing"]) == rule.terms
    assert REFUSED == await world.outcome(marketer, ann, E2)
    assert ASKED == await world.outcome(marketer, ann, "exchanges/3", world.terms(purposes=["CustomerCare"]))
    assert ASKED == await world.outcome(rival, ann, "exchanges/4")


async def test_withdrawals_leave_the_same_rule_once(world: World) -> None:
    ann, marketer = Person(), Asker()
    customer, ages = world.as_customer(ann), world.terms(attributes=["profile.age"])
    consents = [
        *await world.consented(marketer, [ann], E1),
        *await world.consented(marketer, [ann], E2, ages),
        *await world.consented(marketer, [ann], E3, world.terms(attributes=["profile.city"])),
    ]

    for consent in consents[:2]:
        await customer.withdraw(consent.name)
    (rule,) = (await customer.rules()).rules
    await customer.end_rule(rule.name)
    await customer.withdraw(consents[2].name)

    (another,) = (await customer.rules()).rules  # the one before has ended, and says nothing any more
    assert rule.name != another.name


async def test_what_has_expired_or_is_used_up_is_not_even_read_for_a_decision(world: World) -> None:
    ann, marketer = Person(), Asker()
    now = world.clock.now()
    await world.consented(marketer, [ann], "exchanges/brief", world.terms(end=now + HOUR, deadline=now + HOUR))
    once = world.terms(use=termspb.USE_ONE_TIME)
    await world.consented(marketer, [ann], E1, once)
    await world.settle(*await world.permits(marketer, [ann], E1, once))
    store = Store(world.db, HOUR)

    async def live(exchange: str) -> int:
        asked = Asked(ann.customer, marketer.name, exchange, world.clock.now())
        (stood,) = await store.stand([asked], world.clock.now())
        return len(stood.standing.consents)

    assert (1, 1) == (await live(E1), await live(E2)), "an exchange that had its release is held to the consent of it"
    world.clock.move(2 * HOUR)
    assert (1, 0) == (await live(E1), await live(E2))


async def test_withdrawing_twice_keeps_the_first_time(world: World) -> None:
    ann = Person()
    (consent,) = await world.consented(Asker(), [ann], E1)
    first = await world.as_customer(ann).withdraw(consent.name)
    world.clock.move(HOUR)

    second = await world.as_customer(ann).withdraw(consent.name)

    assert first.consent == second.consent
    assert (True, False) == (first.HasField("opening"), second.HasField("opening"))
    assert (1, 1, 1) == (
        len(await world.events("ConsentChanged")),
        await world.count("notices"),
        await world.count("rules"),
    )


async def test_paused_consent_releases_nothing_until_it_is_resumed(world: World) -> None:
    ann, marketer = Person(), Asker()
    (consent,) = await world.consented(marketer, [ann], E1)
    await world.settle(*await world.permits(marketer, [ann], E1))

    paused = await world.as_customer(ann).pause(consent.name)
    meanwhile = await world.outcome(marketer, ann, E2)
    again = await fault_of(world.as_customer(ann).pause(consent.name))
    resumed = await world.as_customer(ann).resume(consent.name)

    assert (consentpb.CONSENT_STATE_PAUSED, consentpb.DECISION_OUTCOME_LATER) == (paused.state, meanwhile)
    assert (InvalidConsentStatus, consentpb.CONSENT_STATE_ACTIVE) == (type(again), resumed.state)
    assert [[E1], [E1]] == [[made.exchange for made in answer.settlements] for answer in (paused, resumed)]
    assert await world.outcome(marketer, ann, E2) == ALLOWED
    assert InvalidConsentStatus is type(await fault_of(world.as_customer(ann).resume(consent.name)))


async def test_paused_consent_can_be_withdrawn_and_not_resumed(world: World) -> None:
    ann = Person()
    (consent,) = await world.consented(Asker(), [ann], E1)
    await world.as_customer(ann).pause(consent.name)

    await world.as_customer(ann).withdraw(consent.name)

    assert InvalidConsentStatus is type(await fault_of(world.as_customer(ann).resume(consent.name)))


async def test_act_on_a_consent_names_nobody_in_clear(world: World) -> None:
    ann, marketer = Person(), Asker()
    (consent,) = await world.consented(marketer, [ann], E1)
    answer = await world.as_customer(ann).withdraw(consent.name)

    (event,) = await world.events("ConsentChanged")
    note = eventspb.ConsentChanged.FromString(event.payload).note
    raw, opened = event.SerializeToString(), world.opening(note)
    plain = (marketer.name, ann.pseudonym(marketer), consent.name.removeprefix("consents/"), ann.customer, E1, "Friend")
    assert not any(text.encode() in raw for text in plain)
    assert (answer.opening.salt, answer.opening.detail) == (opened.salt, opened.detail)
    assert consent.name.encode() in opened.detail
