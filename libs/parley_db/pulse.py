"""A look, now and then, at what a service's database says of its events: two probes of indexes, whatever they hold."""

from dataclasses import dataclass

from structlog.typing import FilteringBoundLogger

from parley_db.database import Database
from parley_db.queries import load
from parley_db.upkeep import every
from parley_kit.telemetry import Meter

_SQL = load("parley_db")
_EVERY_S = 5.0


@dataclass(frozen=True)
class Pulse:
    """Tells a meter how old the oldest event is that waits, and how many are set aside."""

    db: Database
    meter: Meter
    log: FilteringBoundLogger

    async def run(self) -> None:
        """Look every five seconds, for ever; while the database is away there is nothing to see."""
        await every(_EVERY_S, self.turn, self.log, "pulse_waiting")

    async def turn(self) -> None:
        """Look once. Raises Unavailable and Conflict."""
        self.meter.outbox(await self.db.fetchval(_SQL.pulse_oldest))
        rows = await self.db.fetch(_SQL.pulse_dead)
        self.meter.dead_letters({(row["reader"], row["stream"]): row["letters"] for row in rows})
