"""Forgetting what has had its time: used assertions, expired claim codes, answers to old requests."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta

from structlog.typing import FilteringBoundLogger

from parley_db import idempotency
from parley_identity.store import Store
from parley_kit.clock import Clock
from parley_kit.faults import Conflict, Unavailable

_EVERY_S = 60.0
_REQUESTS_KEPT = timedelta(days=1)


@dataclass(frozen=True)
class Upkeep:
    """Runs beside the service."""

    store: Store
    clock: Clock
    log: FilteringBoundLogger

    async def run(self) -> None:
        """Forget, once a minute, for ever."""
        while True:
            try:
                await self.turn()
            except (Unavailable, Conflict) as error:
                self.log.warning("upkeep_waiting", reason=error.reason)
            await asyncio.sleep(_EVERY_S)

    async def turn(self) -> None:
        """Forget what has expired by now, and answers to requests after a day."""
        await self.store.purge(self.clock.now())
        await idempotency.purge(self.store.db, _REQUESTS_KEPT)
