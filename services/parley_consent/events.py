"""What consent hears from other services, and the notices it writes when they are due."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from parley.audit.v1 import audit_events_pb2 as auditpb
from parley.common.v1 import receipt_pb2 as receiptpb
from parley.consent.v1 import consent_events_pb2 as eventspb
from parley.identity.v1 import identity_events_pb2 as identitypb
from parley_bus.consumer import Received
from parley_bus.envelopes import envelope
from parley_consent.agreements import Scribe
from parley_consent.store import DueNotice, Store
from parley_db.database import Tx
from parley_db.outbox import OutboxEvent, append
from parley_db.upkeep import every
from parley_kit.clock import Clock
from parley_rpc.platform import Platform
from parley_terms.wire import timestamp

_LOOK_EVERY_S = 0.2
_LATE = timedelta(seconds=5)
"""
What is due for longer was held up, by an outage above all, and all that waited beside it. Written at once, it would let marketers
who compare join it by its time.
"""


@dataclass(frozen=True)
class Hearing:
    """Applies other services' events."""

    store: Store

    async def audit(self, tx: Tx, events: Sequence[Received]) -> None:
        """Learn how far audit has logged this service's stream."""
        logged = [
            auditpb.StreamLogged.FromString(event.envelope.payload)
            for event in events
            if event.envelope.type == auditpb.StreamLogged.DESCRIPTOR.full_name
        ]
        if own := [event.seq for event in logged if event.service == "consent"]:
            await self.store.set_logged(tx, max(own))

    async def identity(self, tx: Tx, events: Sequence[Received]) -> None:
        """Learn which marketers are suspended."""
        for event in events:
            if event.envelope.type == identitypb.MarketerChanged.DESCRIPTOR.full_name:
                changed = identitypb.MarketerChanged.FromString(event.envelope.payload)
                await self.store.suspend(tx, changed.marketer, event.seq, suspended=changed.suspended)


@dataclass(frozen=True)
class Notices:
    """Writes each marketer's notice as an event of its own, when its random delay is over."""

    store: Store
    scribe: Scribe
    clock: Clock
    longest_delay: timedelta
    platform: Platform

    async def run(self) -> None:
        """Write what is due, for ever."""
        await every(_LOOK_EVERY_S, self.turn, self.platform.log, "notices_waiting")

    async def turn(self) -> None:
        """Plan anew what is late, then write all that is due now, however long that takes."""
        now = self.clock.now()
        await self.store.put_off_notices(now - _LATE, now, self.longest_delay)
        is_more = True
        while is_more:
            is_more = await self.store.db.run("consent.notices", partial(self._write_some, now))

    async def _write_some(self, now: datetime, tx: Tx) -> bool:
        """Take some notices and write their events, which commits together; whether there were any."""
        due = await self.store.take_notices(tx, now - _LATE, now)
        await append(tx, [self._event(notice) for notice in due])
        return bool(due)

    def _event(self, due: DueNotice) -> OutboxEvent:
        now = self.clock.now()
        detail = {"consent": f"consents/{due.consent_id}", "marketer": due.marketer, "pseudonym": due.pseudonym}
        note, opening = self.scribe.notary.note(
            "consent:notice:written", {**detail, "notice": due.notice}, due.audit_ref
        )
        event = eventspb.ConsentNotified(
            note=note,
            marketer=due.marketer,
            pseudonym=due.pseudonym,
            consent=f"consents/{due.consent_id}",
            notice=due.notice,
            signed_notice=self.scribe.notice(due.consent_id, due.pseudonym, due.notice, now),
            notice_time=timestamp(now),
            opening=receiptpb.Opening(salt=opening.salt, detail=opening.detail),
        )
        return envelope(event, now, traced=False)  # a trace would join it to the act, and two notices to each other
