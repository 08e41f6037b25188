"""
A marketer's feed: what was settled within the last second is sent, nothing else of a customer's.

A release keeps its place until it is acknowledged, but not its values. Whenever it is sent later than at once, it goes through
every step anew: so it holds nothing that was withdrawn, refused, deleted or changed since, and its name and place tell nobody
that its customer has acted elsewhere.
"""

import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from parley.broker.v1 import broker_pb2 as brokerpb
from parley_broker.bell import Bell
from parley_broker.names import Names
from parley_broker.releasing import Releasing
from parley_broker.settling import Settling
from parley_broker.store import DeliveryRecord, Key, ParticipantRecord, Release, Store
from parley_kit.clock import Clock
from parley_kit.faultpoints import reach
from parley_kit.faults import Fault

_PAGE = 100
_MOST_BYTES = 1024 * 1024
"""Where a message of the feed ends, however much more is ready: far below what a client takes."""
_LOOK_EVERY_S = 0.25
_RENEW_S = 0.3
"""Seconds for which releases of several exchanges are made ready before the first of them is sent."""
_AGAIN_S = 2.0
"""Seconds before a release is tried again that could not be sent."""


@dataclass(frozen=True)
class Feed:
    """Sends a marketer's deliveries."""

    store: Store
    settling: Settling
    releasing: Releasing
    names: Names
    bell: Bell
    clock: Clock
    heartbeat: timedelta

    async def follow(self, marketer: str, seq: int) -> AsyncIterator[brokerpb.DeliveriesResponse]:
        """
        What is on the feed behind a place, then what comes, for ever; a heartbeat where nothing comes.

        What may not be sent just now is left out and looked at again: one customer holds nobody else's releases back.
        """
        reading = _Reading(marketer, seq)
        quiet_since = self.clock.monotonic()
        while True:
            rung = self.bell.listen()
            page = await self.store.behind(marketer, reading.seq, sorted(reading.sent), _PAGE)
            reading.turn(page)
            sent = False
            async for message in self._messages(reading, page):
                yield message
                sent, quiet_since = True, self.clock.monotonic()
            if sent:
                self.bell.ring()  # there may be room for more to be settled
            else:
                await self.bell.wait(_LOOK_EVERY_S, rung)
            if self.clock.monotonic() - quiet_since >= self.heartbeat.total_seconds():
                token = self.names.place(marketer, reading.seq)
                beat = brokerpb.Delivery(resume_token=token, heartbeat=brokerpb.Heartbeat())
                yield brokerpb.DeliveriesResponse(deliveries=[beat])
                quiet_since = self.clock.monotonic()

    async def _messages(
        self, reading: "_Reading", page: Sequence[DeliveryRecord]
    ) -> AsyncIterator[brokerpb.DeliveriesResponse]:
        """What may be sent of a page. Nothing that is ready waits for what is made ready behind it."""
        ready: list[DeliveryRecord] = []
        for index, record in enumerate(page):
            if record.exchange_id:
                await reach("broker.before_send")
            if self._is_late(reading, record):
                for message in self._taken(reading, ready):
                    yield message
                ready = []
                await self._renew(reading, [one for one in page[index:] if one.exchange_id])
            ready.append(record)
        for message in self._taken(reading, ready):
            yield message

    def _taken(self, reading: "_Reading", records: Sequence[DeliveryRecord]) -> Iterator[brokerpb.DeliveriesResponse]:
        """Records as they are sent, as many in a message as fit; without those that may not be, just now or ever."""
        message, size = brokerpb.DeliveriesResponse(), 0
        for record in records:
            if delivery := self._delivery(reading, record):
                message.deliveries.append(delivery)
                size += delivery.ByteSize()
            if size >= _MOST_BYTES:
                yield message
                message, size = brokerpb.DeliveriesResponse(), 0
        if size:
            yield message

    def _delivery(self, reading: "_Reading", record: DeliveryRecord) -> brokerpb.Delivery | None:
        if not record.exchange_id:
            return self._named(reading, record, record.delivery_id, brokerpb.Delivery.FromString(record.payload))
        key = reading.key(record)
        release = self.settling.take(key)
        if release is None:
            return None
        name = self.names.release(Release(*key, release.release_id))
        return self._named(reading, record, name, brokerpb.Delivery(release=release))

    async def _renew(self, reading: "_Reading", records: Sequence[DeliveryRecord]) -> None:
        """
        Take releases through every step anew, but for those that may be sent as they are.

        For a while only, the first of them at least: what was settled first must be on its way before its second is over.
        """
        now = self.clock.monotonic()
        late = [one for one in records if not self._is_ready(reading, one) and reading.may_try(one, now)]
        await self.store.reopen(reading.marketer, [(one.exchange_id, one.pseudonym) for one in late])
        found = await self.store.participants_of(reading.marketer, late)
        by_exchange: dict[str, list[ParticipantRecord]] = defaultdict(list)
        for one in late:
            if participant := found.get((one.exchange_id, one.pseudonym)):
                by_exchange[one.exchange_id].append(participant)
        left_out = set(by_exchange)
        for exchange_id, participants in by_exchange.items():
            if self.clock.monotonic() - now >= _RENEW_S and len(left_out) < len(by_exchange):
                break
            left_out.remove(exchange_id)
            exchange = await self.store.exchange(self.store.db, reading.marketer, exchange_id)
            assert exchange is not None
            with contextlib.suppress(Fault):  # a part of Parley is away: these are tried again, the others go on
                await self.releasing.carry(exchange, participants)
        tried = (one for one in late if one.exchange_id not in left_out)
        reading.tried |= {one.seq: now for one in tried if not self._is_ready(reading, one)}

    def _is_late(self, reading: "_Reading", record: DeliveryRecord) -> bool:
        """Whether it is time to make a release ready (again)."""
        if not record.exchange_id or self._is_ready(reading, record):
            return False
        return reading.may_try(record, self.clock.monotonic())

    def _is_ready(self, reading: "_Reading", record: DeliveryRecord) -> bool:
        return self.settling.holds(reading.key(record))

    def _named(
        self, reading: "_Reading", record: DeliveryRecord, name: str, message: brokerpb.Delivery
    ) -> brokerpb.Delivery:
        message.name = f"deliveries/{name}"
        message.resume_token = self.names.place(reading.marketer, reading.note(record))
        return message


