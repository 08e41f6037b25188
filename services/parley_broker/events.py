"""What broker hears from consent: answers that let an exchange go on, and notices for marketers."""

from collections.abc import Sequence

from parley.broker.v1 import broker_pb2 as brokerpb
from parley.consent.v1 import consent_events_pb2 as consentpb
from parley_broker.bell import Bell
from parley_broker.store import Key, Store
from parley_bus.consumer import Received
from parley_db.database import Tx
from parley_kit.clock import Clock


class Hearing:
    """Applies consent's events; those that are for audit alone, nearly all, say nothing to the broker, and wake nobody."""

    def __init__(self, store: Store, clock: Clock, bell: Bell) -> None:
        self._store, self._clock, self._bell = store, clock, bell
        self._is_for_us = False

    async def consent(self, tx: Tx, events: Sequence[Received]) -> None:
        """Wake participants whose customer accepted; put notices on the feed. In the order in which finishing locks them."""
        given = _payloads(events, consentpb.ConsentGiven.DESCRIPTOR.full_name)
        notified = _payloads(events, consentpb.ConsentNotified.DESCRIPTOR.full_name)
        self._is_for_us = bool(given or notified)
        for accepted in sorted(map(_given, given)):
            await self._store.accepted(tx, *accepted)
        for told in sorted(map(consentpb.ConsentNotified.FromString, notified), key=lambda one: one.marketer):
            await self._store.notify(tx, told.marketer, _notice(told), self._clock.now())

    def applied(self, _seq: int) -> None:
        """Wake whoever waits for what was just committed."""
        if self._is_for_us:
            self._bell.ring()


def _payloads(events: Sequence[Received], kind: str) -> list[bytes]:
    return [each.envelope.payload for each in events if each.envelope.type == kind]


def _given(payload: bytes) -> Key:
    given = consentpb.ConsentGiven.FromString(payload)
    marketer, _, exchange_id = given.exchange.rpartition("/exchanges/")
    return marketer, exchange_id, given.pseudonym


def _notice(notified: consentpb.ConsentNotified) -> bytes:
    notice = brokerpb.ConsentNotice(
        consent=notified.consent,
        pseudonym=notified.pseudonym,
        notice=notified.notice,
        signed_notice=notified.signed_notice,
        notice_time=notified.notice_time,
        opening=notified.opening,
    )
    return brokerpb.Delivery(notice=notice).SerializeToString()
