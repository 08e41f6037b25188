"""The consumer: applies each event of a stream once, in the reader's own database."""

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from parley.common.v1.event_envelope_pb2 import EventEnvelope
from parley_bus.bus import Batch, Bus, BusAway, Entry, GroupMissing
from parley_bus.envelopes import cause
from parley_bus.log import Log, NullLog, State, backoff
from parley_db import inbox
from parley_db.database import Database, Tx
from parley_db.queries import load
from parley_kit.faults import Conflict, Unavailable
from parley_kit.telemetry import SILENT, Telemetry

TRIES = 5
MOST_BYTES = 1024 * 1024
"""Of events that share a transaction; one that is longer has its own."""

_PACE_S = 0.1
"""Lets more events come together, after a batch that was not full: one costs its statements, however small it is."""

_SQL = load("parley_bus")
_NOT_THE_EVENTS_FAULT = (BusAway, GroupMissing, Unavailable, Conflict)


@dataclass(frozen=True, slots=True)
class Received:
    """An event and its place in its writer's stream."""

    seq: int
    envelope: EventEnvelope


Handler = Callable[[Tx, Sequence[Received]], Awaitable[None]]
"""
Applies events, in order, in the given transaction and nowhere else: it is run again after a collision, and an event
counts as applied exactly when the transaction commits.
"""


