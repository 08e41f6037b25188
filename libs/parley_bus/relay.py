"""The relay: carries a service's outbox to its stream, and forgets what every reader has acknowledged."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from parley_bus.bus import Bus, BusAway, Entry, StreamForeign, View
from parley_bus.envelopes import cause
from parley_bus.log import Log, NullLog, State
from parley_db.database import Database, Tx
from parley_db.queries import load
from parley_kit.telemetry import SILENT, Telemetry

UPKEEP = 0.5
"""Seconds, at most, between two looks at the stream while nothing is written."""

PACE = 0.1
"""Seconds between two turns while there is less than a batch: what is written meanwhile shares the next turn's statements."""

MOST_BYTES = 4 * 1024 * 1024
"""Of events that are published in one turn; the last of them may exceed it."""

_SQL = load("parley_bus")


@dataclass(frozen=True, slots=True)
class Head:
    """How far a stream has come: the last place given, published, and acknowledged by every reader."""

    last: int
    published: int
    acked: int


class Relay:
    """
    Publishes one service's outbox, in order of the places it gives the rows, and keeps the stream whole.

    Any number may run for one service: they take turns. ``groups`` are the readers that must acknowledge an event before
    it is forgotten (none: as soon as it is published); the relay makes their groups. ``poll`` is the longest time in
    seconds that a new row waits; :meth:`poke` shortens it.

    Whoever may read a stream may acknowledge in another reader's name. Where that must not make an event forgotten, ``proven``
    answers up to which place this database knows by other means that they were taken in.
    """

    def __init__(
        self,
        db: Database,
        bus: Bus,
        *,
        service: str,
        groups: Sequence[str] = (),
        poll: float = 0.1,
        batch: int = 1000,
        proven: Callable[[Tx], Awaitable[int]] | None = None,
        log: Log | None = None,
        telemetry: Telemetry = SILENT,
    ) -> None:
        self._db = db
        self._bus = bus
        self._stream = bus.stream(service)
        self._groups = tuple(groups)
        self._poll = poll
        self._batch = batch
        self._proven = proven
        self._service = service
        self._name = f"{service}.relay"
        self._poked = asyncio.Event()
        self._meter, self._tracer = telemetry.meter, telemetry.tracer
        self._state = State(log or NullLog(), "relay", told=self._meter.relay, service=service)

    async def run(self) -> None:
        """Relay until cancelled. What fails is tried again, after 50 ms at first and every 2 s at last."""
        while True:
            try:
                waiting = await self.turn()
                if not waiting:
                    await self._rest()
                elif waiting < self._batch:
                    await asyncio.sleep(PACE)
            except Exception as error:  # noqa: BLE001 - whatever it is, events must flow again once it is over
                await asyncio.sleep(self._state.bad("failing", error))

    def poke(self) -> None:
        """Say that a row was just committed, or that one may be forgotten, so that it need not wait for the next poll."""
        self._poked.set()

    async def turn(self) -> int:
        """
        Publish what has places, forget what is acknowledged, give places to what has none; answer how many wait now.

        Places are committed before they are published: a row that lost its place again after a crash could get another
        one. A stream found broken is emptied, and published again from the next turn on. Raises BusAway, Unavailable
        and Conflict; the turn can be repeated whatever happened.
        """
        return await self._db.run(self._name, self._turn)

    async def _turn(self, tx: Tx) -> int:
        rows = await tx.fetch(_SQL.relay_step, self._batch, MOST_BYTES)
        head, numbered = Head(*rows[0][:3]), rows[0]["numbered"]
        entries = [Entry(*row[4:]) for row in rows if row["stream_seq"] is not None]
        published = entries[-1].seq if entries else head.published
        view = await self._publish(entries, head)
        if view is None or not is_whole(view, head.acked, published):
            await self._rebuild(tx)
            return 0
        await self._create_groups(view)
        acked = await self._believed(tx, head.acked, acknowledged(view, self._groups, head.acked, published))
        if (published, acked) != (head.published, head.acked):
            await tx.execute(_SQL.relay_advance, published, acked)
        self._tell_lag(head.last, view.acked, acked)
        self._state.good("flowing")
        # Rows that had places before may be left over, where there were more, or longer ones, than a turn takes.
        return self._batch if entries and published < head.last - numbered else int(numbered)

    async def _believed(self, tx: Tx, before: int, acked: int) -> int:
        if self._proven is None or acked == before:
            return acked
        return max(before, min(acked, await self._proven(tx)))

    async def _publish(self, entries: Sequence[Entry], head: Head) -> View | None:
        causes = [entry.envelope for entry in entries] if self._tracer.on else []
        try:
            with self._tracer.linked(f"{self._service}.publish", map(cause, causes), events=len(entries)):
                return await self._bus.publish(self._stream, entries, self._groups, head.acked)
        except StreamForeign:
            return None
        except BusAway:
            # As far as this database knows: else what the stream said last would be told for as long as it is away.
            self._tell_lag(head.last, {}, head.acked)
            raise

    def _tell_lag(self, last: int, acked: Mapping[str, int], otherwise: int) -> None:
        for group in self._groups:
            self._meter.lag(group, last - acked.get(group, otherwise))

    async def _rebuild(self, tx: Tx) -> None:
        """Start the stream again: the next turns publish every row that is still here, in the same places."""
        self._state.bad("rebuilding")
        await self._bus.rebuild(self._stream, self._groups)
        await tx.execute(_SQL.relay_restart)

    async def _create_groups(self, view: View) -> None:
        for group in self._groups:
            if group not in view.acked:
                await self._bus.create_group(self._stream, group)

    async def _rest(self) -> None:
        """Wait until there is work, by cheap looks at the database alone; not longer than the upkeep's interval."""
        loop = asyncio.get_running_loop()
        until = loop.time() + UPKEEP
        while loop.time() < until:
            if await _heard(self._poked, self._poll) or await self._has_work():
                return

    async def _has_work(self) -> Any:
        return await self._db.fetchval(_SQL.relay_has_work)


def is_whole(view: View, acked: int, published: int) -> bool:
    """
    Whether a stream holds every event after ``acked`` up to ``published``.

    Places have no gaps, so an unbroken run that begins early enough and ends in the right place is all there is to
    check. It fails for a stream that was wiped, came back older, or was wiped and written to again before anyone looked,
    and where the database came back older.
    """
    if acked == published:
        return view.last <= published and view.length in {0, view.last - view.first + 1}
    return view.first <= acked + 1 and view.last == published and view.length == view.last - view.first + 1


def acknowledged(view: View, groups: Sequence[str], acked: int, published: int) -> int:
    """
    The place up to which every group has acknowledged everything.

    A group that is missing, or new and at 0, has acknowledged nothing of what is left; what was forgotten before stays so.
    """
    if not groups:
        return published
    return max(acked, min(published, *(view.acked.get(group, 0) for group in groups)))


async def _heard(event: asyncio.Event, seconds: float) -> bool:
    """Wait for an event, so long at most; whether it came."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return False
    event.clear()
    return True
