"""Offers, from when they are made until they are answered or lapse, and the consents that come of them."""

import base64
from datetime import timedelta

from parley.consent.v1 import consent_events_pb2 as eventspb
from parley.consent.v1 import consent_pb2 as consentpb
from parley_consent.faults import InvalidConsentStatus
from parley_kit.faults import InvalidRequest
from tests.support.calls import fault_of
from tests.support.consent import HOUR, Asker, Person, World
from tests.support.releases import ASKED, E1, E2, REFUSED

OPEN = consentpb.CONSENT_STATE_REQUESTED


async def test_offer_shows_what_is_asked_by_whom(world: World) -> None:
    ann, marketer = Person(), Asker()
    assert ASKED == await world.outcome(marketer, ann, E1)

    offer = await world.as_customer(ann).only_offer()

    assert (marketer.name, "Hiker's Friend", marketer.level) == (
        offer.marketer,
        offer.marketer_display_name,
        offer.marketer_level,
    )
    assert (OPEN, world.terms(), "Walks near you", E1) == (offer.state, offer.terms, offer.text, offer.exchange)
    assert offer == await world.as_customer(ann).offer(offer.name)


async def test_accepted_offer_is_a_consent_on_the_terms_shown(world: World) -> None:
    ann, marketer = Person(), Asker()
    await world.decide(marketer, [ann], E1)
    offer = await world.as_customer(ann).only_offer()

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
    answer = await world.as_customer(ann).accept((await world.as_customer(ann).only_offer()).name)

    (event,) = await world.events("ConsentGiven")
    given = eventspb.ConsentGiven.FromString(event.payload)
    assert (E1, ann.pseudonym(marketer)) == (given.exchange, given.pseudonym)
    opened = world.opening(given.note)
    assert (answer.opening.salt, answer.opening.detail) == (opened.salt, opened.detail)
    assert given.note.commitment == opened.commitment


async def test_refused_offer_stays_refused_and_is_never_made_again(world: World) -> None:
    ann, marketer = Person(), Asker()
    await world.decide(marketer, [ann], E1)
    offer = await world.as_customer(ann).only_offer()

    await world.as_customer(ann).refuse(offer.name)

    assert REFUSED == await world.outcome(marketer, ann, E1)
    assert consentpb.CONSENT_STATE_REJECTED == (await world.as_customer(ann).only_offer()).state
    assert InvalidConsentStatus is type(await fault_of(world.as_customer(ann).accept(offer.name)))
    assert [] == list((await world.as_customer(ann).offers(open_only=True)).offers)
    (event,) = await world.events("OfferAnswered")
    assert not any(text.encode() in event.payload for text in (E1, ann.pseudonym(marketer), marketer.name))


async def test_deferred_offer_stays_open(world: World) -> None:
    ann, marketer = Person(), Asker()
    await world.decide(marketer, [ann], E1)
    offer = await world.as_customer(ann).only_offer()

    await world.as_customer(ann).defer(offer.name)

    assert ASKED == await world.outcome(marketer, ann, E1)
    assert consentpb.CONSENT_STATE_DEFERRED == (await world.as_customer(ann).only_offer()).state
    assert consentpb.CONSENT_STATE_ACTIVE == (await world.as_customer(ann).accept(offer.name)).consent.state


async def test_offer_lapses_at_its_deadline(world: World) -> None:
    ann = Person()
    await world.decide(Asker(), [ann], E1)
    offer = await world.as_customer(ann).only_offer()
    world.clock.move(HOUR)
    before, late = await world.dump(), world.as_customer(ann)

    assert consentpb.CONSENT_STATE_FAILED == (await world.as_customer(ann).only_offer()).state
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
