"""Forgetting what has had its time: used assertions, expired claim codes, answers to old requests."""

from dataclasses import dataclass

from structlog.typing import FilteringBoundLogger

from parley_db import upkeep
from parley_identity.store import Store
from parley_kit.clock import Clock


@dataclass(frozen=True)
class Upkeep:
    """Runs beside the service."""

    store: Store
    clock: Clock
    log: FilteringBoundLogger

    async def run(self) -> None:
        """Forget, once a minute, for ever."""
        await upkeep.every_minute(self.turn, self.log)

    async def turn(self) -> None:
        """Forget what has expired by now, and answers to old requests."""
        await self.store.purge(self.clock.now())
        await upkeep.Upkeep(self.store.db, self.log).turn()
