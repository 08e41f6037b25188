"""Turns: no marketer's campaign keeps another's waiting, however large it is, and however far ahead of its feed."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import fields, replace
from datetime import timedelta
from functools import partial

import pytest

from parley_broker.bell import Turns
from parley_broker.domain.states import Participant
from parley_broker.matching import Matching
from parley_broker.releasing import Releasing
from parley_broker.store import LEASE, ExchangeRecord, ParticipantRecord, Store
from parley_db.database import Database
from parley_db.migrate import migrate
from parley_db.queries import load
from parley_kit.clock import SystemClock
from parley_kit.faults import Conflict, DeadlineTooShort
from tests.support.broker import work
from tests.support.databases import FreshDatabase
from tests.support.waiting import until
from tests.support.world import World

SQL = load("parley_broker")
MANY = 2000
"""Customers of a campaign."""
EXCHANGE = """
INSERT INTO exchanges (marketer, exchange_id, terms, audience, offer_text, decision_deadline, created_at, matched)
VALUES ($1, $2, '', '', '', now() + interval '1 h', now(), $3)
"""
MANY_ALIKE = """
INSERT INTO exchanges (marketer, exchange_id, terms, audience, offer_text, decision_deadline, created_at, matched)
SELECT marketer, 'x' || n, terms, audience, offer_text, decision_deadline, created_at, matched
FROM exchanges, generate_series(1, $2::int) AS n WHERE marketer = $1
"""
INTRODUCTIONS = """
INSERT INTO introductions (marketer, pseudonym, consent_ref, vault_ref, audit_ref, identity_ref)
SELECT $1, 'p' || n, '', '', '', '' FROM generate_series(1, $2::int) AS n
"""
PARTICIPANTS = """
INSERT INTO participants (marketer, exchange_id, pseudonym, state, leased_until)
SELECT marketer, 'exchange', pseudonym, 1, clock_timestamp() + $2::interval FROM introductions WHERE marketer = $1
"""
LIKE_IT = """
WITH more AS (
    INSERT INTO exchanges (marketer, exchange_id, terms, audience, offer_text, decision_deadline, created_at, matched)
    SELECT marketer, 'exchange' || n, terms, audience, offer_text, decision_deadline, created_at, matched
    FROM exchanges CROSS JOIN generate_series(1, $1::int) AS n
    RETURNING marketer, exchange_id
)
INSERT INTO participants (marketer, exchange_id, pseudonym, state, leased_until)
SELECT marketer, exchange_id, pseudonym, 1, clock_timestamp() FROM more JOIN introductions USING (marketer)
"""
"""Many more exchanges like the one there is, each with one customer who waits."""
LEASES = "SELECT pseudonym, state, leased_until FROM participants ORDER BY pseudonym"
LATER = "UPDATE participants SET leased_until = leased_until - $1::interval"
"""What time does."""
READ = (
    "SELECT sum(pg_stat_get_xact_tuples_returned(oid))::int FROM pg_class WHERE relname ~ '^(participants|exchanges)'"
)
"""Rows of the tables that were read, and entries of its indexes."""


@pytest.fixture
async def store(fresh_database: FreshDatabase) -> AsyncIterator[Store]:
    """A broker's database of its own, in which nobody works."""
    dsn = await fresh_database("broker", partial(migrate, package="parley_broker"))
    async with Database.open(dsn, application_name="test", max_size=1) as db:
        yield Store(db, SystemClock())


async def campaign(store: Store, marketer: str, customers: int, leased: timedelta = timedelta()) -> None:
    """A campaign whose customers are found, and wait to be decided, or are in hand for a while."""
    await store.db.execute(EXCHANGE, marketer, "exchange", True)
    await store.db.execute(INTRODUCTIONS, marketer, customers)
    await store.db.execute(PARTICIPANTS, marketer, leased)


def releasing(world: World, store: Store) -> Releasing:
    return replace(work(world).releasing, store=store, turns=Turns())


async def turn(worker: Releasing) -> str:
    """Whose turn it is: the marketer, and nobody where there is nothing to do."""
    taken = await worker.take()
    assert 1 >= len({one.marketer for one in taken})
    return taken[0].marketer if taken else ""


async def test_small_campaign_that_comes_after_a_large_one_has_its_turn_next(world: World, store: Store) -> None:
    worker = releasing(world, store)
    await campaign(store, "large", MANY)
    assert ["large", "large"] == [await turn(worker) for _ in range(2)]
    await campaign(store, "small", 1)
    await campaign(store, "another", 1)
    # In turns, until those that have nothing left are passed over; whoever comes later is next.
    assert ["small", "another", "large", "large"] == [await turn(worker) for _ in range(4)]


