"""Events to send, and a reader whose table shows every effect they had, repeats too."""

from collections.abc import Sequence
from uuid import UUID

import asyncpg

from parley.common.v1.event_envelope_pb2 import EventEnvelope
from parley_bus.consumer import Received
from parley_db.database import Database, Tx
from parley_db.migrate import migrate
from parley_db.outbox import OutboxEvent, append
from parley_kit.ids import uuid7

TYPE = "parley.consent.v1.ConsentWithdrawn"


async def migrate_shared(dsn: str) -> None:
    """Give a database what every service has, and the table of effects."""
    await migrate(dsn, "parley_db")
    connection = await asyncpg.connect(dsn)
    await connection.execute("CREATE TABLE effects (id bigint GENERATED ALWAYS AS IDENTITY, event_id uuid, seq bigint)")
    await connection.close()


def event(payload: bytes = b"") -> OutboxEvent:
    """An event of its own."""
    event_id = uuid7()
    envelope = EventEnvelope(event_id=str(event_id), type=TYPE, payload=payload)
    return OutboxEvent(event_id, TYPE, envelope.SerializeToString())


async def write(db: Database, count: int = 1, payload: bytes = b"") -> list[UUID]:
    """Commit events; answer their ids in order."""
    events = [event(payload) for _ in range(count)]
    async with db.tx("test.write") as tx:
        await append(tx, events)
    return [one.event_id for one in events]


async def record(tx: Tx, received: Sequence[Received]) -> None:
    """A handler: one effect for each event it is given."""
    rows = [(UUID(one.envelope.event_id), one.seq) for one in received]
    await tx.executemany("INSERT INTO effects (event_id, seq) VALUES ($1, $2)", rows)


async def effects(db: Database) -> list[UUID]:
    """The effects so far, in order."""
    rows = await db.fetch("SELECT event_id FROM effects ORDER BY id")
    return [UUID(str(row["event_id"])) for row in rows]


async def held(db: Database) -> int:
    """How many events the outbox still holds."""
    return int(await db.fetchval("SELECT count(*) FROM outbox"))
