"""
G2, where it is kept: no release commits that a withdrawal's answer doesn't name, however the two meet.

Every race is the real RPC of a customer against the real ``Settle`` with a valid permit, on a real database. That the races
can lose is shown with two broken functions in place of ``settle``.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from parley.consent.v1 import consent_pb2 as consentpb
from parley_kit.faultpoints import armed
from tests.support.consent import Asker, Person, World, body_of, rule_terms, several
from tests.support.seeds import seeded
from tests.support.waiting import until

PAIRS_AT_ONCE = 8  # two connections each: what the service's pool holds
SPREAD = 1.0  # either starts up to so many times an act's length after the other: they meet in every way
SETTLED, STALE = consentpb.SETTLE_REFUSAL_UNSPECIFIED, consentpb.SETTLE_REFUSAL_STALE
ONE_QUERY = (Path(__file__).parent / "settle_in_one_query.sql").read_text("utf-8")


@dataclass(frozen=True)
class Ready:
    """A customer with a live agreement, and a permit that rests on it."""

    person: Person
    agreement: str
    entry: consentpb.SettleEntry


@dataclass(frozen=True)
class Raced:
    """What came of one race: how the settlement ended, and whether a release escaped the act."""

    refusal: int
    escaped: bool


Act = Callable[[World, Ready], Awaitable[Collection[str]]]
"""Acts as the customer; answers the releases that had committed when the act was answered."""


# --- Acts ----------------------------------------------------------------------------------------------------------------


async def withdraw(world: World, ready: Ready) -> Collection[str]:
    answer = await world.as_customer(ready.person).withdraw(ready.agreement)
    return {made.release_id for made in answer.consent.settlements}


async def pause(world: World, ready: Ready) -> Collection[str]:
    paused = await world.as_customer(ready.person).pause(ready.agreement)
    return {made.release_id for made in paused.settlements}


async def refuse_by_rule(world: World, ready: Ready) -> Collection[str]:
    await world.as_customer(ready.person).rule("REFUSE")
    return await committed(world, ready)


async def end_rule(world: World, ready: Ready) -> Collection[str]:
    await world.as_customer(ready.person).end_rule(ready.agreement)
    return await committed(world, ready)


async def committed(world: World, ready: Ready) -> set[str]:
    query = "SELECT release_id FROM settlements WHERE customer = $1"
    return {row["release_id"] for row in await world.db.fetch(query, ready.person.customer)}


# --- Races ---------------------------------------------------------------------------------------------------------------


async def with_consents(world: World, count: int) -> list[Ready]:
    """Customers who each accepted an offer, with permits of a later exchange."""
    marketer, people = Asker(), [Person() for _ in range(count)]
    consents = await world.consented(marketer, people, "exchanges/first")
    entries = await world.permits(marketer, people, "exchanges/second")
    return [Ready(*parts) for parts in zip(people, [consent.name for consent in consents], entries, strict=True)]


async def with_rules(world: World, count: int) -> list[Ready]:
    """Customers who each have an allow rule, with permits from which a consent is yet to be born."""
    marketer, people = Asker(), [Person() for _ in range(count)]
    rules = await several([world.as_customer(person).rule("ALLOW", rule_terms()) for person in people])
    entries = await world.permits(marketer, people, "exchanges/first")
    return [Ready(*parts) for parts in zip(people, [rule.name for rule in rules], entries, strict=True)]


async def races(world: World, act: Act, everyone: Sequence[Ready]) -> list[Raced]:
    """Race the act against a settlement for each customer, several customers at a time."""
    gate, rng, took = asyncio.Semaphore(PAIRS_AT_ONCE), seeded(), [0.01]

    async def one(ready: Ready) -> Raced:
        async with gate:
            return await race(world, act, ready, SPREAD * median(took[-20:]) * rng.uniform(-1, 1), took)

    return await asyncio.gather(*map(one, everyone))


async def race(world: World, act: Act, ready: Ready, head_start: float, took: list[float]) -> Raced:
    async def settle() -> int:
        await asyncio.sleep(max(0.0, head_start))
        (outcome,) = await world.settle(ready.entry)
        return outcome.refusal

    async def acted() -> Collection[str]:
        await asyncio.sleep(max(0.0, -head_start))
        began = time.perf_counter()
        named = await act(world, ready)
        took.append(time.perf_counter() - began)
        return named

    named, refusal = await asyncio.gather(acted(), settle())
    return Raced(refusal, bool(await committed(world, ready) - set(named)))


async def races_until_one_escapes(world: World, limit: int) -> int:
    """How many withdrawals were raced until a release escaped one; fails after ``limit``."""
    for start in range(0, limit, 50):
        raced = await races(world, withdraw, await with_consents(world, 50))
        if any(each.escaped for each in raced):
            return start + [each.escaped for each in raced].index(True) + 1
    pytest.fail(f"no release escaped in {limit} races: they can't tell a broken settle from a good one")


def assert_none_escaped(raced: Sequence[Raced], least_of_each: int) -> None:
    assert 0 == sum(each.escaped for each in raced)
    assert {SETTLED, STALE} == {each.refusal for each in raced}
    for refusal in (SETTLED, STALE):  # or the two hardly ever met
        assert least_of_each <= sum(each.refusal == refusal for each in raced)


async def test_no_release_escapes_500_withdrawals(world: World) -> None:
    assert_none_escaped(await races(world, withdraw, await with_consents(world, 500)), least_of_each=50)


@pytest.mark.parametrize(
    ("prepare", "act"), [(with_consents, pause), (with_consents, refuse_by_rule), (with_rules, end_rule)]
)
async def test_no_release_escapes_100_of_another_act(world: World, prepare: Any, act: Act) -> None:
    assert_none_escaped(await races(world, act, await prepare(world, 100)), least_of_each=5)


# --- Broken ones ---------------------------------------------------------------------------------------------------------


async def without_lock(world: World) -> None:
    """Replace ``settle`` by itself without its lock."""
    text = await world.db.fetchval(
        "SELECT pg_get_functiondef('settle(settle_batch[], settle_release[], interval)'::regprocedure)"
    )
    assert 1 == text.count(" FOR UPDATE;")
    await world.db.execute(text.replace(" FOR UPDATE;", ";"))


async def in_one_query(world: World) -> None:
    """Replace ``settle`` by one query that locks, joins and inserts."""
    await world.db.execute(ONE_QUERY)


@pytest.mark.parametrize("broken", [without_lock, in_one_query])
async def test_races_find_a_broken_settle_out_every_time(
    world: World, broken: Callable[[World], Awaitable[None]]
) -> None:
    await broken(world)

    needed = [await races_until_one_escapes(world, 500) for _ in range(5)]
    print(f"{broken.__name__}: a release escaped after {needed} races")


# --- Held in the middle --------------------------------------------------------------------------------------------------


@asynccontextmanager
async def held(point: str) -> AsyncIterator[tuple[asyncio.Event, asyncio.Event]]:
    """Hold whoever reaches a fault point: answers (somebody is there, let them go)."""
    there, go = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        there.set()
        await go.wait()

    with armed(point, hold):
        try:
            yield there, go
        finally:
            go.set()


async def settle_during_withdrawal(world: World, ready: Ready, *, waits: bool) -> Raced:
    """Settle while a withdrawal has done everything but commit; ``waits``: the settlement waits for its lock."""
    async with held("consent.WithdrawConsent.before_commit") as (there, go):
        withdrawing = asyncio.ensure_future(withdraw(world, ready))
        await there.wait()
        settling = asyncio.ensure_future(world.settle(ready.entry))
        await until(partial(somebody_waits, world)) if waits else await settling
        go.set()
        named, (outcome,) = await withdrawing, await settling
    return Raced(outcome.refusal, bool(await committed(world, ready) - set(named)))


async def somebody_waits(world: World) -> Any:
    query = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    return await world.db.fetchval(query)


async def test_settlement_that_waited_for_a_withdrawal_sees_it(world: World) -> None:
    (ready,) = await with_consents(world, 1)

    assert Raced(STALE, escaped=False) == await settle_during_withdrawal(world, ready, waits=True)


async def test_one_query_that_waited_for_a_withdrawal_does_not_see_it(world: World) -> None:
    await in_one_query(world)
    (ready,) = await with_consents(world, 1)

    assert Raced(SETTLED, escaped=True) == await settle_during_withdrawal(world, ready, waits=True)


async def test_settlement_without_the_lock_does_not_wait_for_a_withdrawal(world: World) -> None:
    await without_lock(world)
    (ready,) = await with_consents(world, 1)

    assert Raced(SETTLED, escaped=True) == await settle_during_withdrawal(world, ready, waits=False)


async def test_settlement_on_its_way_to_the_database_is_overtaken_by_a_withdrawal(world: World) -> None:
    (ready,) = await with_consents(world, 1)
    async with held("consent.before_settle") as (there, go):
        settling = asyncio.ensure_future(world.settle(ready.entry))
        await there.wait()
        named = await withdraw(world, ready)
        go.set()
        (outcome,) = await settling

    assert (set(), STALE, set()) == (named, outcome.refusal, await committed(world, ready))


async def test_settlement_whose_answer_is_on_its_way_is_named_by_the_withdrawal(world: World) -> None:
    (ready,) = await with_consents(world, 1)
    async with held("consent.after_settle") as (there, go):
        settling = asyncio.ensure_future(world.settle(ready.entry))
        await there.wait()
        named = await withdraw(world, ready)
        go.set()
        (outcome,) = await settling

    assert ({body_of(ready.entry).release_id}, SETTLED) == (named, outcome.refusal)


async def test_repeat_of_a_settled_release_is_refused_once_withdrawn(world: World) -> None:
    (ready,) = await with_consents(world, 1)
    await world.settle(ready.entry)
    await withdraw(world, ready)
    before = await world.dump()

    (again,) = await world.settle(ready.entry)

    assert (STALE, before) == (again.refusal, await world.dump())
