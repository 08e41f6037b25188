"""Forgetting, once a minute: what every service does with answers to old requests and ids of old events, and some with more."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

from structlog.typing import FilteringBoundLogger

from parley_db import idempotency, inbox
from parley_db.database import Database
from parley_kit.faults import Conflict, Unavailable

_EVERY_S = 60.0
_REQUESTS_KEPT = timedelta(days=1)
_EVENTS_KEPT = timedelta(days=30)
"""An event comes again if Valkey is lost before every reader has it: within seconds, unless a reader is stuck."""


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
    """Runs beside every service."""

    db: Database
    log: FilteringBoundLogger

    async def run(self) -> None:
        """Forget, once a minute, for ever."""
        await every_minute(self.turn, self.log)

    async def turn(self) -> None:
        """Forget answers to requests after a day, and which events were taken in after thirty."""
        await idempotency.purge(self.db, _REQUESTS_KEPT)
        await inbox.purge(self.db, _EVENTS_KEPT)
