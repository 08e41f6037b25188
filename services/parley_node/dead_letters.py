"""
Dead letters: events that a reader could not apply and has set aside in its own database.

The operator lists them, and asks for them again. Only a reader can apply its events, so each looks for what is asked for; this
waits until it has.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg
from google.protobuf.message import DecodeError

from parley.common.v1.event_envelope_pb2 import EventEnvelope
from parley_db.queries import load
from parley_node.services import SERVICES
from parley_node.stores import Servers

_SQL = load("parley_node", "dead_letters.sql")
_PATIENCE_S = 30.0
_POLL_S = 0.2


@dataclass(frozen=True)
class Letter:
    """One event that was set aside: where, which, and the class of the error it failed with. Never what is in it."""

    reader: str
    stream: str
    seq: int
    event_id: str
    type: str
    error_type: str
    died_at: datetime


@dataclass(frozen=True)
class Replayed:
    """What came of asking: so many were applied, failed again, or were not tried in time."""

    applied: int
    failed: int
    untried: int


async def letters(pair: Servers) -> list[Letter]:
    """All that is set aside, service by service. Raises asyncpg's errors and OSError."""
    return [letter for name in SERVICES for letter in await _of(pair, name)]


async def replay(pair: Servers, names: Sequence[str]) -> Replayed:
    """Have the readers of some services try theirs again, and wait for what comes of it. Raises as :func:`letters`."""
    outcomes = await asyncio.gather(*(_replay(pair, name) for name in names))
    return Replayed(*(sum(each) for each in zip(*outcomes, strict=True)))


async def _of(pair: Servers, name: str) -> list[Letter]:
    connection = await asyncpg.connect(pair.database_dsn(f"parley_{name}"))
    try:
        return [_letter(row) for row in await connection.fetch(_SQL.letters)]
    finally:
        await connection.close()


def _letter(row: Any) -> Letter:
    envelope = _envelope(row["envelope"])
    place = (row["reader"], row["stream"], row["seq"])
    return Letter(*place, envelope.event_id, envelope.type, row["error_type"], row["died_at"])


def _envelope(serialised: bytes) -> EventEnvelope:
    """An envelope, or an empty one: that it can't be read may be why it is here."""
    try:
        return EventEnvelope.FromString(serialised)
    except DecodeError:
        return EventEnvelope()


async def _replay(pair: Servers, name: str) -> tuple[int, int, int]:
    connection = await asyncpg.connect(pair.database_dsn(f"parley_{name}"))
    try:
        asked = await connection.fetch(_SQL.ask)
        places = [[row[column] for row in asked] for column in ("reader", "stream", "seq")]
        waiting, failed = await _answered(connection, places)
    finally:
        await connection.close()
    return len(asked) - waiting - failed, failed, waiting


async def _answered(connection: Any, places: Sequence[Sequence[Any]]) -> tuple[int, int]:
    """Wait until every place was tried, or for long enough; answers how many were not, and how many failed."""
    loop = asyncio.get_running_loop()
    until = loop.time() + _PATIENCE_S
    while True:
        row = await connection.fetchrow(_SQL.unanswered, *places)
        if not row["waiting"] or loop.time() > until:
            return row["waiting"], row["failed"]
        await asyncio.sleep(_POLL_S)