async def test_where_nothing_is_to_be_done_nobody_has_a_turn_until_there_is(world: World, store: Store) -> None:
    worker = releasing(world, store)
    assert "" == await turn(worker)
    await campaign(store, "one", 1)
    assert ["one", "", ""] == [await turn(worker) for _ in range(3)]
    await campaign(store, "a", 1)
    assert "a" == await turn(worker)


@pytest.mark.parametrize("held", ["their feeds are full", "they are in hand"])
async def test_those_who_have_to_wait_are_passed_over_at_no_cost(store: Store, held: str) -> None:
    waiting = [f"large{number}" for number in range(3)]
    for marketer in waiting:
        await campaign(store, marketer, MANY, LEASE if "hand" in held else timedelta())
    await campaign(store, "small", 1)
    await store.db.execute("ANALYZE")
    async with store.db.tx("test.turn") as tx:
        before = await tx.fetchval(READ)
        taken = await tx.fetch(SQL.participants_lease, 100, LEASE, waiting if "full" in held else [], "")
        read = await tx.fetchval(READ) - before
    assert ["small"] == [row["marketer"] for row in taken]
    assert 40 > read, read


@pytest.mark.parametrize("exchanges", [1, MANY], ids=["one campaign", "as many exchanges"])
@pytest.mark.parametrize("seen", ["empty", "full"])
async def test_taking_a_hundred_reads_a_hundred_however_many_wait(store: Store, seen: str, exchanges: int) -> None:
    if seen == "empty":
        await store.db.execute("VACUUM ANALYZE")
    if exchanges == 1:
        await campaign(store, "large", 25 * MANY)
    else:
        await store.db.execute(EXCHANGE, "large", "exchange", True)
        await store.db.execute(INTRODUCTIONS, "large", 1)
        await store.db.execute(LIKE_IT, MANY)
    await campaign(store, "zealous", MANY)
    if seen == "full":
        await store.db.execute("ANALYZE")
    async with store.db.tx("test.turn") as tx:
        before = await tx.fetchval(READ)
        taken = await tx.fetch(SQL.participants_lease, 100, LEASE, [], "")
        read = await tx.fetchval(READ) - before
    assert 100 == len(taken)
    assert 100 * 3 > read, read


@pytest.mark.parametrize("error", [RuntimeError("a defect"), Conflict()])
async def test_exchange_that_fails_keeps_no_other_of_its_marketer_waiting(
    world: World, store: Store, error: Exception
) -> None:
    carried = []

    class Failing(Releasing):
        async def carry(self, exchange: ExchangeRecord, participants: Sequence[ParticipantRecord]) -> None:
            carried.append((exchange.exchange_id, len(participants)))
            if len(carried) == 1:
                raise error

    await campaign(store, "one", 1)
    await store.db.execute(LIKE_IT, 2)
    worker = Failing(**{each.name: getattr(releasing(world, store), each.name) for each in fields(Releasing)})
    with contextlib.suppress(RuntimeError):
        assert await worker.turn()
    assert [("exchange", 1), ("exchange1", 1), ("exchange2", 1)] == sorted(carried)


async def test_exchange_that_is_too_slow_every_time_keeps_no_other_of_its_marketer_waiting(
    world: World, store: Store
) -> None:
    carried = []

    class Slow(Releasing):
        async def carry(self, exchange: ExchangeRecord, participants: Sequence[ParticipantRecord]) -> None:
            carried.append((exchange.exchange_id, len(participants)))
            if "exchange" == exchange.exchange_id:
                raise DeadlineTooShort

    await campaign(store, "one", 1)
    await store.db.execute(LIKE_IT, 2)
    parts = {each.name: getattr(releasing(world, store), each.name) for each in fields(Releasing)}
    assert await Slow(**parts).turn()
    assert [("exchange", 1), ("exchange1", 1), ("exchange2", 1)] == sorted(carried)


async def test_nobody_else_takes_what_is_in_hand_however_long_the_turn(world: World, store: Store) -> None:
    other, carried = releasing(world, store), list[tuple[str, int]]()

    class Slow(Releasing):
        async def carry(self, exchange: ExchangeRecord, participants: Sequence[ParticipantRecord]) -> None:
            carried.append((exchange.exchange_id, len(participants)))
            taken = await store.db.fetch(LEASES)
            await until(lambda: _differs(store, taken))
            await store.db.execute(LATER, LEASE * 0.6)  # by when the first lease would be over
            assert [] == await other.take()
            raise DeadlineTooShort

    await campaign(store, "one", 2)
    parts = {each.name: getattr(releasing(world, store), each.name) for each in fields(Releasing)}
    assert await Slow(**parts).turn()
    assert [("exchange", 2)] == carried
    await store.db.execute(LATER, LEASE)
    assert 2 == len(await other.take())  # what failed comes again