@dataclass
class _Reading:
    """How far one call has come: everything up to ``seq`` is sent or gone, and of what is behind it, ``sent``."""

    marketer: str
    seq: int
    sent: set[int] = field(default_factory=set)
    tried: dict[int, float] = field(default_factory=dict)
    page: Sequence[DeliveryRecord] = ()

    def turn(self, page: Sequence[DeliveryRecord]) -> None:
        """Begin a page: the oldest that isn't sent heads it."""
        self.page = page
        self.seq = max(self.seq, page[0].seq - 1 if page else max(self.sent, default=0))
        self.sent = {seq for seq in self.sent if seq > self.seq}
        self.tried = {seq: at for seq, at in self.tried.items() if seq > self.seq}

    def note(self, record: DeliveryRecord) -> int:
        """Note that a record is sent; returns the place to resume behind, ahead of whatever was left out before it."""
        self.sent.add(record.seq)
        left_out = (one.seq for one in self.page if one.seq < record.seq and one.seq not in self.sent)
        return next(left_out, record.seq + 1) - 1

    def may_try(self, record: DeliveryRecord, now: float) -> bool:
        """Whether it is time to try a record again that could not be sent."""
        return now - self.tried.get(record.seq, -_AGAIN_S) >= _AGAIN_S

    def key(self, record: DeliveryRecord) -> Key:
        """What must have been settled for it."""
        return self.marketer, record.exchange_id, record.pseudonym
