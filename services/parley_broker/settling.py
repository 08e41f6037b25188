"""
Settling: nothing is sent that consent did not settle within the last second.

What was settled is held here, in memory, from the moment of asking (on the monotonic clock) for one second, and is good for one
send. There is no other way to the feed: whatever is sent later is decided, opened and settled anew.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from parley.broker.v1 import broker_pb2 as brokerpb
from parley.common.v1 import permit_pb2 as permitpb
from parley.consent.v1 import consent_pb2 as consentpb
from parley_broker.clients import Consent
from parley_broker.store import ExchangeRecord, ParticipantRecord
from parley_kit.clock import Clock
from parley_kit.faultpoints import reach

WINDOW_S = 1.0
_MOST_HELD = 10_000

Key = tuple[str, str, str]
"""Marketer, exchange id, pseudonym."""


@dataclass(frozen=True, slots=True)
class Settled:
    """A release that was settled, as it may be sent, and when that was asked for."""

    release: brokerpb.ReleaseDelivery
    asked: float


@dataclass
class Settling:
    """Asks consent to settle, and holds what may be sent just now."""

    consent: Consent
    clock: Clock
    _held: dict[Key, Settled] = field(default_factory=dict)

    async def settle(
        self, exchange: ExchangeRecord, participants: Sequence[ParticipantRecord]
    ) -> list[Settled | consentpb.SettleRefusal.ValueType]:
        """Settle what is prepared for these participants of an exchange, in the order given, or learn why not."""
        await reach("broker.before_settle")
        asked = self.clock.monotonic()
        outcomes = await self.consent.settle([_entry(one) for one in participants])
        return [
            outcome.refusal or Settled(_release(exchange, one, outcome), asked)
            for one, outcome in zip(participants, outcomes, strict=True)
        ]

    def hold(self, key: Key, settled: Settled) -> None:
        """Hold a release for its second."""
        if len(self._held) >= _MOST_HELD:
            self._held = {each: one for each, one in self._held.items() if self._is_fresh(one)}
        self._held[key] = settled

    def take(self, key: Key) -> brokerpb.ReleaseDelivery | None:
        """Take a release to be sent at once; None if nothing was settled for it within the last second, or it was sent."""
        settled = self._held.pop(key, None)
        return settled.release if settled and self._is_fresh(settled) else None

    def holds(self, key: Key) -> bool:
        """Whether there is something to take."""
        settled = self._held.get(key)
        return settled is not None and self._is_fresh(settled)

    def _is_fresh(self, settled: Settled) -> bool:
        return self.clock.monotonic() - settled.asked < WINDOW_S


def _entry(participant: ParticipantRecord) -> consentpb.SettleEntry:
    return consentpb.SettleEntry(
        consent_ref=participant.consent_ref,
        permit=permitpb.Permit.FromString(participant.permit or b""),
        batch=permitpb.PermitBatch.FromString(participant.batch or b""),
    )


def _release(
    exchange: ExchangeRecord, participant: ParticipantRecord, outcome: consentpb.SettleOutcome
) -> brokerpb.ReleaseDelivery:
    permit = permitpb.Permit.FromString(participant.permit or b"")
    release = brokerpb.ReleaseDelivery(
        exchange=exchange.name,
        release_id=permitpb.PermitBody.FromString(permit.body).release_id,
        pseudonym=participant.pseudonym,
        sealed_release=participant.sealed or b"",
        consent_artefact=outcome.artefact,
        opening=outcome.opening,
    )
    if outcome.HasField("consent_opening"):
        release.consent_opening.CopyFrom(outcome.consent_opening)
    return release
