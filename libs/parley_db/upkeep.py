"""Forgetting, once a minute: what every service does with answers to old requests, and some with more."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

from structlog.typing import FilteringBoundLogger

from parley_db import idempotency
from parley_db.database import Database
from parley_kit.faults import Conflict, Unavailable

_EVERY_S = 60.0
_REQUESTS_KEPT = timedelta(days=1)


async def every_minute(turn: Callable[[], Awaitable[None]], log: FilteringBoundLogger) -> None:
    """Take a turn once a minute, for ever; one that meets Unavailable or Conflict is left to the next."""
    while True:
        try:
            await turn()
        except (Unavailable, Conflict) as error:
            log.warning("upkeep_waiting", reason=error.reason)
        await asyncio.sleep(_EVERY_S)


@dataclass(frozen=True)
class Upkeep:
    """Runs beside a service whose mutations are once-only: see :func:`parley_db.idempotency.once`."""

    db: Database
    log: FilteringBoundLogger

    async def run(self) -> None:
        """Forget, once a minute, for ever."""
        await every_minute(self.turn, self.log)

    async def turn(self) -> None:
        """Forget answers to requests after a day."""
        await idempotency.purge(self.db, _REQUESTS_KEPT)
