"""What the broker asks: decisions and settlements."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from parley.audit.v1 import audit_events_pb2 as auditpb
from parley.common.v1 import receipt_pb2 as receiptpb
from parley.common.v1 import terms_pb2 as termspb
from parley.consent.v1 import consent_events_pb2 as eventspb
from parley.consent.v1 import consent_pb2 as consentpb
from parley.identity.v1 import identity_events_pb2 as identitypb
from parley_consent.basis import Basis
from parley_crypto.batch import Batch, verify_in_batch
from parley_crypto.signing import Signer
from parley_kit.faultpoints import armed
from parley_kit.faults import Code, NotSupportedYet, Unauthenticated
from tests.support.calls import fault_of
from tests.support.consent import DEADLINE, HOUR, Asker, Person, World, body_of, forged, rule_terms
from tests.support.waiting import until

E1, E2, E3 = "exchanges/first", "exchanges/second", "exchanges/third"
SETTLED = consentpb.SETTLE_REFUSAL_UNSPECIFIED
STALE, NOT_CONSENTED, USED, EXPIRED, BEHIND, INVALID, PAUSED, BUSY = (
    consentpb.SETTLE_REFUSAL_STALE,
    consentpb.SETTLE_REFUSAL_NOT_CONSENTED,
    consentpb.SETTLE_REFUSAL_USED,
    consentpb.SETTLE_REFUSAL_EXPIRED,
    consentpb.SETTLE_REFUSAL_AUDIT_BEHIND,
    consentpb.SETTLE_REFUSAL_PERMIT_INVALID,
    consentpb.SETTLE_REFUSAL_PAUSED,
    consentpb.SETTLE_REFUSAL_BUSY,
)
ALLOWED, ASKED, REFUSED, LATER = (
    consentpb.DECISION_OUTCOME_ALLOWED,
    consentpb.DECISION_OUTCOME_ASKED,
    consentpb.DECISION_OUTCOME_REFUSED,
    consentpb.DECISION_OUTCOME_LATER,
)


async def under_consent(world: World, ann: Person, marketer: Asker, **changes: Any) -> consentpb.SettleEntry:
    """A permit of a later exchange, under a consent that was accepted."""
    asked = world.terms(**changes)
    await world.consented(marketer, [ann], E1, asked)
    return (await world.permits(marketer, [ann], E2, asked))[0]


async def under_rule(world: World, ann: Person, marketer: Asker, exchange: str = E1) -> consentpb.SettleEntry:
    """A permit under an allow rule."""
    await world.as_customer(ann).rule("ALLOW", rule_terms())
    return (await world.permits(marketer, [ann], exchange))[0]


# --- Deciding ------------------------------------------------------------------------------------------------------------


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


# --- Sending again -------------------------------------------------------------------------------------------------------


async def once_released(world: World, ann: Person, marketer: Asker) -> tuple[termspb.Terms, consentpb.SettleEntry]:
    """What was asked for, and the permit of its release, settled in the first exchange under a consent for one time."""
    once = world.terms(use=termspb.USE_ONE_TIME)
    await world.consented(marketer, [ann], E1, once)
    return once, await _settled(world, ann, marketer, once)


async def once_released_by_rule(
    world: World, ann: Person, marketer: Asker
) -> tuple[termspb.Terms, consentpb.SettleEntry]:
    """As above, under a rule for one time."""
    await world.as_customer(ann).rule("ALLOW", rule_terms(use=termspb.USE_ONE_TIME))
    once = world.terms(use=termspb.USE_ONE_TIME)
    return once, await _settled(world, ann, marketer, once)


async def _settled(world: World, ann: Person, marketer: Asker, once: termspb.Terms) -> consentpb.SettleEntry:
    (entry,) = await world.permits(marketer, [ann], E1, once)
    assert SETTLED == (await world.settle(entry))[0].refusal
    return entry


ONCE_RELEASED = pytest.mark.parametrize("prepare", [once_released, once_released_by_rule])


@ONCE_RELEASED
@pytest.mark.parametrize("late", [False, True])
async def test_release_for_one_time_is_sent_again_after_an_act_and_after_the_deadline(
    world: World, prepare: Any, late: bool
) -> None:
    ann, marketer = Person(), Asker()
    once, first = await prepare(world, ann, marketer)
    (before,) = await world.settle(first)
    await world.as_customer(ann).rule("REFUSE", rule_terms(attributes=["contact.email"]))
    world.clock.move(2 * HOUR if late else timedelta())
    kept = await world.dump()

    (again,) = await world.permits(marketer, [ann], E1, once)
    (after,) = await world.settle(again)

    assert STALE == (await world.settle(first))[0].refusal
    assert (body_of(first).consent, body_of(first).release_id) == (body_of(again).consent, body_of(again).release_id)
    assert (before, kept) == (after, await world.dump())


@ONCE_RELEASED
async def test_release_for_one_time_is_sent_again_as_it_was_for_it_is_no_subscription(
    world: World, prepare: Any
) -> None:
    ann, bob, marketer = Person(), Person(), Asker()
    once, first = await prepare(world, ann, marketer)
    await world.settle(await under_consent(world, bob, other := Asker()))
    settled = await world.db.fetchval("SELECT settled_at FROM settlements WHERE customer = $1", ann.customer)

    (again,) = await world.permits(marketer, [ann], E1, once)
    (more,) = await world.permits(other, [bob], E2)

    assert [False, False] == [body_of(entry).HasField("unchanged_since") for entry in (first, more)]
    assert settled == body_of(again).unchanged_since.ToDatetime(UTC)


@ONCE_RELEASED
async def test_release_for_one_time_gives_another_exchange_nothing(world: World, prepare: Any) -> None:
    ann, marketer = Person(), Asker()
    once, _ = await prepare(world, ann, marketer)

    assert ASKED == await world.outcome(marketer, ann, E2, once)
    world.clock.move(2 * HOUR)
    assert REFUSED == await world.outcome(marketer, ann, E3, once)


async def test_release_is_sent_again_under_the_consent_it_was_made_under(world: World) -> None:
    ann, marketer = Person(), Asker()
    once, first = await once_released(world, ann, marketer)
    world.clock.move(timedelta(minutes=1))
    await world.consented(marketer, [ann], E2, once)

    (again,) = await world.permits(marketer, [ann], E1, once)

    assert body_of(first).consent == body_of(again).consent


@pytest.mark.parametrize(("act", "outcome"), [("pause", LATER), ("withdraw", REFUSED)])
async def test_what_stops_a_release_stops_its_being_sent_again(world: World, act: str, outcome: int) -> None:
    ann, marketer = Person(), Asker()
    once, first = await once_released(world, ann, marketer)

    await getattr(world.as_customer(ann), act)(body_of(first).consent)

    assert outcome == await world.outcome(marketer, ann, E1, once)


async def test_exchange_that_had_its_release_asks_for_no_second(world: World) -> None:
    ann, marketer = Person(), Asker()
    once, first = await once_released_by_rule(world, ann, marketer)
    me = world.as_customer(ann)
    await me.withdraw(body_of(first).consent)
    for rule in (await me.rules()).rules:
        await me.end_rule(rule.name)

    assert (REFUSED, 0) == (await world.outcome(marketer, ann, E1, once), len((await me.offers()).offers))


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


# --- Permits -------------------------------------------------------------------------------------------------------------


async def test_permit_that_has_ended_settles_nothing(world: World) -> None:
    entry = await under_consent(world, Person(), Asker())
    ends = body_of(entry).expire_time.ToDatetime(UTC)
    assert timedelta(seconds=30) == ends - world.clock.now()

    world.clock.move(timedelta(seconds=30) - timedelta(microseconds=1))
    assert SETTLED == (await world.settle(entry))[0].refusal
    world.clock.move(timedelta(microseconds=1))
    assert STALE == (await world.settle(entry))[0].refusal, "though it has settled before"


async def test_permit_settles_nothing_once_a_rule_begins_or_ends_and_tells_its_bearer_of_none(world: World) -> None:
    ann, marketer, now = Person(), Asker(), world.clock.now()
    soon, later = now + timedelta(seconds=9), now + timedelta(seconds=12)
    await world.as_customer(ann).rule("REFUSE", spanning(soon, later))
    entry = await under_rule(world, ann, marketer)
    assert now + timedelta(seconds=30) == body_of(entry).expire_time.ToDatetime(UTC)

    world.clock.move(soon - now)

    assert (STALE, REFUSED) == ((await world.settle(entry))[0].refusal, await world.outcome(marketer, ann, E1))


def spanning(start: datetime, end: datetime) -> termspb.Terms:
    """A refuse rule's terms, of everything for a while."""
    terms = termspb.Terms()
    terms.timing.validity.start_time.FromDatetime(start)
    terms.timing.validity.end_time.FromDatetime(end)
    return terms


