"""The log's clock: one entry and one checkpoint a tick, whether anything happened or not."""

import asyncio
import time
from datetime import timedelta

from parley_audit.commands import Growing
from parley_audit.faults import LogRefused
from parley_audit.publisher import Publisher
from parley_bus.log import Log, State
from parley_db.database import Database


class Ticking:
    """
    Lets the log grow and be published at every tick.

    Ticks come at fixed times, however long the last one took: the log's growth is for everyone to see, and must show nothing
    but the time. One that is missed is not made up for.
    """

    def __init__(self, db: Database, growing: Growing, publisher: Publisher, interval: timedelta, log: Log) -> None:
        self._db = db
        self._growing = growing
        self.publisher = publisher
        self._interval = interval.total_seconds()
        self._state = State(log, "log")

    async def run(self) -> None:
        """Tick until cancelled. What fails is tried again, after 50 ms at first and every 2 s at last."""
        while True:
            try:
                await self.tick()
                self._state.good("ticking")
                await asyncio.sleep(until_next(time.monotonic(), self._interval))
            except LogRefused as error:
                await asyncio.sleep(self._state.bad("refusing", error))
            except Exception as error:  # noqa: BLE001 - whatever it is, the log must go on once it is over
                await asyncio.sleep(self._state.bad("failing", error))

    async def tick(self) -> None:
        """
        Append one entry, and publish a checkpoint that covers it. Raises LogRefused, HeadMoved and Unavailable.

        Two transactions: what is signed must be committed, or another log could grow in its place.
        """
        if not self.publisher.confirmed:
            await self.publisher.publish()
        await self._db.run("audit.grow", self._growing.grow)
        await self.publisher.publish()


def until_next(now: float, interval: float) -> float:
    """Seconds until the next tick, where ticks come at all multiples of the interval; more than 0."""
    return interval - now % interval
