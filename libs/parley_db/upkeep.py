"""Forgetting, once a minute: what every service does with answers to old requests and ids of old events, and some with more."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

from structlog.typing import FilteringBoundLogger

from parley_db import idempotency, inbox
from parley_db.database import Database

_EVERY_S = 60.0
_REQUESTS_KEPT = timedelta(days=1)
_EVENTS_KEPT = timedelta(days=30)
"""An event comes again if Valkey is lost before every reader has it: within seconds, unless a reader is stuck."""


async def every(seconds: float, turn: Callable[[], Awaitable[None]], log: FilteringBoundLogger, event: str) -> None:
    """
    Take a turn every so many seconds, for ever. What fails, whatever it is, is left to the next, and logged when it begins.

    Nobody waits for it: a query that was cancelled, or a database that hangs, must not end a whole service.
    """
    failing = ""
    while True:
        try:
            await turn()
            failing = ""
        except Exception as error:  # noqa: BLE001 - the next turn may do better, whatever it is
            now = type(error).__name__
            if now != failing:
                log.warning(event, error_type=now)
            failing = now
        await asyncio.sleep(seconds)


async def every_minute(turn: Callable[[], Awaitable[None]], log: FilteringBoundLogger) -> None:
    """Take a turn once a minute, as :func:`every`."""
    await every(_EVERY_S, turn, log, "upkeep_waiting")


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
