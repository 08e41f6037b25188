"""Settling: in one statement, once, whoever races for it, with a leaf in the log and a consent where a rule gave birth to one."""

import asyncio

from parley.consent.v1 import consent_pb2 as consentpb
from parley_crypto.signing import Signer
from parley_kit.faultpoints import armed
from parley_kit.faults import Code
from tests.support.calls import fault_of
from tests.support.consent import DEADLINE, Asker, Person, World, body_of, forged, rule_terms
from tests.support.releases import (
    ASKED,
    BUSY,
    E1,
    E2,
    INVALID,
    SETTLED,
    STALE,
    born,
    released,
    under_consent,
    under_rule,
)
from tests.support.seeds import seeded


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

    assert [SETTLED, SETTLED, STALE, SETTLED] == [outcome.refusal for outcome in outcomes]
    assert outcomes[0] == outcomes[3]
    assert (2, 2) == (await world.count("settlements"), await world.count("consents"))
    assert (2, 1) == (len(await released(world)), len(await born(world)))
    opened = {world.opening(note).salt for note in await released(world)}
    assert opened == {outcome.opening.salt for outcome in outcomes if outcome.refusal == SETTLED}


async def test_second_permit_under_the_same_rule_gives_no_second_birth_and_settles_nothing_for_its_values_name_another(
    world: World,
) -> None:
    ann, marketer = Person(), Asker()
    entries = [await under_rule(world, ann, marketer), *(await world.permits(marketer, [ann], E1))]
    (first,) = await world.settle(entries[0])
    before = await world.dump()

    assert body_of(entries[0]).consent != body_of(entries[1]).consent
    assert [consentpb.SettleOutcome(refusal=STALE)] == await world.settle(entries[1])
    (later,) = await world.permits(marketer, [ann], E1)
    assert body_of(entries[0]).consent == body_of(later).consent
    assert ([first], before) == (await world.settle(later), await world.dump())


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


async def test_many_settle_in_the_order_asked(world: World) -> None:
    marketer, people = Asker(), [Person() for _ in range(20)]
    await world.consented(marketer, people, E1)
    entries = await world.permits(marketer, people, E2)
    await world.as_customer(people[3]).rule("REFUSE")
    entries[7] = forged(entries[7], Signer(b"f" * 32))
    seeded().shuffle(entries)

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
    rng = seeded()
    settling = [world.settle(*rng.sample(batch, len(batch))) for batch in entries]
    asking = [world.decide(Asker(), rng.sample(people, len(people)), f"exchanges/ask{n}") for n in range(4)]

    settled, asked = await asyncio.gather(asyncio.gather(*settling), asyncio.gather(*asking))

    assert {SETTLED} == {outcome.refusal for outcomes in settled for outcome in outcomes}
    assert {ASKED} == {decision.outcome for answer in asked for decision in answer.decisions}
