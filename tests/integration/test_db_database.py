import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from parley_db import database
from parley_db.connections import LONGEST_CLOSE
from parley_db.database import LONGEST_ACQUIRE, TRIES, Database, Tx
from parley_kit.faultpoints import armed
from parley_kit.faults import Conflict, Unavailable
from parley_node.embedded.pair import servers
from tests.support.crashes import kill_listener
from tests.support.databases import FreshDatabase
from tests.support.servers import scratch_directory
from tests.support.waiting import until

COLLISION = "DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '40001'; END $$"
# Runs at COMMIT, and makes it last.
SLOW_COMMIT = """
CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.3); RETURN NULL; END $$;
CREATE CONSTRAINT TRIGGER linger AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION linger();
"""


@pytest.fixture
async def dsn(fresh_database: FreshDatabase) -> str:
    return await fresh_database("consent")


@pytest.fixture
async def db(dsn: str) -> AsyncIterator[Database]:
    async with Database.open(dsn, application_name="test") as database:
        await database.execute("CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL DEFAULT 0)")
        yield database


async def rows(db: Database) -> list[int]:
    return [row["id"] for row in await db.fetch("SELECT id FROM t ORDER BY id")]


async def test_a_transaction_commits_as_a_whole(db: Database) -> None:
    async with db.tx("test.write") as tx:
        await tx.execute("INSERT INTO t VALUES (1)")
        assert await rows(db) == []
        await tx.execute("INSERT INTO t VALUES (2)")
    assert await rows(db) == [1, 2]


async def test_an_error_undoes_a_transaction_and_passes(db: Database) -> None:
    async def body(tx: Tx) -> None:
        await tx.execute("INSERT INTO t VALUES (1)")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await db.run("test.write", body)
    assert await rows(db) == []


async def test_transactions_read_what_others_commit_meanwhile(db: Database) -> None:
    async with db.tx("test.read") as tx:
        assert await tx.fetchval("SELECT count(*) FROM t") == 0
        await db.execute("INSERT INTO t VALUES (1)")
        assert await tx.fetchval("SELECT count(*) FROM t") == 1


async def test_a_caller_s_mistakes_are_not_disguised(db: Database) -> None:
    await db.execute("INSERT INTO t VALUES (1)")
    with pytest.raises(asyncpg.UniqueViolationError):
        await db.execute("INSERT INTO t VALUES (1)")
    with pytest.raises(asyncpg.InterfaceError, match="expects 1 argument"):
        await db.fetch("INSERT INTO t VALUES ($1)")


async def test_a_deadlock_is_retried_until_both_have_committed(db: Database) -> None:
    await db.execute("INSERT INTO t VALUES (1), (2)")
    both_hold_one = asyncio.Barrier(2)
    runs: list[int] = []

    async def raise_both(first: int, second: int) -> None:
        async def body(tx: Tx) -> None:
            runs.append(first)
            await tx.execute("UPDATE t SET n = n + 1 WHERE id = $1", first)
            if len(runs) <= 2:
                await both_hold_one.wait()
            await tx.execute("UPDATE t SET n = n + 1 WHERE id = $1", second)

        await db.run("test.raise", body)

    await asyncio.gather(raise_both(1, 2), raise_both(2, 1))
    assert len(runs) == 3
    assert await db.fetchval("SELECT sum(n) FROM t") == 4


async def test_collisions_without_end_become_a_conflict_after_five_tries(db: Database) -> None:
    runs = []

    async def body(tx: Tx) -> None:
        runs.append(await tx.fetchval("SELECT 1"))
        await tx.execute(COLLISION)

    with pytest.raises(Conflict):
        await db.run("test.collide", body)
    assert len(runs) == TRIES
    with pytest.raises(Conflict):
        await db.execute(COLLISION)
    with pytest.raises(Conflict):
        async with db.tx("test.collide") as tx:
            await tx.execute(COLLISION)


async def test_nobody_waits_longer_for_a_connection_than_two_seconds(dsn: str) -> None:
    async with Database.open(dsn, application_name="test", max_size=1) as db, db.tx("test.hold"):
        started = time.monotonic()
        with pytest.raises(Unavailable) as refusal:
            await db.fetchval("SELECT 1")
        assert time.monotonic() - started < LONGEST_ACQUIRE + 0.5
        assert refusal.value.retry_after == 0.2


async def _is_committing(db: Database) -> Any:
    return await db.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query = 'COMMIT;' "
        "AND wait_event = 'PgSleep'"
    )