async def _differs(store: Store, leases: Sequence[object]) -> bool:
    return leases != await store.db.fetch(LEASES)


async def test_defect_in_keeping_what_is_in_hand_is_the_turns(
    world: World, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = asyncio.Event()

    async def fail(_store: Store, _leased: Sequence[ParticipantRecord]) -> None:
        failed.set()
        raise RuntimeError("a defect")

    class Slow(Releasing):
        async def carry(self, exchange: ExchangeRecord, participants: Sequence[ParticipantRecord]) -> None:  # noqa: ARG002 - overridden
            async with asyncio.timeout(15):
                await failed.wait()

    monkeypatch.setattr("parley_broker.releasing.LEASE", timedelta())
    monkeypatch.setattr(Store, "keep", fail)
    await campaign(store, "one", 1)
    parts = {each.name: getattr(releasing(world, store), each.name) for each in fields(Releasing)}
    with pytest.raises(RuntimeError, match="a defect"):
        await Slow(**parts).turn()


async def test_who_was_moved_or_put_off_meanwhile_is_kept_by_no_turn(world: World, store: Store) -> None:
    worker = releasing(world, store)
    await campaign(store, "one", 3)
    exchange = await store.exchange(store.db, "one", "exchange")
    assert exchange
    taken = await worker.take()
    await store.postpone(exchange, ["p1"], 6 * LEASE)
    await store.decided(exchange, {"p2": Participant.OFFERED})
    await store.db.execute("UPDATE participants SET state = 3, leased_until = '-infinity' WHERE pseudonym = 'p3'")
    before = await store.db.fetch(LEASES)
    await store.keep(taken)
    assert before == await store.db.fetch(LEASES)
    assert ["p3"] == [one.pseudonym for one in await worker.take()]


def matching(world: World, store: Store) -> Matching:
    return replace(work(world).matching, store=store, turns=Turns())


async def found(worker: Matching, store: Store) -> str:
    """For whom a page is found next: the marketer's and the exchange's names."""
    leased = await worker.take()
    assert leased
    async with store.db.tx("test.matched") as tx:
        await store.advance(tx, leased[0], "more")
    return f"{leased[0].marketer}/{leased[0].exchange_id}"


async def test_audiences_of_one_marketer_are_found_a_page_each(world: World, store: Store) -> None:
    worker = matching(world, store)
    for name in ("one", "another", "third"):
        await store.db.execute(EXCHANGE, "m", name, False)
    pages = []
    for _ in range(9):
        pages.append(await found(worker, store))
        await store.db.execute("VACUUM exchanges")  # rows equally old come in the order of the places they were given
    assert pages[:3] == pages[3:6] == pages[6:]
    assert {"m/one", "m/another", "m/third"} == set(pages[:3])


async def test_marketer_with_many_audiences_keeps_no_other_waiting(world: World, store: Store) -> None:
    worker = matching(world, store)
    for number in range(20):
        await store.db.execute(EXCHANGE, "greedy", str(number), False)
    await found(worker, store)
    for marketer in ("a", "small"):
        await store.db.execute(EXCHANGE, marketer, "exchange", False)
    turns = [(await found(worker, store)).partition("/")[0] for _ in range(6)]
    assert ["small", "a", "greedy"] * 2 == turns


@pytest.mark.parametrize("seen", ["empty", "full"])
async def test_taking_an_audience_reads_no_more_however_many_wait(store: Store, seen: str) -> None:
    if seen == "empty":
        await store.db.execute("VACUUM ANALYZE")
    for marketer in ("a", "b", "c"):
        await store.db.execute(EXCHANGE, marketer, "exchange", False)
        await store.db.execute(MANY_ALIKE, marketer, MANY)
    if seen == "full":
        await store.db.execute("ANALYZE")
    async with store.db.tx("test.turn") as tx:
        before = await tx.fetchval(READ)
        assert ["b"] == [row["marketer"] for row in await tx.fetch(SQL.exchange_lease, LEASE, "a")]
        read = await tx.fetchval(READ) - before
    assert 30 > read, read
