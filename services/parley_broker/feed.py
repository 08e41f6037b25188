"""A marketer's feed: what was settled within the last second is sent, nothing else of a customer's."""

import base64
import binascii
import hashlib
import hmac
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from parley.broker.v1 import broker_pb2 as brokerpb
from parley.consent.v1 import consent_pb2 as consentpb
from parley_broker.domain.outcomes import Refusal, after
from parley_broker.faults import ResumeTokenInvalid
from parley_broker.settling import Key, Settling
from parley_broker.store import DeliveryRecord, ParticipantRecord, Store
from parley_broker.work import Bell
from parley_kit.clock import Clock
from parley_kit.faultpoints import reach

_PAGE = 100
_LOOK_EVERY_S = 0.25


@dataclass(frozen=True)
class Tokens:
    """Resume tokens: a place in one marketer's feed, that nobody else can make."""

    key: bytes = field(repr=False)

    def write(self, marketer: str, seq: int) -> str:
        """The token of a place."""
        place = seq.to_bytes(8, "big")
        return base64.urlsafe_b64encode(place + self._mac(marketer, place)).decode()

    def read(self, marketer: str, token: str) -> int:
        """The place of a token; none is the start. Raises ResumeTokenInvalid."""
        if not token:
            return 0
        try:
            raw = base64.urlsafe_b64decode(token.encode())
        except (binascii.Error, UnicodeEncodeError):
            raise ResumeTokenInvalid from None
        if len(raw) != 24 or not hmac.compare_digest(raw[8:], self._mac(marketer, raw[:8])):
            raise ResumeTokenInvalid
        return int.from_bytes(raw[:8], "big")

    def _mac(self, marketer: str, place: bytes) -> bytes:
        return hashlib.blake2b(
            marketer.encode() + place, digest_size=16, key=self.key, person=b"parley/resume"
        ).digest()


@dataclass(frozen=True)
class Feed:
    """Sends a marketer's deliveries."""

    store: Store
    settling: Settling
    tokens: Tokens
    bell: Bell
    clock: Clock
    heartbeat: timedelta

    async def follow(self, marketer: str, seq: int) -> AsyncIterator[brokerpb.Delivery]:
        """What is on the feed behind a place, then what comes, for ever; a heartbeat where nothing comes."""
        quiet_since = self.clock.monotonic()
        while True:
            page = await self.store.behind(marketer, seq, _PAGE)
            waits = not page
            for index, record in enumerate(page):
                waits = not await self._cleared(marketer, page[index:])
                if waits or not self._spend(marketer, record):
                    break  # not now; or off the feed; or another call of the marketer's sent it: look again
                yield self._message(marketer, record)
                quiet_since = self.clock.monotonic()
                seq = record.seq
            if waits:
                await self.bell.wait(_LOOK_EVERY_S)
            if self.clock.monotonic() - quiet_since >= self.heartbeat.total_seconds():
                yield brokerpb.Delivery(resume_token=self.tokens.write(marketer, seq), heartbeat=brokerpb.Heartbeat())
                quiet_since = self.clock.monotonic()

    async def answer(self, marketer: str, exchange_id: str, pseudonym: str) -> brokerpb.Delivery | None:
        """One release for the answer of the call that asked for it, if it may be sent."""
        record = await self.store.delivery_of(marketer, exchange_id, pseudonym)
        if record is None or not await self._cleared(marketer, [record]) or not self._spend(marketer, record):
            return None
        return self._message(marketer, record)

    async def _cleared(self, marketer: str, records: Sequence[DeliveryRecord]) -> bool:
        """
        Settle again, unless the first record may be sent; what was refused is off the feed then.

        False where it can't be said just now (the audit log is behind): nothing may overtake it.
        """
        await reach("broker.before_send")
        if self._may_send(marketer, records[0]):
            return True
        releases = [one for one in records if one.exchange_id]
        participants = await self.store.participants_of(marketer, releases)
        known = [one for one in releases if (one.exchange_id, one.pseudonym) in participants]
        outcomes = await self.settling.settle([participants[one.exchange_id, one.pseudonym] for one in known])
        for record, outcome in zip(known, outcomes, strict=True):
            await self._refused(participants[record.exchange_id, record.pseudonym], outcome)
        return not outcomes or outcomes[0].refusal != consentpb.SETTLE_REFUSAL_AUDIT_BEHIND

    async def _refused(self, participant: ParticipantRecord, outcome: consentpb.SettleOutcome) -> None:
        if outcome.refusal == consentpb.SETTLE_REFUSAL_UNSPECIFIED:
            return
        leads_to = after(Refusal(outcome.refusal))
        if leads_to is not None:
            await self.store.unsettled(participant.marketer, participant.exchange_id, [(participant, leads_to)])

    def _may_send(self, marketer: str, record: DeliveryRecord) -> bool:
        """A notice always; a release, if it was settled within the last second and not sent since."""
        return not record.exchange_id or self.settling.may_send(_key(marketer, record))

    def _spend(self, marketer: str, record: DeliveryRecord) -> bool:
        return not record.exchange_id or self.settling.spend(_key(marketer, record))

    def _message(self, marketer: str, record: DeliveryRecord) -> brokerpb.Delivery:
        message = brokerpb.Delivery.FromString(record.payload)
        message.name = f"deliveries/{record.delivery_id}"
        message.resume_token = self.tokens.write(marketer, record.seq)
        return message


def _key(marketer: str, record: DeliveryRecord) -> Key:
    """What must have been settled: a page may be older than the values prepared since a customer's act."""
    sealed = brokerpb.Delivery.FromString(record.payload).release.sealed_release
    return marketer, record.exchange_id, record.pseudonym, sealed
