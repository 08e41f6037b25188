"""What broker hears from consent: answers that let an exchange go on, and notices for marketers."""

from collections.abc import Sequence
from dataclasses import dataclass

from parley.broker.v1 import broker_pb2 as brokerpb
from parley.consent.v1 import consent_events_pb2 as consentpb
from parley_broker.store import Store
from parley_bus.consumer import Received
from parley_db.database import Tx
from parley_kit.clock import Clock


@dataclass(frozen=True)
class Hearing:
    """Applies consent's events; those that are for audit alone say nothing to the broker."""

    store: Store
    clock: Clock

    async def consent(self, tx: Tx, events: Sequence[Received]) -> None:
        """Wake participants whose customer accepted; put notices on the feed."""
        for event in events:
            match event.envelope.type:
                case consentpb.ConsentGiven.DESCRIPTOR.full_name:
                    given = consentpb.ConsentGiven.FromString(event.envelope.payload)
                    marketer, _, exchange_id = given.exchange.rpartition("/exchanges/")
                    await self.store.accepted(tx, marketer, exchange_id, given.pseudonym)
                case consentpb.ConsentNotified.DESCRIPTOR.full_name:
                    notified = consentpb.ConsentNotified.FromString(event.envelope.payload)
                    await self.store.notify(tx, notified.marketer, _notice(notified), self.clock.now())


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