# --- Settling ------------------------------------------------------------------------------------------------------------


async def test_repeated_settlement_changes_nothing_and_answers_the_same(world: World) -> None:
    marketer, ann, bob = Asker(), Person(), Person()
    entries = [await under_consent(world, ann, marketer)]
    await world.as_customer(bob).rule("ALLOW", rule_terms())
    entries += await world.permits(marketer, [bob], E1)
    first = await world.settle(*entries)
    before = await world.dump()

    again = await world.settle(*entries)
    (fresh,) = await world.settle(*(await world.permits(marketer, [bob], E1)))

    assert [SETTLED, SETTLED] == [outcome.refusal for outcome in first]
    assert (first, first[1]) == (again, fresh)
    assert (before, 2, 2) == (await world.dump(), await world.count("settlements"), len(await released(world)))


async def test_settlement_opens_its_leaf(world: World) -> None:
    ann, marketer = Person(), Asker()
    entry = await under_consent(world, ann, marketer)

    (outcome,) = await world.settle(entry)

    (note,) = await released(world)
    opened = world.opening(note)
    assert (outcome.opening.salt, outcome.opening.detail) == (opened.salt, opened.detail)
    assert (note.commitment, False) == (opened.commitment, outcome.HasField("consent_opening"))
    assert body_of(entry).release_id.encode() in opened.detail


