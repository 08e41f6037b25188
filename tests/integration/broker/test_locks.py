"""Statements that wait for one another's rows see what was done there meanwhile, and let others by."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from parley.broker.v1 import broker_pb2 as brokerpb
from parley_db.queries import load
from tests.integration.broker.test_exchanges import known
from tests.support.broker import FINALIZED, a_willing, an_age, ask, id_of, releases, settlements, states, work
from tests.support.chaos import rows
from tests.support.dumps import database_url
from tests.support.waiting import until
from tests.support.world import Marketer, World, terms, to_known

SQL = load("parley_broker")
WAITING = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


@asynccontextmanager
async def transaction(world: World, service: str = "broker") -> AsyncIterator[Any]:
    """A transaction of somebody else's, which commits when the block ends."""
    connection = await asyncpg.connect(database_url(world, service))
    try:
        async with connection.transaction():
            yield connection
    finally:
        await connection.close()


def city_of(pseudonym: str) -> brokerpb.CreateExchangeRequest:
    return to_known(terms("profile.city", valid_for=timedelta(days=20)), pseudonym, in_answer=True)


async def a_customer_and_their_marketer(world: World) -> tuple[Marketer, str]:
    age = an_age()
    await a_willing(world, age)
    return await known(world, age)


async def waits(world: World, service: str = "broker") -> bool:
    return bool(await rows(world, service, WAITING))


async def test_release_that_is_acknowledged_while_it_gets_its_place_is_off_the_feed(world: World) -> None:
    marketer, pseudonym = await a_customer_and_their_marketer(world)
    answer = await marketer.ask(city_of(pseudonym))
    release = [marketer.name], [id_of(answer.exchange.name)], [pseudonym], [answer.delivery.release.release_id]
    async with transaction(world) as placing:
        assert 1 == len(await placing.fetch(SQL.participants_finish, *release, datetime.now(UTC)))
        acknowledging = asyncio.create_task(marketer.acknowledge(answer.delivery))
        await until(lambda: waits(world))
    await acknowledging
    assert [] == await releases(marketer, 1.0)
    assert [] == await rows(world, "broker", "SELECT FROM deliveries WHERE marketer = $1", marketer.name)
    assert 1 == await settlements(world, answer.exchange.name)


async def test_release_that_is_acknowledged_while_it_is_to_be_made_again_stays_finished(world: World) -> None:
    age = an_age()
    await a_willing(world, age)
    marketer = await world.marketer()
    name = await ask(marketer, age)
    (delivery,) = await marketer.collect(1)
    ids, pseudonyms = [id_of(name)], [delivery.release.pseudonym]
    async with transaction(world) as acknowledging:
        event = uuid4()
        told = [delivery.release.release_id], [b""], event, b"", "parley.broker.v1.Unread"
        await acknowledging.execute(SQL.releases_acknowledge, [marketer.name], ids, pseudonyms, *told)
        await acknowledging.execute("DELETE FROM outbox WHERE event_id = $1", event)
        reopening = asyncio.create_task(work(world).store.reopen(marketer.name, [(ids[0], pseudonyms[0])]))
        await until(lambda: waits(world))
    await reopening
    assert [FINALIZED] == await states(world, name)


@pytest.mark.parametrize("writing", ["participants_finish", "releases_acknowledge"])
async def test_writers_lock_participants_in_one_order_whatever_theirs(world: World, writing: str) -> None:
    age = an_age()
    await a_willing(world, age)
    await a_willing(world, age)
    marketer = await world.marketer()
    name = await ask(marketer, age)
    await marketer.collect(2)
    undone = "UPDATE participants SET state = 1, leased_until = 'infinity' WHERE exchange_id = $1 RETURNING pseudonym"
    found = await rows(world, "broker", undone, id_of(name))
    first, last = sorted(row["pseudonym"] for row in found)
    theirs = [marketer.name] * 2, [id_of(name)] * 2, [last, first], ["", ""]
    rest = {
        "participants_finish": (datetime.now(UTC),),
        "releases_acknowledge": ([b"", b""], uuid4(), b"", "parley.broker.v1.Unread"),
    }
    lock = "SELECT FROM participants WHERE marketer = $1 AND pseudonym = $2 FOR UPDATE NOWAIT"
    async with transaction(world) as holding, asyncpg.create_pool(database_url(world, "broker"), min_size=0) as pool:
        await holding.execute(lock, marketer.name, first)
        writer = asyncio.create_task(pool.execute(getattr(SQL, writing), *theirs, *rest[writing]))
        await until(lambda: waits(world))
        await pool.execute(lock, marketer.name, last)  # raises if the writer has it already
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)


async def test_release_that_was_finished_keeps_its_place_whoever_says_later_afterwards(world: World) -> None:
    age = an_age()
    await a_willing(world, age)
    marketer = await world.marketer()
    name = await ask(marketer, age)
    (delivery,) = await marketer.collect(1)
    store = work(world).store
    exchange = await store.exchange(store.db, marketer.name, id_of(name))
    assert exchange is not None
    await store.postpone(exchange, [delivery.release.pseudonym], timedelta(seconds=30))
    assert [delivery.name] == [again.name for again in await marketer.collect(1)]


async def test_release_that_loses_its_place_while_it_is_finished_gets_another(world: World) -> None:
    marketer, pseudonym = await a_customer_and_their_marketer(world)
    name = (await marketer.ask(to_known(terms("profile.city", valid_for=timedelta(days=20)), pseudonym))).exchange.name
    (delivery,) = await marketer.collect(1)
    release = [marketer.name], [id_of(name)], [pseudonym], [delivery.release.release_id]
    await work(world).store.reopen(marketer.name, [(id_of(name), pseudonym)])
    async with transaction(world) as pausing:  # another carrier of it, to whom it was said that its customer paused
        await pausing.fetch(SQL.participants_postpone, marketer.name, id_of(name), [pseudonym], timedelta(0))
        finishing = asyncio.create_task(rows(world, "broker", SQL.participants_finish, *release, datetime.now(UTC)))
        await until(lambda: waits(world))
        await pausing.execute(SQL.deliveries_void, marketer.name, id_of(name), [pseudonym])
    await finishing
    assert [FINALIZED] == await states(world, name)
    assert [delivery.name] == [one.name for one in await marketer.collect(1)]


async def test_customer_who_stays_locked_holds_nobody_else_up(world: World) -> None:
    locked, one = await a_customer_and_their_marketer(world)
    free, other = await a_customer_and_their_marketer(world)
    (row,) = await rows(world, "consent", "SELECT customer FROM consents WHERE pseudonym = $1", one)
    async with transaction(world, "consent") as frozen:
        await frozen.execute("SELECT FROM customers WHERE customer = $1 FOR UPDATE", row["customer"])
        stuck = [asyncio.create_task(locked.ask(city_of(one))) for _ in range(2)]
        await until(lambda: waits(world, "consent"))
        async with asyncio.timeout(5):
            assert (await free.ask(city_of(other))).HasField("delivery")
        assert [False, False] == [(await task).HasField("delivery") for task in stuck]
    assert 2 == len(await locked.collect(2))
