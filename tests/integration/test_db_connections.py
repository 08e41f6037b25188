"""Connections at hand: used again without asking the pool, unless something speaks against it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from parley_db import connections as module
from parley_db.connections import Connections
from tests.support.databases import FreshDatabase
from tests.support.waiting import until

SOON = 2.0


@pytest.fixture
def asked() -> list[Any]:
    """The pool was asked for as many as there are."""
    return []


@pytest.fixture
async def two(fresh_database: FreshDatabase, asked: list[Any]) -> AsyncIterator[Connections]:
    async def note(connection: Any) -> None:
        asked.append(connection)

    dsn = await fresh_database("test")
    connections = Connections(await asyncpg.create_pool(dsn, min_size=0, max_size=2, setup=note), SOON)
    yield connections
    async with asyncio.timeout(SOON):
        await connections.close()


async def used(connections: Connections, *, is_good: bool = True) -> int:
    """Use a connection; answers which: its process in the server."""
    connection = await connections.take()
    pid = connection.get_server_pid()
    await connections.give_back(connection, is_good=is_good)
    return int(pid)


async def test_what_was_used_to_a_good_end_is_used_again_at_once(two: Connections, asked: list[Any]) -> None:
    assert 1 == len({await used(two) for _ in range(3)})
    assert 1 == len(asked)


async def test_what_can_not_be_cleaned_up_is_ended_and_nobody_is_told(
    two: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = await two.take()

    async def silent(_connection: Any, **_options: Any) -> None:
        raise TimeoutError

    monkeypatch.setattr(two, "_pool", _Silent(two._pool, silent))
    await two.give_back(connection, is_good=False)
    assert module.is_lost(connection)


class _Silent:
    def __init__(self, pool: Any, release: Any) -> None:
        self._pool, self.release = pool, release

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)


async def test_nobody_waits_long_for_what_takes_long_to_clean_up_and_it_is_cleaned_up(
    two: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection, pool, go = await two.take(), two._pool, asyncio.Event()
    pid = connection.get_server_pid()

    async def slow(connection: Any, **options: Any) -> None:
        await go.wait()
        await pool.release(connection, **options)

    monkeypatch.setattr(two, "_pool", _Silent(pool, slow))
    async with asyncio.timeout(SOON):
        await two.give_back(connection, is_good=False)
    assert not pool.get_idle_size()
    go.set()
    await until(lambda: _is_idle(pool))
    assert pid == await used(two)


async def _is_idle(pool: Any) -> bool:
    return bool(pool.get_idle_size())


async def test_what_something_was_raised_on_goes_back_to_the_pool(two: Connections, asked: list[Any]) -> None:
    for _ in range(3):
        await used(two, is_good=False)

    assert 3 == len(asked)


async def test_what_is_in_a_transaction_goes_back_to_the_pool(two: Connections, asked: list[Any]) -> None:
    connection = await two.take()
    transaction = connection.transaction()
    await transaction.start()
    transaction._managed = True  # or asyncpg complains of it, as it should
    await two.give_back(connection, is_good=True)

    again = await two.take()

    assert not again.is_in_transaction()
    assert 2 == len(asked)
    await two.give_back(again, is_good=True)


async def test_whoever_waits_at_a_full_pool_has_the_next_one(two: Connections) -> None:
    one, other = await two.take(), await two.take()
    waiting = asyncio.create_task(two.take())
    await asyncio.sleep(0.01)

    await two.give_back(one, is_good=True)

    third = await waiting
    for connection in (other, third):
        await two.give_back(connection, is_good=True)


async def test_one_that_the_server_closed_is_not_used_again(two: Connections) -> None:
    pid = await used(two)
    connection, _ = two._at_hand[0]
    other = await two._pool.acquire()
    await other.execute("SELECT pg_terminate_backend($1)", pid)
    await two._pool.release(other)

    async def is_closed() -> bool:
        return module.is_lost(connection)

    await until(is_closed)
    assert pid != await used(two)
    assert 0 == two.lent


async def test_one_that_nobody_needed_for_long_is_ended(two: Connections, monkeypatch: pytest.MonkeyPatch) -> None:
    pid = await used(two)
    monkeypatch.setattr(module, "_IDLE_S", 0.0)

    assert pid != await used(two)


async def test_one_that_others_are_taken_before_is_ended_once_it_is_old(
    two: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = await two.take(), await two.take()
    await two.give_back(one, is_good=True)
    await two.give_back(other, is_good=True)
    (first, since), second = two._at_hand
    two._at_hand[0] = (first, since - module._IDLE_S)

    await used(two)

    assert [second[0]] == [connection for connection, _ in two._at_hand]
    assert module.is_lost(first)


async def test_pool_sees_each_that_is_used_for_long(
    two: Connections, asked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_SEEN_BY_POOL", 5)
    for _ in range(11):
        await used(two)

    assert 3 == len(asked)


async def test_only_a_few_stay_at_hand(fresh_database: FreshDatabase) -> None:
    pool = await asyncpg.create_pool(await fresh_database("test"), min_size=0, max_size=6)
    connections = Connections(pool, SOON)
    for lent in [await connections.take() for _ in range(6)]:
        await connections.give_back(lent, is_good=True)

    assert 4 == len(connections._at_hand)
    assert 2 == pool.get_idle_size()
    await connections.close()


async def test_what_is_lent_is_counted_whatever_becomes_of_it(two: Connections) -> None:
    one, other = await two.take(), await two.take()
    assert 2 == two.lent
    module.drop(one)
    await two.give_back(one, is_good=True)
    assert 1 == two.lent
    await two.give_back(other, is_good=False)
    assert 0 == two.lent


async def test_closing_waits_for_nobody_where_nothing_is_lent(fresh_database: FreshDatabase) -> None:
    connections = Connections(await asyncpg.create_pool(await fresh_database("test"), min_size=0, max_size=2), SOON)
    await used(connections)

    async with asyncio.timeout(SOON):
        await connections.close()
    assert connections.is_closing()


async def test_what_is_given_back_while_all_are_closed_is_closed(fresh_database: FreshDatabase) -> None:
    connections = Connections(await asyncpg.create_pool(await fresh_database("test"), min_size=0, max_size=2), SOON)
    lent = await connections.take()
    closing = asyncio.create_task(connections.close())
    await asyncio.sleep(0.01)

    await connections.give_back(lent, is_good=True)

    async with asyncio.timeout(SOON):
        await closing


async def test_whoever_does_not_wait_for_the_end_closes_all_at_once(fresh_database: FreshDatabase) -> None:
    connections = Connections(await asyncpg.create_pool(await fresh_database("test"), min_size=0, max_size=2), SOON)
    lent = await connections.take()
    await used(connections)
    closing = asyncio.create_task(connections.close())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait([closing])

    assert connections.is_closing()
    assert module.is_lost(lent)
    await connections.give_back(lent, is_good=True)
