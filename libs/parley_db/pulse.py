"""A look, now and then, at what a service's database says of its events: two probes of indexes, whatever they hold."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass

from parley_db.database import Database
from parley_db.queries import load
from parley_kit.faults import Conflict, Unavailable
from parley_kit.telemetry import Meter

_SQL = load("parley_db")
_EVERY_S = 5.0


@dataclass(frozen=True)
class Pulse:
    """Tells a meter how old the oldest event is that waits, and how many are set aside."""

    db: Database
    meter: Meter

    async def run(self) -> None:
        """Look every five seconds, for ever; while the database is away there is nothing to see."""
        while True:
            with suppress(Unavailable, Conflict):
                await self.turn()
            await asyncio.sleep(_EVERY_S)

    async def turn(self) -> None:
        """Look once. Raises Unavailable and Conflict."""
        self.meter.outbox(await self.db.fetchval(_SQL.pulse_oldest))
        rows = await self.db.fetch(_SQL.pulse_dead)
        self.meter.dead_letters({(row["reader"], row["stream"]): row["letters"] for row in rows})