async def test_a_caller_cancelled_at_commit_hears_so_only_once_it_is_decided(
    db: Database, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "PATIENCE_S", 60.0)  # a busy machine is no silent server
    await db.execute(SLOW_COMMIT)
    async with Database.open(dsn, application_name="test", max_size=1) as one:

        async def body(tx: Tx) -> None:
            await tx.execute("INSERT INTO t VALUES (1)")

        task = asyncio.create_task(one.run("test.write", body))
        await until(lambda: _is_committing(db))
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await rows(db) == [1]
        assert await one.fetchval("SELECT pg_current_xact_id_if_assigned() IS NULL") is True


async def test_a_caller_cancelled_before_commit_leaves_nothing(db: Database) -> None:
    async def stop() -> None:
        raise asyncio.CancelledError

    with armed("test.write.before_commit", stop), pytest.raises(asyncio.CancelledError):
        async with db.tx("test.write") as tx:
            await tx.execute("INSERT INTO t VALUES (1)")
    assert await rows(db) == []


async def test_cancelling_at_random_points_never_spoils_a_connection(dsn: str, db: Database) -> None:
    async with Database.open(dsn, application_name="test", max_size=2) as two:

        async def body(tx: Tx) -> None:
            await tx.execute("UPDATE t SET n = n + 1")
            await tx.fetchval("SELECT pg_sleep(0.001)")

        for delay in range(200):
            task = asyncio.create_task(two.run("test.write", body))
            await asyncio.sleep(delay * 0.00003)
            task.cancel()
            await asyncio.wait([task])
        async with two.tx("test.first") as first, two.tx("test.second") as second:
            assert await first.fetchval("SELECT 1") + await second.fetchval("SELECT 2") == 3


async def test_whoever_goes_away_while_a_transaction_begins_costs_no_connection(dsn: str) -> None:
    async with Database.open(dsn, application_name="test", max_size=1) as one:

        async def body(tx: Tx) -> int:
            return int(await tx.fetchval("SELECT pg_backend_pid()"))

        pid = await one.run("test.read", body)
        for steps in range(12):
            task = asyncio.create_task(one.run("test.read", body))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            assert pid == await one.run("test.read", body)


async def test_whoever_holds_on_to_a_transaction_is_not_in_the_next(db: Database) -> None:
    async with db.tx("test.first") as first:
        pass
    async with db.tx("test.second"):
        with pytest.raises(asyncpg.InterfaceError):
            await first.execute("INSERT INTO t VALUES (1)")
    assert await rows(db) == []


async def test_a_cancelled_loop_ends_wherever_it_is(db: Database) -> None:
    async def ask_for_ever() -> None:
        while True:
            await db.fetchval("SELECT 1")

    await db.ping()
    for steps in range(20):
        task = asyncio.create_task(ask_for_ever())
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        _done, going_on = await asyncio.wait([task], timeout=2)
        assert not going_on


async def test_a_lost_connection_is_unavailable_and_the_next_call_has_a_new_one(db: Database, dsn: str) -> None:
    async with Database.open(dsn, application_name="victim", max_size=1) as one:

        async def body(tx: Tx) -> None:
            await db.execute("SELECT pg_terminate_backend($1)", await tx.fetchval("SELECT pg_backend_pid()"))
            await tx.fetchval("SELECT pg_sleep(5)")

        with pytest.raises(Unavailable) as refusal:
            await one.run("test.lose", body)
        assert refusal.value.retry_after == 0.2
        assert await one.fetchval("SELECT 1") == 1


