"""Connections at hand: used again without asking the pool, unless something speaks against it."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from parley_db import connections as module
from parley_db.connections import Connections
from tests.support.servers import FreshDatabase
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
    assert 0 == two.used()


async def test_one_that_nobody_needed_for_long_is_not_used_again(
    two: Connections, asked: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    await used(two)
    monkeypatch.setattr(module, "_IDLE_S", 0.0)
    await used(two)

    assert 2 == len(asked)


async def test_what_is_at_hand_is_not_in_use(two: Connections) -> None:
    connection = await two.take()
    assert 1 == two.used()
    await two.give_back(connection, is_good=True)
    assert 0 == two.used()


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
