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

    Ticks come at fixed times, however long the last one took, and a checkpoint comes a quarter of a tick later: the log's growth
    is for everyone to see, and must show the time, and little else. A tick that is missed is not made up for.
    """

    def __init__(self, db: Database, growing: Growing, publisher: Publisher, interval: timedelta, log: Log) -> None:
        self._db = db
        self._growing = growing
        self._publisher = publisher
        self._interval = interval.total_seconds()
        self._state = State(log, "log")

    async def run(self) -> None:
        """Tick until cancelled. What fails is tried again at a later tick, some 2 s later at last."""
        while True:
            pause = 0.0
            try:
                await self.tick()
                self._state.good("ticking")
            except LogRefused as error:
                pause = self._state.bad("refusing", error)
            except Exception as error:  # noqa: BLE001 - whatever it is, the log must go on once it is over
                pause = self._state.bad("failing", error)
            await asyncio.sleep(pause + until_next(time.monotonic() + pause, self._interval))

    async def tick(self) -> None:
        """
        Append one entry, and publish a checkpoint that covers it. Raises LogRefused, HeadMoved and Unavailable.

        Two transactions: what is signed must be committed, or another log could grow in its place.
        """
        begun = time.monotonic()
        if not self._publisher.confirmed:
            await self._publisher.publish()
        await self._grow()
        # How much there was to enter shows in no checkpoint's time, unless it takes longer than this.
        due = begun + until_next(begun, self._interval) - 0.75 * self._interval
        await asyncio.sleep(due - time.monotonic())
        await self._publisher.publish()

    async def _grow(self) -> None:
        try:
            await self._db.run("audit.grow", self._growing.grow)
        except LogRefused:
            await self._publisher.publish()  # it says why, and has health say that the log can't go on
            raise


def until_next(now: float, interval: float) -> float:
    """Seconds until the next tick, where ticks come at all multiples of the interval; more than 0."""
    return interval - now % interval