async def released(world: World) -> list[receiptpb.AuditNote]:
    events = await world.events("ReleaseSettled")
    return [note for each in events for note in eventspb.ReleaseSettled.FromString(each.payload).notes]


async def born(world: World) -> list[receiptpb.AuditNote]:
    events = await world.events("ConsentBorn")
    return [note for each in events for note in eventspb.ConsentBorn.FromString(each.payload).notes]


async def test_release_is_in_its_customers_history_whatever_the_broker_says(world: World) -> None:
    ann, marketer = Person(), Asker()
    await world.as_customer(ann).rule("ALLOW", rule_terms())
    request = world.request(marketer, [ann], E1)
    request.entries[0].audit_ref = b"x" * 253
    answer = await world.broker.Decide(request, timeout=DEADLINE)
    entry = consentpb.SettleEntry(
        consent_ref=request.entries[0].consent_ref, permit=answer.decisions[0].permit, batch=answer.batch
    )
    own = [body_of(one).own for one in (entry, *await world.permits(marketer, [ann], E1))]

    assert SETTLED == (await world.settle(entry))[0].refusal

    (note,) = await released(world)
    assert ann.audit == world.subject_of(note)
    assert own[0] != own[1], "to whoever carries it, it is another each time"
    assert not any(world.audit_ref(ann) in one for one in own)


async def test_release_asked_for_twice_in_one_call_is_one(world: World) -> None:
    ann, bob, marketer = Person(), Person(), Asker()
    entry = await under_consent(world, ann, marketer)
    await world.as_customer(bob).rule("ALLOW", rule_terms())
    births = [(await world.permits(marketer, [bob], E1))[0] for _ in range(2)]

    outcomes = await world.settle(entry, *births, entry)

    assert [SETTLED] * 4 == [outcome.refusal for outcome in outcomes]
    assert (outcomes[0], outcomes[1]) == (outcomes[3], outcomes[2])
    assert (2, 2) == (await world.count("settlements"), await world.count("consents"))
    assert (2, 1) == (len(await released(world)), len(await born(world)))
    opened = {world.opening(note).salt for note in await released(world)}
    assert opened == {outcome.opening.salt for outcome in outcomes}


async def test_second_permit_under_the_same_rule_gives_no_second_birth(world: World) -> None:
    ann, marketer = Person(), Asker()
    entries = [await under_rule(world, ann, marketer), *(await world.permits(marketer, [ann], E1))]
    (first,) = await world.settle(entries[0])
    before = await world.dump()

    assert body_of(entries[0]).consent != body_of(entries[1]).consent
    assert ([first], before) == (await world.settle(entries[1]), await world.dump())


