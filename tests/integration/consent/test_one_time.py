"""What is agreed for one time is released to one exchange, and may be sent there again."""

import asyncio
from datetime import UTC, timedelta
from typing import Any

import pytest

from parley.common.v1 import terms_pb2 as termspb
from parley.consent.v1 import consent_pb2 as consentpb
from tests.support.consent import HOUR, Asker, Person, World, body_of, rule_terms
from tests.support.releases import (
    ASKED,
    E1,
    E2,
    E3,
    LATER,
    REFUSED,
    SETTLED,
    STALE,
    USED,
    once_released,
    once_released_by_rule,
    released,
    under_consent,
)

ONCE_RELEASED = pytest.mark.parametrize("prepare", [once_released, once_released_by_rule])


@ONCE_RELEASED
@pytest.mark.parametrize("late", [False, True])
async def test_release_for_one_time_is_sent_again_after_an_act_and_after_the_deadline(
    world: World, prepare: Any, late: bool
) -> None:
    ann, marketer = Person(), Asker()
    once, first = await prepare(world, ann, marketer)
    (before,) = await world.settle(*(await world.permits(marketer, [ann], E1, once)))
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
    assert sorted([STALE, USED]) == sorted(outcome.refusal for outcome in await world.settle(*rivals))


@ONCE_RELEASED
async def test_permit_from_before_a_release_for_one_time_does_not_settle_it_again_but_one_for_the_values_of_then_does(
    world: World, prepare: Any
) -> None:
    ann, marketer = Person(), Asker()
    once, first = await prepare(world, ann, marketer)
    before = await world.dump()

    refused = await world.settle(first, first)
    (again,) = await world.settle(*(await world.permits(marketer, [ann], E1, once)))

    assert [consentpb.SettleOutcome(refusal=STALE)] * 2 == refused
    assert (SETTLED, before) == (again.refusal, await world.dump())


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

    assert [SETTLED, USED, STALE] == [outcome.refusal for outcome in outcomes]
    assert [STALE, USED] == [outcome.refusal for outcome in await world.settle(*rivals)]
    assert 1 == await world.count("consents")


async def test_rule_for_one_time_gives_each_marketer_one_release(world: World) -> None:
    ann, marketer, other = Person(), Asker(), Asker()
    once, _ = await once_released_by_rule(world, ann, marketer)

    (entry,) = await world.permits(other, [ann], E2, once)

    assert SETTLED == (await world.settle(entry))[0].refusal
    assert [ASKED, ASKED] == [await world.outcome(each, ann, E3, once) for each in (marketer, other)]