class Consumer:
    """
    Reads the stream of service ``stream_of`` as ``group`` and hands ``handler`` what the inbox has not seen.

    ``name`` tells readers of one group apart; one that starts under a name takes up what was left under it at once, and
    what other readers left alone for ``takeover_after`` seconds. When a batch fails its events are tried one by one; one
    that fails five times becomes a dead letter in the reader's database and the others go on. A ``strict`` consumer never
    skips an event: it tries again for ever, and what follows waits. ``on_applied`` hears the last place of what was
    committed. Dead letters that the operator asks for are tried again every ``takeover_after`` seconds.
    """

    def __init__(
        self,
        db: Database,
        bus: Bus,
        *,
        stream_of: str,
        group: str,
        handler: Handler,
        name: str = "",
        batch: int = 256,
        strict: bool = False,
        takeover_after: float = 5.0,
        on_applied: Callable[[int], None] | None = None,
        log: Log | None = None,
        telemetry: Telemetry = SILENT,
    ) -> None:
        self._db = db
        self._bus = bus
        self._stream_of = stream_of
        self._stream = bus.stream(stream_of)
        self._group = group
        self._handler = handler
        self._name = name or socket.gethostname()
        self._batch = batch
        self._strict = strict
        self._takeover_after = takeover_after
        self._on_applied = on_applied or (lambda _seq: None)
        self._log = log or NullLog()
        self._tracer = telemetry.tracer
        told = partial(telemetry.meter.consumer, stream_of, group)
        self._state = State(self._log, "consumer", told=told, group=group, stream=stream_of)

    async def run(self) -> None:
        """Consume until cancelled. What fails is tried again, after 50 ms at first and every 2 s at last."""
        while True:
            try:
                await self._follow()
            except GroupMissing:
                # Only the relay knows which events the stream must hold, so it alone may make stream and group.
                await asyncio.sleep(self._state.bad("waiting_for_relay"))
            except Exception as error:  # noqa: BLE001 - whatever it is, events must flow again once it is over
                await asyncio.sleep(self._state.bad("failing", error))

    async def _follow(self) -> None:
        await self._finish_own()
        look_again = 0.0
        while True:
            if time.monotonic() >= look_again:
                await self._take_over()
                await self._replay_asked()
                look_again = time.monotonic() + self._takeover_after
            batch = await self._bus.read(self._stream, self._group, self._name, self._batch)
            self._state.good("flowing")
            await self._take_in(batch)
            if 0 < len(batch.entries) < self._batch:
                await asyncio.sleep(_PACE_S)

    async def _finish_own(self) -> None:
        """Apply what an earlier run under this name took and did not acknowledge."""
        while True:
            batch = await self._bus.read_pending(self._stream, self._group, self._name, self._batch)
            if not batch.entries and not batch.lost:
                return
            await self._take_in(batch)

    async def _take_over(self) -> None:
        """Apply what readers that are gone left behind."""
        idle = self._takeover_after
        async for batch in self._bus.claim(self._stream, self._group, self._name, self._batch, idle):
            await self._take_in(batch)

    async def _replay_asked(self) -> None:
        """Try again the dead letters that the operator asks for; who never sets one aside has none."""
        if self._strict:
            return
        for row in await self._db.fetch(_SQL.dead_asked, self._group, self._stream_of):
            await self._replay(row["seq"])

    async def _take_in(self, batch: Batch) -> None:
        """Apply, then acknowledge. A crash in between makes the batch come again, and the inbox drops it."""
        if batch.lost:
            # Trimmed means acknowledged by all, so a Redis that came back older has forgotten our acknowledgement.
            self._log.warning("acknowledgements_lost", group=self._group, stream=self._stream_of, count=len(batch.lost))
            await self._bus.ack(self._stream, self._group, batch.lost)
        for run in runs(batch.entries):
            await self._apply_all(run)
            await self._bus.ack(self._stream, self._group, [entry.seq for entry in run])

    async def _apply_all(self, entries: Sequence[Entry]) -> None:
        try:
            await self._apply(entries)
        except _NOT_THE_EVENTS_FAULT:
            raise
        except Exception:  # noqa: BLE001 - whose fault it is shows when they come one by one
            for entry in entries:
                await self._apply_alone(entry)

    async def _apply_alone(self, entry: Entry) -> None:
        failures = 0
        while True:
            try:
                return await self._apply([entry])
            except _NOT_THE_EVENTS_FAULT:
                raise
            except Exception as error:  # noqa: BLE001 - any error is the event's fifth at most
                failures += 1
                if failures == TRIES and not self._strict:
                    return await self._bury(entry, error)
                await self._wait_to_retry(entry, error, failures)

    async def _wait_to_retry(self, entry: Entry, error: Exception, failures: int) -> None:
        if failures == TRIES:
            self._state.bad("stuck", error, event_id=str(entry.event_id), seq=entry.seq)
        await asyncio.sleep(backoff(min(failures, TRIES * 2)))

    async def _apply(self, entries: Sequence[Entry]) -> None:
        async def body(tx: Tx) -> None:
            new = await inbox.claim(tx, [entry.event_id for entry in entries])
            received = [_received(entry.seq, entry.envelope) for entry in entries if entry.event_id in new]
            if received:
                await self._handler(tx, received)

        causes = [entry.envelope for entry in entries] if self._tracer.on else []
        with self._tracer.linked(f"{self._group}.read", map(cause, causes), events=len(entries)):
            await self._db.run(f"{self._group}.apply", body)
        self._on_applied(entries[-1].seq)

    async def _bury(self, entry: Entry, error: Exception) -> None:
        """Set an event aside. It counts as taken in, so that a rebuilt stream doesn't bring it back."""
        reason = type(error).__name__

        async def body(tx: Tx) -> None:
            if await inbox.claim(tx, [entry.event_id]):
                letter = (self._group, self._stream_of, entry.seq, entry.envelope, reason)
                await tx.execute(_SQL.dead_insert, *letter)

        await self._db.run(f"{self._group}.bury", body)
        fields = {"event_id": str(entry.event_id), "seq": entry.seq, "error_type": reason}
        self._log.warning("dead_letter", group=self._group, stream=self._stream_of, **fields)

    async def _replay(self, seq: int) -> None:
        place = (self._group, self._stream_of, seq)

        async def body(tx: Tx) -> None:
            if envelope := await tx.fetchval(_SQL.dead_take, *place):  # else somebody else did
                await self._handler(tx, [_received(seq, envelope)])

        try:
            await self._db.run(f"{self._group}.replay", body)
        except _NOT_THE_EVENTS_FAULT:
            raise
        except Exception as error:  # noqa: BLE001 - it stays a dead letter, whatever it failed with
            await self._db.execute(_SQL.dead_again, *place, type(error).__name__)


def _received(seq: int, envelope: bytes) -> Received:
    return Received(seq, EventEnvelope.FromString(envelope))


def runs(entries: Sequence[Entry], most_bytes: int = MOST_BYTES) -> Iterator[Sequence[Entry]]:
    """Split entries, in order, so that no run but of one is longer: an event may tell of hundreds of things."""
    run: list[Entry] = []
    size = 0
    for entry in entries:
        if run and size + len(entry.envelope) > most_bytes:
            yield run
            run, size = [], 0
        run.append(entry)
        size += len(entry.envelope)
    if run:
        yield run