async def test_release_settled_five_times_at_once_is_one(world: World) -> None:
    entry = await under_rule(world, Person(), Asker())

    outcomes = [outcome for (outcome,) in await asyncio.gather(*[world.settle(entry) for _ in range(5)])]

    assert [outcomes[0]] * 5 == outcomes
    assert (1, 1) == (await world.count("settlements"), await world.count("consents"))
    assert (1, 1) == (len(await released(world)), len(await born(world)))


async def test_whoever_is_locked_just_after_they_were_free_makes_all_of_the_batch_busy_and_nobody_fail(
    world: World,
) -> None:
    ann, bob, marketer = Person(), Person(), Asker()
    entries = [await under_rule(world, person, marketer) for person in (ann, bob)]
    lock = "SELECT FROM customers WHERE customer = $1 FOR UPDATE"

    async with world.db.tx("test.lock") as tx:
        await tx.execute(lock, ann.customer)

        async def lock_the_other() -> None:
            await tx.execute(lock, bob.customer)

        with armed("consent.after_free", lock_the_other):
            outcomes = await world.settle(*entries)
    later = await world.settle(*entries)

    assert [BUSY, BUSY, SETTLED, SETTLED] == [outcome.refusal for outcome in (*outcomes, *later)]


async def test_lock_that_is_no_customers_makes_nobody_busy(world: World) -> None:
    entry = await under_rule(world, Person(), Asker())
    async with world.db.tx("test.index") as tx:
        await tx.execute("LOCK TABLE settlements IN SHARE MODE")  # as building an index does
        fault = await fault_of(world.settle(entry))
    assert Code.UNAVAILABLE is fault.code
    assert [SETTLED] == [outcome.refusal for outcome in await world.settle(entry)]


async def test_customer_whose_row_stays_locked_is_busy_and_holds_nobody_else_up(world: World) -> None:
    ann, bob, marketer = Person(), Person(), Asker()
    entries = [await under_rule(world, person, marketer) for person in (ann, bob)]

    async with world.db.tx("test.lock") as tx:
        await tx.execute("SELECT FROM customers WHERE customer = $1 FOR UPDATE", ann.customer)
        outcomes = await world.settle(*entries)
    (later,) = await world.settle(entries[0])

    assert [BUSY, SETTLED, SETTLED] == [outcome.refusal for outcome in (*outcomes, later)]
    assert 2 == await world.count("settlements")


async def test_consent_born_from_a_rule_says_so_and_is_signed(world: World) -> None:
    ann, marketer = Person(), Asker()
    entry = await under_rule(world, ann, marketer)

    (outcome,) = await world.settle(entry)

    (consent,) = (await world.as_customer(ann).consents()).consents
    claims = world.verified("consent", outcome.artefact)
    assert (consent.artefact, consent.name) == (outcome.artefact, claims["record_id"])
    assert consent.name == body_of(entry).consent
    assert consent.rule.removeprefix("rules/") == world.basis_of(ann, entry).rule_id
    assert consent.rule.removeprefix("rules/").encode() not in entry.permit.body  # it would join pseudonyms
    assert (body_of(entry).terms, ann.pseudonym(marketer)) == (consent.terms, claims["pii_principal_id"])
    (note,) = await born(world)
    opened = world.opening(note)
    assert (outcome.consent_opening.salt, outcome.consent_opening.detail) == (opened.salt, opened.detail)
    assert (await world.permits(marketer, [ann], E2))[0] != entry


async def test_birth_voids_the_offer_of_its_exchange(world: World) -> None:
    ann, marketer = Person(), Asker()
    await world.decide(marketer, [ann], E1)

    await world.settle(await under_rule(world, ann, marketer))

    (offer,) = (await world.as_customer(ann).offers()).offers
    assert consentpb.CONSENT_STATE_INVALIDATED == offer.state


async def test_consent_for_one_time_settles_one_release_of_two_that_race(world: World) -> None:
    for _ in range(10):
        ann, marketer = Person(), Asker()
        one_time = world.terms(use=termspb.USE_ONE_TIME)
        await world.consented(marketer, [ann], E1, one_time)
        rivals = [(await world.permits(marketer, [ann], exchange, one_time))[0] for exchange in (E1, E2)]

        outcomes = await asyncio.gather(*[world.settle(rival) for rival in rivals])

        assert sorted([SETTLED, USED]) == sorted(outcome.refusal for (outcome,) in outcomes)
        assert ASKED == await world.outcome(marketer, ann, E3, one_time)
    assert 10 == await world.count("settlements") == len(await released(world))


