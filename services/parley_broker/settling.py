"""
Settling: nothing is sent that consent did not settle within the last second.

Every settlement that is asked for is remembered with the moment of asking, on the monotonic clock: the window in which what
it covers may be sent, once. There is no other way to the feed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from parley.common.v1 import permit_pb2 as permitpb
from parley.consent.v1 import consent_pb2 as consentpb
from parley_broker.clients import Consent
from parley_broker.store import ParticipantRecord
from parley_kit.clock import Clock
from parley_kit.faultpoints import reach

WINDOW_S = 1.0

Key = tuple[str, str, str, bytes]
"""Marketer, exchange, pseudonym, and the very values that were settled: others, prepared before or since, are not."""


@dataclass
class Settling:
    """Asks consent to settle, and knows what may be sent just now."""

    consent: Consent
    clock: Clock
    _asked: dict[Key, float] = field(default_factory=dict)

    async def settle(self, participants: Sequence[ParticipantRecord]) -> list[consentpb.SettleOutcome]:
        """Settle what is prepared for these, in the order given; what isn't prepared is refused as stale."""
        ready = [one for one in participants if one.permit and one.batch]
        await reach("broker.before_settle")
        asked = self.clock.monotonic()
        outcomes = iter(await self.consent.settle([_entry(one) for one in ready]) if ready else [])
        self._forget(asked)
        results = []
        for one in participants:
            outcome = next(outcomes) if one.permit and one.batch else _nothing_prepared()
            if outcome.refusal == consentpb.SETTLE_REFUSAL_UNSPECIFIED:
                self._asked[_key(one)] = asked
            else:
                self._asked.pop(_key(one), None)
            results.append(outcome)
        return results

    def may_send(self, key: Key) -> bool:
        """Whether a release was settled by an asking within the last second, and not sent since."""
        asked = self._asked.get(key)
        return asked is not None and self.clock.monotonic() - asked < WINDOW_S

    def spend(self, key: Key) -> bool:
        """As :meth:`may_send`, for the one send that a settlement is good for: the next one settles again."""
        may = self.may_send(key)
        self._asked.pop(key, None)
        return may

    def _forget(self, now: float) -> None:
        if len(self._asked) > 10_000:
            self._asked = {key: asked for key, asked in self._asked.items() if now - asked < WINDOW_S}


def _key(participant: ParticipantRecord) -> Key:
    return participant.marketer, participant.exchange_id, participant.pseudonym, participant.sealed or b""


def _nothing_prepared() -> consentpb.SettleOutcome:
    return consentpb.SettleOutcome(refusal=consentpb.SETTLE_REFUSAL_STALE)


def _entry(participant: ParticipantRecord) -> consentpb.SettleEntry:
    return consentpb.SettleEntry(
        consent_ref=participant.consent_ref,
        permit=permitpb.Permit.FromString(participant.permit or b""),
        batch=permitpb.PermitBatch.FromString(participant.batch or b""),
    )
