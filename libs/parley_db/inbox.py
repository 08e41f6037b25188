"""Events taken in: an event's effect and its row here commit together, so that no repeat has an effect."""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from parley_db.database import Database, Tx
from parley_db.queries import load

_SQL = load("parley_db")
_TOGETHER = 5_000


async def claim(tx: Tx, event_ids: Sequence[UUID]) -> set[UUID]:
    """
    Mark events as taken in and answer which were new, in one statement.

    Waits for another transaction that is claiming one of them, and takes it if that one rolls back.
    """
    rows = await tx.fetch(_SQL.inbox_claim, list(event_ids))
    return {UUID(int=row["event_id"].int) for row in rows}


async def purge(db: Database, older_than: timedelta) -> None:
    """
    Forget events taken in longer ago than this, a few thousand at a time.

    Sound only while no writer's outbox still holds an event that old: a rebuilt stream delivers it again.
    """
    while await db.execute(_SQL.inbox_purge, older_than, _TOGETHER) == f"DELETE {_TOGETHER}":
        continue