async def test_consent_for_one_time_settles_one_release_of_two_in_one_call(world: World) -> None:
    ann, marketer = Person(), Asker()
    one_time = world.terms(use=termspb.USE_ONE_TIME)
    await world.consented(marketer, [ann], E1, one_time)
    rivals = [(await world.permits(marketer, [ann], exchange, one_time))[0] for exchange in (E1, E2)]

    outcomes = await world.settle(*rivals)

    assert sorted([SETTLED, USED]) == sorted(outcome.refusal for outcome in outcomes)
    assert outcomes == await world.settle(*rivals)


async def rivals_of_a_rule_for_one_time(world: World, ann: Person, marketer: Asker) -> list[consentpb.SettleEntry]:
    """Permits of two exchanges under one rule for one time."""
    await world.as_customer(ann).rule("ALLOW", rule_terms(use=termspb.USE_ONE_TIME))
    once = world.terms(use=termspb.USE_ONE_TIME)
    return [(await world.permits(marketer, [ann], exchange, once))[0] for exchange in (E1, E2)]


async def test_rule_for_one_time_settles_one_release_of_two_that_race(world: World) -> None:
    for _ in range(10):
        rivals = await rivals_of_a_rule_for_one_time(world, Person(), Asker())

        outcomes = await asyncio.gather(*[world.settle(rival) for rival in rivals])

        assert sorted([SETTLED, USED]) == sorted(outcome.refusal for (outcome,) in outcomes)
    assert 10 == await world.count("settlements") == await world.count("consents") == len(await released(world))


async def test_rule_for_one_time_settles_one_release_of_two_in_one_call(world: World) -> None:
    rivals = await rivals_of_a_rule_for_one_time(world, Person(), Asker())

    outcomes = await world.settle(*rivals, rivals[0])

    assert [SETTLED, USED, SETTLED] == [outcome.refusal for outcome in outcomes]
    assert (1, outcomes) == (await world.count("consents"), await world.settle(*rivals, rivals[0]))


async def test_rule_for_one_time_gives_each_marketer_one_release(world: World) -> None:
    ann, marketer, other = Person(), Asker(), Asker()
    once, _ = await once_released_by_rule(world, ann, marketer)

    (entry,) = await world.permits(other, [ann], E2, once)

    assert SETTLED == (await world.settle(entry))[0].refusal
    assert [ASKED, ASKED] == [await world.outcome(each, ann, E3, once) for each in (marketer, other)]


async def test_many_settle_in_the_order_asked(world: World) -> None:
    marketer, people = Asker(), [Person() for _ in range(20)]
    await world.consented(marketer, people, E1)
    entries = await world.permits(marketer, people, E2)
    await world.as_customer(people[3]).rule("REFUSE")
    entries[7] = forged(entries[7], Signer(b"f" * 32))
    random.shuffle(entries)

    outcomes = await world.settle(*entries)

    expected = {people[3].pseudonym(marketer): STALE, people[7].pseudonym(marketer): INVALID}
    pseudonyms = [body_of(entry).pseudonym for entry in entries]
    assert [expected.get(name, SETTLED) for name in pseudonyms] == [outcome.refusal for outcome in outcomes]
    for name, outcome in zip(pseudonyms, outcomes, strict=True):
        assert outcome.refusal or name.encode() in outcome.opening.detail


async def test_settlements_in_any_order_never_deadlock_with_each_other_or_with_offers(world: World) -> None:
    marketer, people = Asker(), [Person() for _ in range(60)]
    await world.consented(marketer, people, E1)
    entries = [await world.permits(marketer, people, f"exchanges/{n}") for n in range(4)]
    settling = [world.settle(*random.sample(batch, len(batch))) for batch in entries]
    asking = [world.decide(Asker(), random.sample(people, len(people)), f"exchanges/ask{n}") for n in range(4)]

    settled, asked = await asyncio.gather(asyncio.gather(*settling), asyncio.gather(*asking))

    assert {SETTLED} == {outcome.refusal for outcomes in settled for outcome in outcomes}
    assert {ASKED} == {decision.outcome for answer in asked for decision in answer.decisions}


