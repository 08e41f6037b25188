"""Events on their way out: written in the transaction that makes them true, carried to the stream by the relay."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from parley_db.database import Tx
from parley_db.queries import load

_SQL = load("parley_db")


@dataclass(frozen=True, slots=True)
class OutboxEvent:
    """One event. ``type`` is its full proto name; ``envelope`` a serialised EventEnvelope with the same ids."""

    event_id: UUID
    type: str
    envelope: bytes


async def append(tx: Tx, events: Sequence[OutboxEvent]) -> None:
    """Write events in the order given, in one statement. They exist if and only if ``tx`` commits."""
    if events:
        await tx.execute(
            _SQL.outbox_append,
            [event.event_id for event in events],
            [event.type for event in events],
            [event.envelope for event in events],
        )
