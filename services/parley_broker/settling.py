"""
Settling: nothing is sent that consent did not settle within the last second, and nothing settled that vault opened longer before.

What was settled is held here, in memory, from the moment of asking (on the monotonic clock) for one second, and is good for one
send. There is no other way to a marketer: whatever is sent later is decided, opened and settled anew.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import compress
from typing import TypeAlias

from parley.broker.v1 import broker_pb2 as brokerpb
from parley.common.v1 import permit_pb2 as permitpb
from parley.consent.v1 import consent_pb2 as consentpb
from parley_broker.clients import Consent
from parley_broker.store import ExchangeRecord, Key, ParticipantRecord
from parley_kit.clock import Clock
from parley_kit.coalesce import Coalescer
from parley_kit.faultpoints import reach

WINDOW_S = 1.0
_MOST_AHEAD = 50


@dataclass(frozen=True, slots=True)
class Prepared:
    """
    Values of a participant of an exchange, opened under a permit and sealed to the marketer; and when vault was asked for them.

    Nothing has left, and nothing is kept.
    """

    exchange: ExchangeRecord
    participant: ParticipantRecord
    permit: permitpb.Permit = field(repr=False)
    batch: permitpb.PermitBatch = field(repr=False)
    sealed: bytes = field(repr=False)
    opened: float


@dataclass(frozen=True, slots=True)
class Settled:
    """A release that was settled, as it may be sent, and when that was asked for."""

    release: brokerpb.ReleaseDelivery
    asked: float


Outcome: TypeAlias = Settled | consentpb.SettleRefusal.ValueType


class Settling:
    """Asks consent to settle, and holds what may be sent just now."""

    def __init__(self, consent: Consent, clock: Clock) -> None:
        self._consent = consent
        self._clock = clock
        self._single = Coalescer(self._settle)
        self._held: dict[Key, Settled] = {}
        self._followed: Counter[str] = Counter()

    async def settle(self, prepared: Sequence[Prepared]) -> Sequence[Outcome]:
        """Settle what is prepared, in the order given, or learn why not. What comes alone shares a call with others that do."""
        if len(prepared) == 1:
            return [await self._single.submit(prepared[0])]
        return await self._settle(prepared)

    async def _settle(self, prepared: Sequence[Prepared]) -> Sequence[Outcome]:
        await reach("broker.before_settle")
        asked = self._clock.monotonic()
        is_new = [asked - one.opened < WINDOW_S for one in prepared]  # else it may have been changed or deleted since
        entries = [_entry(one) for one in compress(prepared, is_new)]
        outcomes = iter(await self._consent.settle(entries) if entries else [])
        return [
            _outcome(one, next(outcomes), asked) if new else consentpb.SETTLE_REFUSAL_STALE
            for one, new in zip(prepared, is_new, strict=True)
        ]

    def hold(self, key: Key, settled: Settled) -> None:
        """Hold a release for its second."""
        self._held.pop(key, None)
        self._held[key] = settled

    def forget(self) -> None:
        """Let go of what was held for its second and not sent, as it came: within two seconds at most."""
        while self._held and not self.is_fresh(self._held[oldest := next(iter(self._held))]):
            del self._held[oldest]

    def take(self, key: Key) -> brokerpb.ReleaseDelivery | None:
        """Take a release to be sent at once; None if nothing was settled for it within the last second, or it was sent."""
        settled = self._held.pop(key, None)
        return settled.release if settled and self.is_fresh(settled) else None

    def holds(self, key: Key) -> bool:
        """Whether there is something to take."""
        settled = self._held.get(key)
        return settled is not None and self.is_fresh(settled)

    @contextmanager
    def following(self, marketer: str) -> Iterator[None]:
        """Know, for the length of a block, that somebody follows a marketer's feed here."""
        self._followed[marketer] += 1
        try:
            yield
        finally:
            self._followed[marketer] -= 1

    def ahead(self) -> set[str]:
        """
        The marketers for whose feeds so much is settled that more would grow too old before it is sent.

        Only where somebody follows a feed here: what nobody waits for is settled to be decided, and sent when it is.
        """
        self.forget()
        waiting = Counter(key[0] for key, one in self._held.items() if self.is_fresh(one))
        return {marketer for marketer, many in waiting.items() if self._followed[marketer] and many >= _MOST_AHEAD}

    def is_fresh(self, settled: Settled) -> bool:
        """Whether it may still be sent."""
        return self._clock.monotonic() - settled.asked < WINDOW_S


def _outcome(one: Prepared, outcome: consentpb.SettleOutcome, asked: float) -> Outcome:
    return outcome.refusal or Settled(_release(one, outcome), asked)


def _entry(one: Prepared) -> consentpb.SettleEntry:
    return consentpb.SettleEntry(consent_ref=one.participant.consent_ref, permit=one.permit, batch=one.batch)


def _release(one: Prepared, outcome: consentpb.SettleOutcome) -> brokerpb.ReleaseDelivery:
    release = brokerpb.ReleaseDelivery(
        exchange=one.exchange.name,
        release_id=permitpb.PermitBody.FromString(one.permit.body).release_id,
        pseudonym=one.participant.pseudonym,
        sealed_release=one.sealed,
        consent_artefact=outcome.artefact,
        opening=outcome.opening,
    )
    if outcome.HasField("consent_opening"):
        release.consent_opening.CopyFrom(outcome.consent_opening)
    return release
