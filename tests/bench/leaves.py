"""Single events, as consent writes what customers do: how many a second get into the log."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from parley.consent.v1 import consent_events_pb2 as eventspb
from parley_bus.envelopes import Notary, envelope
from parley_crypto.trust import Trust
from parley_db.database import Database
from parley_db.outbox import OutboxEvent, append
from parley_kit.clock import SystemClock
from tests.bench.job import Job
from tests.bench.outboxes import drained

_LEAVES, _AT_ONCE = 40_000, 500
_CUSTOMERS = "SELECT audit_ref FROM customers LIMIT $1"


async def leaves(job: Job) -> dict[str, float]:
    """Commit as many, of as many customers where there are so many, and wait until all are logged."""
    outbox = job.outboxes[0]
    async with Database.open(outbox, application_name="bench") as consent, drained([outbox]) as wait:
        refs = [row["audit_ref"] for row in await consent.fetch(_CUSTOMERS, _LEAVES)]
        events = list(_events(job, refs))
        start = time.perf_counter()
        for first in range(0, _LEAVES, _AT_ONCE):
            async with consent.tx("bench.write") as tx:
                await append(tx, events[first : first + _AT_ONCE])
        await wait()
        return {"leaves_per_s": _LEAVES / (time.perf_counter() - start)}


def _events(job: Job, refs: Sequence[bytes]) -> Iterator[OutboxEvent]:
    clock = SystemClock()
    notary = Notary(Trust.load(Path(job.folder) / "trust.json").sealing["audit"], clock)
    for number in range(_LEAVES):
        note, _ = notary.note("bench:leaf:made", {"number": number}, refs[number % len(refs)])
        yield envelope(eventspb.ConsentChanged(note=note), clock.now())