# --- Refusals: documented, and nothing changes ---------------------------------------------------------------------------


@pytest.mark.parametrize("prepare", [under_consent, under_rule])
async def test_forged_or_moved_permit_is_invalid_and_changes_nothing(
    world: World, prepare: Callable[..., Awaitable[consentpb.SettleEntry]]
) -> None:
    ann, bob, marketer, rival = Person(), Person(), Asker(), Asker()
    entry, other = await prepare(world, ann, marketer), await prepare(world, bob, marketer)
    changed, torn, moved, unknown, theirs, for_rival, nobodys = (_copy(entry) for _ in range(7))
    changed.permit.body = forged(entry, world.signer, release_id="b" * 32).permit.body
    torn.permit.body = entry.permit.body[:-1]
    moved.batch.CopyFrom(other.batch)
    unknown.batch.key_id = "nobody"
    theirs.consent_ref = world.consent_ref(bob, marketer)
    for_rival.consent_ref = world.consent_ref(ann, rival)
    nobodys.consent_ref = b"x" * 64
    stranger = forged(entry, Signer(b"f" * 32))
    before = await world.dump()

    outcomes = await world.settle(changed, torn, moved, unknown, theirs, for_rival, nobodys, stranger)

    assert [INVALID] * 8 == [outcome.refusal for outcome in outcomes]
    assert not any(outcome.HasField("opening") or outcome.artefact for outcome in outcomes)
    assert before == await world.dump()
    assert SETTLED == (await world.settle(entry))[0].refusal


def _copy(entry: consentpb.SettleEntry) -> consentpb.SettleEntry:
    copy = consentpb.SettleEntry()
    copy.CopyFrom(entry)
    return copy


async def refusal(world: World, entry: consentpb.SettleEntry) -> int:
    """Why a release isn't settled; nothing may have changed, and the answer holds nothing else."""
    before = await world.dump()
    (outcome,) = await world.settle(entry)
    assert before == await world.dump()
    assert consentpb.SettleOutcome(refusal=outcome.refusal) == outcome
    return outcome.refusal


async def test_permit_is_stale_after_every_kind_of_act(world: World) -> None:
    marketer = Asker()
    for act in ("add rule", "end rule", "pause", "pause and resume", "withdraw", "answer another offer"):
        ann = Person()
        me = world.as_customer(ann)
        rule = await me.rule("ASK", rule_terms(attributes=["contact.email"]))
        await world.decide(Asker(), [ann], E3)
        (other,) = (await me.offers()).offers
        await world.decide(marketer, [ann], E1)
        (offer,) = [each for each in (await me.offers()).offers if each.marketer == marketer.name]
        consent = (await me.accept(offer.name)).consent.name
        (entry,) = await world.permits(marketer, [ann], E2)

        await _do(me, act, rule.name, consent, other.name)

        assert STALE == await refusal(world, entry), act


async def _do(me: Any, act: str, rule: str, consent: str, offer: str) -> None:
    match act:
        case "add rule":
            await me.rule("ASK")
        case "end rule":
            await me.end_rule(rule)
        case "pause":
            await me.pause(consent)
        case "pause and resume":
            await me.pause(consent)
            await me.resume(consent)
        case "withdraw":
            await me.withdraw(consent)
        case "answer another offer":
            await me.refuse(offer)


async def test_permit_of_a_customer_nobody_knows_is_stale(world: World) -> None:
    entry = await under_rule(world, Person(), Asker())
    nobody = Person()
    forged_for_nobody = forged(
        entry,
        world.signer,
        pseudonym=nobody.pseudonym(marketer := Asker()),
        marketer=marketer.name,
        basis=world.basis(nobody, 1),
        own=b"",
    )
    forged_for_nobody.consent_ref = world.consent_ref(nobody, marketer)

    assert STALE == await refusal(world, forged_for_nobody)


