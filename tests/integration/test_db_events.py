import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from uuid import uuid4

import pytest

from parley_db import idempotency, inbox, outbox
from parley_db.database import Database, Tx
from parley_db.upkeep import Upkeep
from parley_kit.faultpoints import armed
from parley_kit.faults import Fault, RequestIdReused
from parley_kit.ids import uuid7
from parley_rpc.logs import logger
from tests.support import events
from tests.support.databases import FreshDatabase


@pytest.fixture
async def db(fresh_database: FreshDatabase) -> AsyncIterator[Database]:
    dsn = await fresh_database("consent", events.migrate_shared)
    async with Database.open(dsn, application_name="test") as database:
        yield database


async def test_events_stand_in_the_outbox_in_the_order_given(db: Database) -> None:
    made = [events.event() for _ in range(50)]
    made.reverse()
    async with db.tx("test.write") as tx:
        await outbox.append(tx, made)
        await outbox.append(tx, [])
    rows = await db.fetch("SELECT event_id, type, envelope FROM outbox ORDER BY id")
    assert [(one.event_id, one.type, one.envelope) for one in made] == [tuple(row) for row in rows]


async def test_an_undone_transaction_leaves_no_event(db: Database) -> None:
    async def body(tx: Tx) -> None:
        await outbox.append(tx, [events.event()])
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await db.run("test.write", body)
    assert await events.held(db) == 0


async def test_only_new_events_are_claimed(db: Database) -> None:
    first, second = uuid7(), uuid7()
    async with db.tx("test.claim") as tx:
        assert await inbox.claim(tx, [first, first]) == {first}
    async with db.tx("test.claim") as tx:
        assert await inbox.claim(tx, [second, first]) == {second}
        assert await inbox.claim(tx, []) == set()


async def test_a_claim_waits_for_another_and_takes_what_that_one_gives_up(db: Database) -> None:
    one = uuid7()
    claimed = asyncio.Event()

    async def give_up() -> None:
        async with db.tx("test.claim") as tx:
            await inbox.claim(tx, [one])
            claimed.set()
            await asyncio.sleep(0.05)
            raise ZeroDivisionError

    task = asyncio.create_task(give_up())
    await claimed.wait()
    async with db.tx("test.claim") as tx:
        assert await inbox.claim(tx, [one]) == {one}
    with pytest.raises(ZeroDivisionError):
        await task


async def test_claims_in_opposite_orders_do_not_deadlock(db: Database) -> None:

    async def claim(order: list[object]) -> int:
        async with db.tx("test.claim") as tx:
            return len(await inbox.claim(tx, order))  # type: ignore[arg-type] # UUIDs, in either order

    for _ in range(4):
        fresh: list[object] = [uuid4() for _ in range(5000)]
        assert sum(await asyncio.gather(claim(fresh), claim(fresh[::-1]))) == len(fresh)


async def test_the_inbox_forgets_what_is_old(db: Database) -> None:
    one = uuid7()
    async with db.tx("test.claim") as tx:
        await inbox.claim(tx, [one])
    await inbox.purge(db, timedelta(hours=1))
    assert await db.fetchval("SELECT count(*) FROM inbox") == 1
    await inbox.purge(db, timedelta(0))
    assert await db.fetchval("SELECT count(*) FROM inbox") == 0


async def test_upkeep_forgets_events_that_were_taken_in_more_than_thirty_days_ago(db: Database) -> None:
    await db.execute(
        "INSERT INTO inbox SELECT gen_random_uuid(), now() - day * interval '1 day' FROM generate_series(27, 33) AS day"
    )
    await Upkeep(db, logger("test")).turn()

    kept = await db.fetch("SELECT extract(day FROM now() - received_at)::int AS days FROM inbox ORDER BY 1")
    assert [27, 28, 29] == [row["days"] for row in kept]


class Counter:
    """A mutation that counts its runs where they commit, and in all."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self.runs = 0

    async def body(self, tx: Tx) -> bytes:
        self.runs += 1
        await tx.execute("INSERT INTO effects (seq) VALUES ($1)", self.runs)
        await asyncio.sleep(0.02)
        return b"answer %d" % self.runs

    async def once(
        self, *, caller: str = "a", method: str = "m", request_id: str = "r", fingerprint: bytes = b"f"
    ) -> bytes:
        return await idempotency.once(
            self._db,
            caller=caller,
            method=method,
            request_id=request_id,
            fingerprint=fingerprint,
            body=self.body,
            name="test.once",
        )


async def test_five_at_once_with_one_request_id_have_one_effect_and_one_answer(db: Database) -> None:
    counter = Counter(db)
    assert await asyncio.gather(*(counter.once() for _ in range(5))) == [b"answer 1"] * 5
    assert counter.runs == 1
    assert await db.fetchval("SELECT count(*) FROM effects") == 1
    assert await counter.once() == b"answer 1"


async def test_a_request_id_used_for_another_request_is_refused(db: Database) -> None:
    counter = Counter(db)
    await counter.once()
    with pytest.raises(RequestIdReused):
        await counter.once(fingerprint=b"other")
    assert counter.runs == 1


async def test_request_ids_of_other_callers_and_methods_are_others(db: Database) -> None:
    counter = Counter(db)
    answers = [await counter.once(), await counter.once(caller="b"), await counter.once(method="n")]
    assert answers == [b"answer 1", b"answer 2", b"answer 3"]


class Refused(Fault):
    """No."""


async def test_a_fault_stores_nothing_so_that_the_next_try_is_a_first_one(db: Database) -> None:
    async def refuse(tx: Tx) -> bytes:
        await tx.execute("INSERT INTO effects (seq) VALUES (1)")
        raise Refused

    with pytest.raises(Refused):
        await idempotency.once(
            db, caller="a", method="m", request_id="r", fingerprint=b"other", body=refuse, name="test.once"
        )
    assert await db.fetchval("SELECT count(*) FROM effects") + await db.fetchval("SELECT count(*) FROM requests") == 0
    assert await Counter(db).once() == b"answer 1"


async def test_an_empty_answer_is_an_answer(db: Database) -> None:
    async def nothing(_tx: Tx) -> bytes:
        return b""

    for _ in range(2):
        assert await idempotency.once(
            db, caller="a", method="m", request_id="r", fingerprint=b"f", body=nothing, name="test.once"
        ) == b""  # fmt: skip


async def test_a_caller_that_went_away_at_commit_is_answered_alike_when_it_comes_back(db: Database) -> None:

    async def stop() -> None:
        raise asyncio.CancelledError

    counter = Counter(db)
    with armed("test.once.after_commit", stop), pytest.raises(asyncio.CancelledError):
        await counter.once()
    assert await counter.once() == b"answer 1"
    assert counter.runs == 1


async def test_request_ids_are_forgotten_when_they_are_old(db: Database) -> None:
    counter = Counter(db)
    await counter.once()
    await idempotency.purge(db, timedelta(hours=24))
    assert await counter.once() == b"answer 1"
    await idempotency.purge(db, timedelta(0))
    assert await counter.once() == b"answer 2"
