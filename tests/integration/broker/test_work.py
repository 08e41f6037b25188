"""The work: whatever breaks, stops or comes in between, each customer's release is made once, or not at all."""

import asyncio
from datetime import timedelta
from functools import partial

import pytest

from parley.broker.v1 import broker_pb2 as brokerpb
from parley.common.v1 import terms_pb2 as termspb
from parley_broker.domain.states import Participant
from parley_broker.store import LEASE, Release
from parley_kit.clock import SystemClock
from parley_kit.faults import Unavailable
from tests.integration.broker.conftest import Timed
from tests.support.broker import (
    FINALIZED,
    OFFERED,
    TERMINATED,
    a_willing,
    acting,
    an_age,
    an_asked,
    ask,
    crowd,
    failing,
    holding,
    id_of,
    releases,
    settlements,
    sign_in_at,
    states,
    within_half_an_hour,
    work,
)
from tests.support.calls import request_id
from tests.support.chaos import each, rows
from tests.support.waiting import until
from tests.support.world import Customer, Marketer, World

ALLOW, ASK, REFUSE = 1, 2, 3
ELSEWHERE = termspb.Terms(purposes=["https://w3id.org/dpv#Advertising"])
POINTS = [
    "broker.after_introduce",
    "broker.matched.before_commit",
    "broker.matched.after_commit",
    "broker.after_decide",
    "broker.after_release",
    "broker.before_settle",
    "broker.after_settle",
    "broker.before_finish",
    "broker.after_finish",
    "consent.before_settle",
    "consent.after_settle",
]


async def are(world: World, name: str, *expected: int) -> bool:
    return list(expected) == await states(world, name)


async def test_work_broken_off_at_any_point_is_finished_within_the_lease(world: World) -> None:
    made: list[tuple[Marketer, str]] = []
    for point in POINTS:
        age = an_age()
        await a_willing(world, age)
        marketer = await world.marketer()
        with failing(point) as broken:
            made.append((marketer, await ask(marketer, age)))
            async with asyncio.timeout(10):
                await broken.wait()
    # Each waits for its own lease; the last one began just now.
    within = 2 * LEASE.total_seconds()
    delivered = await asyncio.gather(*(marketer.collect(1, within) for marketer, _ in made))
    assert [name for _, name in made] == [found[0].release.exchange for found in delivered]
    for marketer, name in made:
        assert (1, [FINALIZED]) == (await settlements(world, name), await states(world, name))
        assert 1 == len(await rows(world, "broker", "SELECT FROM deliveries WHERE marketer = $1", marketer.name))


async def _stale(world: World, point: str, *effects: int) -> tuple[Marketer, Customer, str]:
    """Have a willing customer make rules while their release is held at a point."""
    age = an_age()
    customer, marketer = await a_willing(world, age), await world.marketer()

    async def act() -> None:
        for effect in effects:
            await customer.rule(effect, ELSEWHERE if effect == ALLOW else termspb.Terms())

    with acting(point, act) as done:
        name = await ask(marketer, age)
        async with asyncio.timeout(10):
            await done.wait()
    return marketer, customer, name


@pytest.mark.parametrize("point", ["broker.after_decide", "broker.after_release", "broker.before_settle"])
async def test_customer_who_acts_elsewhere_meanwhile_is_decided_again(world: World, point: str) -> None:
    marketer, _, name = await _stale(world, point, ALLOW)
    (delivery,) = await marketer.collect(1)
    assert name == delivery.release.exchange
    assert (1, [FINALIZED]) == (await settlements(world, name), await states(world, name))


@pytest.mark.parametrize("point", ["broker.after_decide", "broker.after_release", "broker.before_settle"])
async def test_customer_who_refuses_meanwhile_gives_nothing(world: World, point: str) -> None:
    marketer, _, name = await _stale(world, point, REFUSE)
    await until(partial(are, world, name, TERMINATED))
    assert (0, []) == (await settlements(world, name), await releases(marketer))


async def test_customer_who_wants_to_be_asked_meanwhile_is_asked_once_and_heard(world: World) -> None:
    marketer, customer, name = await _stale(world, "broker.before_settle", ASK)
    offer = await customer.offer()
    await until(partial(are, world, name, OFFERED))
    assert (0, []) == (await settlements(world, name), await releases(marketer))
    await customer.accept(offer)
    assert name == (await marketer.collect(1))[0].release.exchange