async def test_a_transaction_whose_machine_is_gone_lets_go_of_its_locks_and_whoever_comes_back_hears_so(
    db: Database, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await db.execute("INSERT INTO t VALUES (1)")
    monkeypatch.setattr(database, "LONGEST_SILENCE", 0.2)

    async def vanish(tx: Tx) -> None:
        await tx.execute("UPDATE t SET n = 1")
        async with asyncio.timeout(10):
            await db.execute("UPDATE t SET n = 2")
        await tx.execute("UPDATE t SET n = 3")

    async with Database.open(dsn, application_name="gone") as gone:
        with pytest.raises(Unavailable):
            await gone.run("test.gone", vanish)
        assert 2 == await gone.fetchval("SELECT n FROM t")


async def test_postgres_is_told_to_look_whether_a_silent_machine_is_still_there(db: Database) -> None:
    """Over a socket of one machine they mean nothing, and read as 0: what was asked for is where RESET goes back to."""
    asked = await db.fetch(
        "SELECT reset_val::int AS seconds FROM pg_settings WHERE name LIKE 'tcp_keepalives_%' ORDER BY name"
    )
    count, idle, interval = (row["seconds"] for row in asked)
    assert 0 < idle + count * interval <= 30


async def test_a_killed_postgres_is_unavailable_and_then_back_without_a_new_pool() -> None:
    with scratch_directory() as scratch:
        async with (
            servers(scratch / "data") as own,
            Database.open(own.admin_dsn, application_name="test", max_size=4) as db,
        ):
            await asyncio.gather(*(db.fetchval("SELECT pg_sleep(0.05)") for _ in range(4)))
            first_start = await db.fetchval("SELECT pg_postmaster_start_time()")
            busy = [asyncio.create_task(db.execute("SELECT pg_sleep(20)")) for _ in range(2)]
            await until(lambda: db.fetchval("SELECT count(*) > 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"))
            kill_listener(own.where.postgres_sockets / ".s.PGSQL.5432")
            errors = await asyncio.gather(*busy, return_exceptions=True)
            assert [type(error) for error in errors] == [Unavailable] * 2

            async def is_back() -> bool:
                # A connection of the killed server may answer once more: its process has yet to see that it is alone.
                try:
                    return bool(await db.fetchval("SELECT pg_postmaster_start_time()") > first_start)
                except Unavailable:
                    return False

            await until(is_back)
            assert await asyncio.gather(*(db.fetchval("SELECT 1") for _ in range(8))) == [1] * 8


async def _begins(db: Database, still: Callable[[], None]) -> None:
    still()
    async with db.tx("test.write"):
        raise AssertionError("it began")


async def _asks(db: Database, still: Callable[[], None]) -> None:
    async with db.tx("test.write") as tx:
        still()
        await tx.fetchval("SELECT 1")


async def _fails(db: Database, still: Callable[[], None]) -> None:
    async with db.tx("test.write"):
        still()
        raise ZeroDivisionError


async def _commits(db: Database, still: Callable[[], None]) -> None:
    async with db.tx("test.write") as tx:
        await tx.execute("SELECT 1")
        still()


async def test_whose_time_is_up_does_not_wait_for_a_server_that_stands_still() -> None:
    with scratch_directory() as scratch:
        async with (
            servers(scratch / "data") as own,
            Database.open(own.admin_dsn, application_name="test", max_size=1) as db,
        ):
            took = {step.__name__: await _late(db, step) for step in (_begins, _asks, _fails, _commits)}
            assert max(took.values()) < LONGEST_CLOSE, took  # until a statement is given up it would be 30


async def test_what_is_slow_to_undo_is_undone_before_the_connection_is_anybody_elses(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with scratch_directory() as scratch:
        async with (
            servers(scratch / "data") as own,
            Database.open(own.admin_dsn, application_name="test", max_size=1) as db,
        ):
            session = await db.fetchval("SELECT pg_backend_pid()")
            async with _left_standing_still(db, session):
                next_one = asyncio.create_task(db.fetchval("SELECT pg_backend_pid()"))
                await asyncio.sleep(0.2)
                assert not next_one.done()
            assert session == await next_one
    assert [] == [
        record for record in caplog.records if record.name == "asyncio"
    ]  # asyncpg tells it of what is left open


@asynccontextmanager
async def _left_standing_still(db: Database, session: int) -> AsyncIterator[None]:
    """Somebody goes away in the midst of a statement whose session stands still for the length of a block."""
    begun = asyncio.Event()

    async def caller() -> None:
        async with db.tx("test.write") as tx:
            os.kill(session, signal.SIGSTOP)
            begun.set()
            await tx.fetchval("SELECT 1")

    task = asyncio.create_task(caller())
    try:
        await begun.wait()
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.wait([task], timeout=1)
        assert task.cancelled()
        yield
    finally:
        os.kill(session, signal.SIGCONT)


async def _late(db: Database, step: Callable[[Database, Callable[[], None]], Awaitable[None]]) -> float:
    """Do something for a tenth of a second in a session that stands still; how long it took to end."""
    await until(lambda: _answers(db))
    session = await db.fetchval("SELECT pg_backend_pid()")
    began = time.monotonic()
    try:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await step(db, lambda: os.kill(session, signal.SIGSTOP))
        return time.monotonic() - began
    finally:
        os.kill(session, signal.SIGCONT)


async def _answers(db: Database) -> bool:
    """Whether the session that stood still has made room for another."""
    try:
        return bool(await db.fetchval("SELECT true"))
    except Unavailable:
        return False


async def test_opening_needs_no_server() -> None:
    nowhere = "postgresql://nobody@/none?host=/nonexistent"
    async with Database.open(nowhere, application_name="test") as db:
        with pytest.raises(Unavailable):
            await db.ping()
