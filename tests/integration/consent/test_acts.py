"""What customers do and see: the inbox and consents, each once and each their own; their rules are in test_rules."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Iterable
from datetime import timedelta
from typing import Any

import pytest

from parley.common.v1 import terms_pb2 as termspb
from parley.consent.v1 import consent_events_pb2 as eventspb
from parley.consent.v1 import consent_pb2 as consentpb
from parley_consent import store
from parley_consent.faults import ConsentNotFound, InvalidConsentStatus, OfferNotFound, RuleNotFound
from parley_consent.store import Asked, Store
from parley_kit.faultpoints import armed
from parley_kit.faults import CallerNotAllowed, InvalidRequest, RequestIdReused, Unauthenticated, Unavailable
from parley_kit.ids import new_id
from parley_terms.purposes import DPV
from parley_terms.wire import timestamp
from tests.support.calls import fault_of, request_id
from tests.support.consent import DEADLINE, HOUR, AsCustomer, Asker, Person, World, body_of, rule_terms

E1, E2, E3 = "exchanges/first", "exchanges/second", "exchanges/third"
ASKED, ALLOWED, REFUSED = (
    consentpb.DECISION_OUTCOME_ASKED,
    consentpb.DECISION_OUTCOME_ALLOWED,
    consentpb.DECISION_OUTCOME_REFUSED,
)
Open = consentpb.CONSENT_STATE_REQUESTED


async def only_offer(world: World, person: Person) -> consentpb.Offer:
    (offer,) = (await world.as_customer(person).offers()).offers
    return offer


# --- The inbox -----------------------------------------------------------------------------------------------------------


async def test_offer_shows_what_is_asked_by_whom(world: World) -> None:
    ann, marketer = Person(), Asker()
    assert ASKED == await world.outcome(marketer, ann, E1)

    offer = await only_offer(world, ann)

    assert (marketer.name, "Hiker's Friend", marketer.level) == (
        offer.marketer,
        offer.marketer_display_name,
        offer.marketer_level,
    )
    assert (Open, world.terms(), "Walks near you", E1) == (offer.state, offer.terms, offer.text, offer.exchange)
    assert offer == await world.as_customer(ann).offer(offer.name)


async def test_accepted_offer_is_a_consent_on_the_terms_shown(world: World) -> None:
    ann, marketer = Person(), Asker()
    await world.decide(marketer, [ann], E1)
    offer = await only_offer(world, ann)

    answer = await world.as_customer(ann).accept(offer.name)

    shown, agreed = offer.terms, answer.consent.terms
    shown.timing.validity.start_time.FromDatetime(world.clock.now())
    assert (shown, consentpb.CONSENT_STATE_ACTIVE) == (agreed, answer.consent.state)
    assert f"consents/{offer.name.removeprefix('offers/')}" == answer.consent.name
    assert answer.consent == await world.as_customer(ann).consent(answer.consent.name)
    assert [answer.consent] == list((await world.as_customer(ann).consents()).consents)
    claims = world.verified("consent", answer.consent.artefact)
    assert (answer.consent.name, ann.pseudonym(marketer)) == (claims["record_id"], claims["pii_principal_id"])
    assert ann.customer not in str(claims)


async def test_acceptance_tells_the_exchange_and_opens_its_leaf(world: World) -> None:
    ann, marketer = Person(), Asker()
    await world.decide(marketer, [ann], E1)
    answer = await world.as_customer(ann).accept((await only_offer(world, ann)).name)

    (event,) = await world.events("ConsentGiven")
    given = eventspb.ConsentGiven.FromString(event.payload)
    assert (E1, ann.pseudonym(marketer)) == (given.exchange, given.pseudonym)
    opened = world.opening(given.note)
    assert (answer.opening.salt, answer.opening.detail) == (opened.salt, opened.detail)
    assert given.note.commitment == opened.commitment


async def test_refused_offer_stays_refused_and_is_never_made_again(world: World) -> None:
    ann, marketer = Person(), Asker()
    await world.decide(marketer, [ann], E1)
    offer = await only_offer(world, ann)

    await world.as_customer(ann).refuse(offer.name)

    assert REFUSED == await world.outcome(marketer, ann, E1)
    assert consentpb.CONSENT_STATE_REJECTED == (await only_offer(world, ann)).state
    assert InvalidConsentStatus is type(await fault_of(world.as_customer(ann).accept(offer.name)))
    assert [] == list((await world.as_customer(ann).offers(open_only=True)).offers)
    (event,) = await world.events("OfferAnswered")
    assert not any(text.encode() in event.payload for text in (E1, ann.pseudonym(marketer), marketer.name))


async def test_deferred_offer_stays_open(world: World) -> None:
    ann, marketer = Person(), Asker()
    await world.decide(marketer, [ann], E1)
    offer = await only_offer(world, ann)

    await world.as_customer(ann).defer(offer.name)

    assert ASKED == await world.outcome(marketer, ann, E1)
    assert consentpb.CONSENT_STATE_DEFERRED == (await only_offer(world, ann)).state
    assert consentpb.CONSENT_STATE_ACTIVE == (await world.as_customer(ann).accept(offer.name)).consent.state


async def test_offer_lapses_at_its_deadline(world: World) -> None:
    ann = Person()
    await world.decide(Asker(), [ann], E1)
    offer = await only_offer(world, ann)
    world.clock.move(HOUR)
    before, late = await world.dump(), world.as_customer(ann)

    assert consentpb.CONSENT_STATE_FAILED == (await only_offer(world, ann)).state
    assert [] == list((await late.offers(open_only=True)).offers)
    for answer in (late.accept, late.refuse, late.defer):
        assert InvalidConsentStatus is type(await fault_of(answer(offer.name)))
    assert before == await world.dump()


async def test_consent_expires_at_its_end(world: World) -> None:
    ann, marketer = Person(), Asker()
    (consent,) = await world.consented(marketer, [ann], E1)
    world.clock.move(timedelta(days=1))
    ann_again = world.as_customer(ann)

    assert consentpb.CONSENT_STATE_EXPIRED == (await ann_again.consent(consent.name)).state
    assert InvalidConsentStatus is type(await fault_of(ann_again.withdraw(consent.name)))
    assert ASKED == await world.outcome(marketer, ann, E2)


async def test_inbox_comes_newest_first_page_by_page(world: World) -> None:
    ann = Person()
    for number in range(3):
        await world.decide(Asker(), [ann], f"exchanges/{number}")
        world.clock.move(timedelta(microseconds=1))

    first = await world.as_customer(ann).offers(2)
    second = await world.as_customer(ann).offers(2, first.next_page_token)

    assert ["exchanges/2", "exchanges/1"] == [offer.exchange for offer in first.offers]
    assert (["exchanges/0"], "") == ([offer.exchange for offer in second.offers], second.next_page_token)


async def test_consents_come_newest_first_page_by_page(world: World) -> None:
    ann = Person()
    for number in range(3):
        await world.consented(Asker(), [ann], f"exchanges/{number}")
        world.clock.move(timedelta(microseconds=1))
    newest = [consent.name for consent in (await world.as_customer(ann).consents()).consents]

    first = await world.as_customer(ann).consents(2)
    second = await world.as_customer(ann).consents(2, first.next_page_token)

    assert (newest, "") == ([each.name for each in (*first.consents, *second.consents)], second.next_page_token)


NO_TOKENS = ("nonsense", "2026-01-01T00:00:00 \0", f"2026-01-01 {'a' * 27}", f"0001-01-01T00:00:00+23:59 {'a' * 26}")


async def test_token_of_no_list_is_refused(world: World) -> None:
    ann = world.as_customer(Person())
    for token in ("\u00e9", *(base64.urlsafe_b64encode(text.encode()).decode() for text in NO_TOKENS)):
        for read in (ann.rules, ann.offers, ann.consents):
            faulty = await fault_of(read(2, token))
            fields = [violation.field for violation in faulty.violations]
            assert (InvalidRequest, ["page_token"]) == (type(faulty), fields), (read.__name__, token)


# --- Consents ------------------------------------------------------------------------------------------------------------


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


async def much_released(world: World, consent: consentpb.Consent, count: int) -> list[str]:
    """Have had so many releases made under a consent; their names, newest first."""
    query = """
        INSERT INTO settlements (customer, release_id, consent_id, exchange, one_time, settled_at, salt, detail)
        SELECT customer, left(consent_id, 16) || translate(lpad(nth::text, 16, '0'), '0189', 'abcd'), consent_id,
            'exchanges/' || nth, false, created_at + nth / 2 * interval '1 s', '', ''
        FROM consents, generate_series(1, $2) AS nth WHERE consent_id = $1
        RETURNING release_id, settled_at
    """
    made = await world.db.fetch(query, consent.name.partition("/")[2], count)
    return [
        row["release_id"] for row in sorted(made, key=lambda row: (row["settled_at"], row["release_id"]), reverse=True)
    ]


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

    assert [(made[:500], True)] * 4 == [(names(one.settlements), one.more_settlements) for one in answers]
    assert made == [name async for name in every_settlement(customer, consent.name)]
    request = consentpb.ListSettlementsRequest(parent=consent.name)
    assert ConsentNotFound is type(await fault_of(world.as_customer(bob).call("ListSettlements", request)))


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
        assert names(one.settlements) == made[one.name][: len(one.settlements)]
        assert one.more_settlements is (len(one.settlements) < len(made[one.name]))


def names(settlements: Iterable[consentpb.Settlement]) -> list[str]:
    return [one.release_id for one in settlements]


async def every_settlement(customer: AsCustomer, consent: str) -> AsyncIterator[str]:
    request = consentpb.ListSettlementsRequest(parent=consent, page_size=1000)
    while True:
        page = await customer.call("ListSettlements", request)
        for name in names(page.settlements):
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


async def test_what_has_expired_or_is_used_up_is_not_even_read_for_a_decision(world: World) -> None:
    ann, marketer = Person(), Asker()
    now = world.clock.now()
    await world.consented(marketer, [ann], "exchanges/brief", world.terms(end=now + HOUR, deadline=now + HOUR))
    once = world.terms(use=termspb.USE_ONE_TIME)
    await world.consented(marketer, [ann], E1, once)
    await world.settle(*await world.permits(marketer, [ann], E1, once))
    store = Store(world.db, HOUR)

    async def live(exchange: str) -> int:
        (stood,) = await store.stand([Asked(ann.customer, marketer.name, exchange)], world.clock.now())
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


# --- Once, and each their own --------------------------------------------------------------------------------------------


async def _offer_name(world: World, person: Person) -> str:
    await world.decide(Asker(), [person], E1)
    return (await only_offer(world, person)).name


async def _consent_name(world: World, person: Person) -> str:
    return (await world.consented(Asker(), [person], E1))[0].name


async def _paused_name(world: World, person: Person) -> str:
    name = await _consent_name(world, person)
    await world.as_customer(person).pause(name)
    return name


async def _rule_name(world: World, person: Person) -> str:
    return (await world.as_customer(person).rule("REFUSE")).name


NAMED = {
    "AcceptOffer": (_offer_name, consentpb.AcceptOfferRequest, OfferNotFound),
    "RefuseOffer": (_offer_name, consentpb.RefuseOfferRequest, OfferNotFound),
    "DeferOffer": (_offer_name, consentpb.DeferOfferRequest, OfferNotFound),
    "WithdrawConsent": (_consent_name, consentpb.WithdrawConsentRequest, ConsentNotFound),
    "PauseConsent": (_consent_name, consentpb.PauseConsentRequest, ConsentNotFound),
    "ResumeConsent": (_paused_name, consentpb.ResumeConsentRequest, ConsentNotFound),
    "DeleteRule": (_rule_name, consentpb.DeleteRuleRequest, RuleNotFound),
}


async def test_every_mutation_five_times_at_once_happens_once(world: World) -> None:
    for method, (prepare, request_type, _) in NAMED.items():
        ann = Person()
        request = request_type(name=await prepare(world, ann), request_id=request_id())
        events, revision = len(await world.events()), await revision_of(world, ann)

        answers = await asyncio.gather(*[world.as_customer(ann).call(method, request) for _ in range(5)])

        assert [answers[0]] * 5 == answers, method
        assert (events + 1, revision + 1) == (len(await world.events()), await revision_of(world, ann)), method


async def test_rule_made_five_times_at_once_is_made_once(world: World) -> None:
    ann, asked = Person(), request_id()

    answers = await asyncio.gather(*[world.as_customer(ann).rule("ASK", asked=asked) for _ in range(5)])

    assert [answers[0]] * 5 == answers
    assert (1, 1) == (await world.count("rules"), len(await world.events("RuleChanged")))


async def test_request_id_with_another_request_is_refused(world: World) -> None:
    ann, asked = world.as_customer(Person()), request_id()
    await ann.rule("ASK", asked=asked)

    assert RequestIdReused is type(await fault_of(ann.rule("REFUSE", asked=asked)))


async def revision_of(world: World, person: Person) -> int:
    return int(await world.db.fetchval("SELECT revision FROM customers WHERE customer = $1", person.customer))


async def test_what_is_somebody_elses_is_as_if_absent_to_every_act(world: World) -> None:
    bob = world.as_customer(Person())
    for method, (prepare, request_type, fault) in NAMED.items():
        theirs = await prepare(world, Person())
        names = (theirs, f"{theirs.partition('/')[0]}/{new_id()}")
        before = await world.dump()

        requests = [request_type(name=name, request_id=request_id()) for name in names]
        faults = [await fault_of(bob.call(method, request)) for request in requests]

        assert [fault, fault] == [type(each) for each in faults], method
        assert said(faults[0]) == said(faults[1]), method
        assert before == await world.dump(), method


async def test_what_is_somebody_elses_reads_as_absent(world: World) -> None:
    bob = world.as_customer(Person())
    for prepare, read in ((_offer_name, bob.offer), (_consent_name, bob.consent)):
        theirs = await prepare(world, Person())
        faults = [await fault_of(read(name)) for name in (theirs, f"{theirs.partition('/')[0]}/{new_id()}")]

        assert said(faults[0]) == said(faults[1])
    assert [[], []] == [list((await bob.offers()).offers), list((await bob.consents()).consents)]


def said(faulty: Any) -> tuple[Any, ...]:
    return type(faulty), faulty.message, faulty.metadata, faulty.violations


async def test_offer_is_no_consent_and_a_born_consent_no_offer(world: World) -> None:
    ann, marketer = Person(), Asker()
    offer = await _offer_name(world, ann)
    await world.as_customer(ann).rule("ALLOW", rule_terms(), consentpb.RuleScope(marketer=marketer.name))
    (entry,) = await world.permits(marketer, [ann], E2)
    await world.settle(entry)

    as_consent = f"consents/{offer.removeprefix('offers/')}"
    as_offer = f"offers/{body_of(entry).consent.removeprefix('consents/')}"
    assert ConsentNotFound is type(await fault_of(world.as_customer(ann).consent(as_consent)))
    assert ConsentNotFound is type(await fault_of(world.as_customer(ann).withdraw(as_consent)))
    assert OfferNotFound is type(await fault_of(world.as_customer(ann).offer(as_offer)))
    assert OfferNotFound is type(await fault_of(world.as_customer(ann).accept(as_offer)))


async def test_callers_are_let_in_by_what_they_are(world: World) -> None:
    settle = consentpb.SettleRequest()
    as_broker = fault_of(world.broker.ListRules(consentpb.ListRulesRequest(), timeout=DEADLINE))

    assert CallerNotAllowed is type(await as_broker)
    assert CallerNotAllowed is type(await fault_of(world.as_customer(Person()).call("Settle", settle)))
    world.clock.move(-HOUR)
    early = world.as_customer(Person())
    world.clock.move(HOUR)
    assert Unauthenticated is type(await fault_of(early.rules()))


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


async def test_flood_of_one_customers_acts_keeps_nobody_else_from_the_database(world: World) -> None:
    ann, bob = Person(), Person()
    await world.as_customer(ann).rule("ASK")
    async with world.db.tx("test.lock") as tx:
        await tx.execute("SELECT FROM customers WHERE customer = $1 FOR UPDATE", ann.customer)
        flood = [asyncio.ensure_future(world.as_customer(ann).rule("ASK")) for _ in range(40)]
        await asyncio.sleep(0.1)
        async with asyncio.timeout(1):
            await world.as_customer(bob).rule("ASK")
            assert ASKED == await world.outcome(Asker(), bob, E1)
    await asyncio.gather(*flood)
    assert 41 == len((await world.as_customer(ann).rules()).rules)