async def test_permit_that_names_the_new_revision_still_needs_a_live_agreement(world: World) -> None:
    """The second line behind the revision: what the permit rests on is looked at as well."""
    marketer = Asker()
    for ending, expected in (("pause", PAUSED), ("withdraw", NOT_CONSENTED)):
        ann = Person()
        entry = await under_consent(world, ann, marketer)
        await getattr(world.as_customer(ann), ending)(body_of(entry).consent)

        assert expected == await refusal(world, forged(entry, world.signer, basis=world.basis(ann, 2))), ending


async def test_ended_rule_gives_birth_to_nothing(world: World) -> None:
    ann, marketer = Person(), Asker()
    entry = await under_rule(world, ann, marketer)
    (rule,) = (await world.as_customer(ann).rules()).rules
    await world.as_customer(ann).end_rule(rule.name)

    assert STALE == await refusal(world, entry)
    assert NOT_CONSENTED == await refusal(
        world, forged(entry, world.signer, basis=world.basis(ann, 2, rule.name.removeprefix("rules/")))
    )
    assert NOT_CONSENTED == await refusal(world, forged(entry, world.signer, basis=world.basis(ann, 2)))


async def test_consent_past_its_end_by_the_databases_clock_settles_nothing(world: World) -> None:
    marketer, ann, bob = Asker(), Person(), Person()
    world.clock.move(-3 * HOUR)  # this process is late, the database is not
    ended = {"end": world.clock.now() + 2 * HOUR}
    consented = await under_consent(world, ann, marketer, **ended)
    await world.as_customer(bob).rule("ALLOW", rule_terms())
    (by_rule,) = await world.permits(marketer, [bob], E1, world.terms(**ended))

    assert [EXPIRED, EXPIRED] == [await refusal(world, consented), await refusal(world, by_rule)]


async def test_suspended_marketer_settles_nothing_until_it_is_reinstated(world: World) -> None:
    marketer = Asker()
    entry, other = await under_consent(world, Person(), marketer), await under_consent(world, Person(), Asker())
    suspended, reinstated = (
        identitypb.MarketerChanged(marketer=marketer.name, suspended=suspended) for suspended in (True, False)
    )

    async with world.running("hear_identity"):
        await world.hear("identity", 1, suspended)
        await until(lambda: world.count("suspended_marketers"))
        assert NOT_CONSENTED == await refusal(world, entry)
        assert SETTLED == (await world.settle(other))[0].refusal
        await world.hear("identity", 2, reinstated)
        await until(lambda: no(world.count("suspended_marketers")))

    assert SETTLED == (await world.settle(entry))[0].refusal


async def no(count: Awaitable[int]) -> bool:
    return not await count


async def test_nothing_settles_while_an_event_waits_too_long_for_the_log(world: World) -> None:
    settled, entry = [await under_consent(world, Person(), Asker()) for _ in range(2)]
    await world.settle(settled)
    await _age(world, timedelta(seconds=59))
    assert SETTLED == (await world.settle(settled))[0].refusal

    await _age(world, timedelta(seconds=2))
    unnumbered = [await refusal(world, each) for each in (settled, entry)]
    await world.db.execute("UPDATE outbox SET stream_seq = id")
    unlogged = await refusal(world, entry)

    assert ([BEHIND, BEHIND], BEHIND) == (unnumbered, unlogged)


async def _age(world: World, by: timedelta) -> None:
    await world.db.execute("UPDATE outbox SET occurred_at = occurred_at - $1::interval", by)


async def test_settling_goes_on_once_audit_has_logged_what_waited(world: World) -> None:
    entry = await under_consent(world, Person(), Asker())
    await _age(world, HOUR)
    await world.db.execute("UPDATE outbox SET stream_seq = id")
    last = await world.db.fetchval("SELECT max(id) FROM outbox")

    async with world.running("hear_audit"):
        await world.hear("audit", 1, auditpb.StreamLogged(service="vault", seq=last + 1))
        await world.hear("audit", 2, auditpb.StreamLogged(service="consent", seq=last - 1))
        await until(lambda: _logged(world, last - 1))
        behind = await refusal(world, entry)
        await world.hear("audit", 3, auditpb.StreamLogged(service="consent", seq=last))
        await until(lambda: _logged(world, last))

    assert (BEHIND, SETTLED) == (behind, (await world.settle(entry))[0].refusal)


async def _logged(world: World, seq: int) -> bool:
    return seq == int(await world.db.fetchval("SELECT logged_seq FROM audit_progress"))