async def test_new_release_does_not_exceed_the_new_terms(world: World) -> None:
    """The permit that is settled in the end is one decided after the act."""
    age = an_age()
    customer, marketer = await a_willing(world, age), await world.marketer()

    async def act() -> None:
        await customer.put(profile_city="Porto")
        await customer.rule(ALLOW, ELSEWHERE)

    with acting("broker.before_settle", act):
        await ask(marketer, age)
        (delivery,) = await marketer.collect(1)
    (city, _) = world.opened(marketer, delivery)["fields"]
    assert "Porto" == city["value"]


async def test_acceptance_that_is_heard_before_the_offer_is_stored_is_not_lost(world: World) -> None:
    age = an_age()
    customer, marketer = await an_asked(world, age), await world.marketer()

    async def act() -> None:
        await customer.accept(await customer.offer())
        accepted = "SELECT FROM participants WHERE marketer = $1 AND state > 2"
        await until(partial(rows, world, "broker", accepted, marketer.name))

    with acting("broker.after_decide", act):
        name = await ask(marketer, age)
        (delivery,) = await marketer.collect(1)
    assert (name, 1) == (delivery.release.exchange, await settlements(world, name))


@pytest.mark.parametrize("point", ["consent.before_settle", "broker.after_introduce", "broker.after_decide"])
async def test_peer_that_is_away_for_a_while_only_delays(
    world: World, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parley_broker.store.LEASE", LEASE / 20)
    age = an_age()
    await a_willing(world, age)
    marketer = await world.marketer()
    with failing(point, Unavailable(), times=3) as over:
        name = await ask(marketer, age)
        (delivery,) = await marketer.collect(1)
    assert over.is_set()
    assert (name, 1) == (delivery.release.exchange, await settlements(world, name))


async def test_many_workers_at_once_make_one_release_each(world: World) -> None:
    age, people = an_age(), 20
    await each(lambda _: a_willing(world, age), range(people))
    marketer, it = await world.marketer(), work(world)
    stopped = False

    async def worker() -> None:
        while not stopped:
            await it.matching.turn()
            if not await it.releasing.turn():
                await it.bell.wait(0.01)

    workers = [asyncio.create_task(worker()) for _ in range(4)]
    name = await ask(marketer, age)
    deliveries = await marketer.collect(people)
    await until(partial(are, world, name, *[FINALIZED] * people))
    stopped = True
    await asyncio.gather(*workers)
    assert people == len({one.release.pseudonym for one in deliveries}) == await settlements(world, name)
    assert people == len(await rows(world, "broker", "SELECT FROM deliveries WHERE marketer = $1", marketer.name))


async def test_workers_that_have_the_same_in_hand_make_one_release_each(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lease is no lock: who takes longer than it lasts meets the next worker at every step."""
    monkeypatch.setattr("parley_broker.store.LEASE", LEASE * 0)
    age, people = an_age(), 10
    await each(lambda _: a_willing(world, age), range(people))
    marketer, it = await world.marketer(), work(world)
    name = await ask(marketer, age)
    for _ in range(5):
        await asyncio.gather(*(it.releasing.turn() for _ in range(6)))
    await until(partial(are, world, name, *[FINALIZED] * people))
    assert people == await settlements(world, name)
    assert people == len(await rows(world, "broker", "SELECT FROM deliveries WHERE marketer = $1", marketer.name))
    assert people == len(await marketer.collect(people))


async def test_refusal_that_comes_late_leaves_what_was_released_alone(world: World) -> None:
    age = an_age()
    await a_willing(world, age)
    store, marketer = work(world).store, await world.marketer()
    name = await ask(marketer, age)
    (delivery,) = await marketer.collect(1)
    exchange = await store.exchange(store.db, marketer.name, id_of(name))
    assert exchange is not None
    await store.unsettled(exchange, {delivery.release.pseudonym: Participant.TERMINATED})
    assert [FINALIZED] == await states(world, name)
    assert 1 == len(await releases(marketer))


async def test_release_that_settled_is_finished_though_its_exchange_was_cancelled_meanwhile(world: World) -> None:
    age = an_age()
    await a_willing(world, age)
    marketer = await world.marketer()
    async with holding("broker.before_finish") as there:
        name = await ask(marketer, age)
        await there.wait()
        await _cancel(marketer, name)
    assert 1 == len(await marketer.collect(1))
    assert (1, [FINALIZED]) == (await settlements(world, name), await states(world, name))


async def _cancel(marketer: Marketer, name: str) -> None:
    await marketer.call("broker", "CancelExchange", brokerpb.CancelExchangeRequest(name=name, request_id=request_id()))


SETTLED_UNKNOWN = ["broker.after_settle", "consent.after_settle", "broker.before_finish"]
"""Where whoever dies has settled a release, and broker's database knows nothing of it."""


@pytest.mark.parametrize("point", SETTLED_UNKNOWN)
async def test_release_that_settled_unknown_to_broker_comes_though_its_exchange_was_cancelled(
    world: World, point: str
) -> None:
    age = an_age()
    await a_willing(world, age)
    marketer = await world.marketer()
    with failing(point) as broken:
        name = await ask(marketer, age)
        async with asyncio.timeout(10):
            await broken.wait()
    await _cancel(marketer, name)
    (delivery,) = await marketer.collect(1, 2 * LEASE.total_seconds())
    assert name == delivery.release.exchange
    assert (1, [FINALIZED]) == (await settlements(world, name), await states(world, name))


@pytest.mark.parametrize("point", SETTLED_UNKNOWN)
async def test_release_that_settled_unknown_to_broker_comes_though_its_deadline_has_passed(
    timed: Timed, point: str
) -> None:
    world, age = timed.world, an_age()
    await a_willing(world, age)
    marketer = await world.marketer()
    with failing(point) as broken:
        name = await ask(marketer, age, within_half_an_hour())
        async with asyncio.timeout(10):
            await broken.wait()
    with timed.clock.ahead(timedelta(minutes=31)):
        await until(partial(_is_swept, world, name))
        await until(partial(are, world, name, FINALIZED), 2 * LEASE.total_seconds())
        await sign_in_at(marketer, timed.clock.now())
        assert [name] == [one.release.exchange for one in await releases(marketer, 1.0)]
    assert 1 == await settlements(world, name)


async def test_whoever_is_to_be_decided_when_an_exchange_is_cancelled_is_asked_nothing_and_ends(world: World) -> None:
    age = an_age()
    await a_willing(world, age)
    undecided, marketer = await an_asked(world, age), await world.marketer()
    async with holding("broker.matched.after_commit") as there:
        name = await ask(marketer, age)
        await there.wait()
        await _cancel(marketer, name)
    await until(partial(are, world, name, TERMINATED, TERMINATED))
    assert ([], 0, []) == (await undecided.offers(), await settlements(world, name), await releases(marketer))


async def test_offer_that_is_made_while_its_exchange_is_cancelled_is_not_left_open(world: World) -> None:
    age = an_age()
    await an_asked(world, age)
    marketer = await world.marketer()
    async with holding("broker.decided.before_commit") as there:
        name = await ask(marketer, age)
        await there.wait()
        cancelling = asyncio.create_task(_cancel(marketer, name))
        waiting = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'UPDATE exchanges%'"

        async def waits_or_swept() -> bool:
            return bool(await rows(world, "broker", waiting)) or await _is_swept(world, name)

        await until(waits_or_swept)
    await cancelling
    await until(partial(are, world, name, TERMINATED))


async def test_sweep_ends_whom_nobody_had_in_hand_and_leaves_the_others_to_the_workers(world: World) -> None:
    age, people = an_age(), 3
    await each(lambda _: a_willing(world, age), range(people))
    marketer, store = await world.marketer(), work(world).store
    name = await ask(marketer, age)
    await marketer.collect(people)
    kept = "SET leased_until = 'infinity', settled = false, state = 1, taken = (pseudonym <> $2)"  # from the workers
    (first, *_) = sorted(
        row["pseudonym"]
        for row in await rows(world, "broker", "SELECT pseudonym FROM participants WHERE exchange_id = $1", id_of(name))
    )
    await rows(world, "broker", f"UPDATE participants {kept} WHERE exchange_id = $1", id_of(name), first)
    await _cancel(marketer, name)
    await store.sweep()
    assert [1, 1, TERMINATED] == await states(world, name)


async def test_late_word_of_an_offer_ends_nobody_who_has_accepted_it(world: World) -> None:
    age = an_age()
    await a_willing(world, age)
    marketer, store = await world.marketer(), work(world).store
    name = await ask(marketer, age)
    (delivery,) = await marketer.collect(1)
    exchange = await store.exchange(store.db, marketer.name, id_of(name))
    assert exchange is not None
    accepted = "UPDATE participants SET leased_until = 'infinity', settled = false, state = 3 WHERE exchange_id = $1"
    await rows(world, "broker", accepted, id_of(name))
    await rows(world, "broker", "UPDATE exchanges SET lapsed = true, swept = true WHERE exchange_id = $1", id_of(name))
    await store.decided(exchange, {delivery.release.pseudonym: Participant.OFFERED})
    assert [3] == await states(world, name)


@pytest.mark.parametrize("point", ["broker.after_lapse", "broker.after_sweep"])
async def test_offers_of_an_exchange_that_is_over_end_in_portions_whoever_dies_between_two(
    timed: Timed, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parley_broker.store._PORTION", 2)
    world, age, people = timed.world, an_age(), 7
    await each(lambda _: an_asked(world, age), range(people))
    marketer = await world.marketer()
    name = await ask(marketer, age, within_half_an_hour())
    await until(partial(are, world, name, *[OFFERED] * people))
    with failing(point, times=2) as broken, timed.clock.ahead(timedelta(minutes=31)):
        async with asyncio.timeout(20):
            await broken.wait()
        await until(partial(are, world, name, *[TERMINATED] * people))
        await until(partial(_is_swept, world, name))


async def _is_swept(world: World, name: str) -> bool:
    (row,) = await rows(world, "broker", "SELECT swept FROM exchanges WHERE exchange_id = $1", id_of(name))
    return bool(row["swept"])


async def test_nothing_is_finished_again_that_was_acknowledged(world: World) -> None:
    age = an_age()
    await a_willing(world, age)
    store, marketer = work(world).store, await world.marketer()
    name = await ask(marketer, age)
    (delivery,) = await marketer.collect(1)
    await marketer.acknowledge(delivery)
    release = Release(marketer.name, id_of(name), delivery.release.pseudonym, delivery.release.release_id)
    assert [] == await store.finish([release], SystemClock().now())
    assert [] == await releases(marketer)


async def test_cancellation_waits_for_customers_on_their_way_in(world: World) -> None:
    age = an_age()
    await a_willing(world, age)
    marketer = await world.marketer()
    await ask(marketer, age)
    (delivery,) = await marketer.collect(1)
    await marketer.acknowledge(delivery)
    empty = await ask(marketer, an_age())
    store = work(world).store
    exchange = await store.exchange(store.db, marketer.name, id_of(empty))
    assert exchange is not None

    async def cancel() -> None:
        async with store.db.tx("test.cancel") as tx:
            await store.cancel(tx, marketer.name, exchange.exchange_id, exchange.created_at)

    async with holding("broker.after_lease"):  # else the release may be out before the cancellation has its turn again
        async with store.db.tx("test.match") as tx:
            await store.add_participants(tx, exchange, [delivery.release.pseudonym])
            cancelling = asyncio.create_task(cancel())
            waiting = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'UPDATE exchanges%'"
            await until(partial(_is_waiting_or_done, world, waiting, cancelling))
        await cancelling
    await until(partial(are, world, empty, TERMINATED))
    assert 0 == await settlements(world, empty)


async def _is_waiting_or_done(world: World, query: str, task: asyncio.Task[None]) -> bool:
    return task.done() or bool(await rows(world, "broker", query))


async def test_everyone_of_a_long_list_is_found_once(world: World) -> None:
    people, age = 1500, an_age()
    await crowd(world, age, people)
    marketer = await world.marketer()
    name = await ask(marketer, age)

    async def all_asked() -> bool:
        return [OFFERED] * people == await states(world, name)

    await until(all_asked, seconds=60)
    offers = "SELECT count(DISTINCT customer) AS customers, count(*) AS made FROM consents WHERE exchange = $1"
    (found,) = await rows(world, "consent", offers, name)
    assert (people, people) == (found["customers"], found["made"])
