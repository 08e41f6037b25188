"""Where a refusal leads, and what an exchange's state may tell."""

from datetime import UTC, datetime, timedelta

import pytest

from parley.consent.v1 import consent_pb2 as consentpb
from parley_broker.domain.outcomes import Refusal, after
from parley_broker.domain.states import Exchange, Participant, exchange_state

DEADLINE = datetime(2031, 5, 4, 12, tzinfo=UTC)
INSTANT = timedelta(microseconds=1)


def test_refusals_are_those_of_consent() -> None:
    names = {f"SETTLE_REFUSAL_{one.name}": one.value for one in Refusal}
    assert {**names, "SETTLE_REFUSAL_UNSPECIFIED": 0} == dict(consentpb.SettleRefusal.items())


def test_customer_who_acted_since_is_decided_again() -> None:
    assert Participant.REQUESTED is after(Refusal.STALE)


def test_customer_who_has_paused_is_decided_again() -> None:
    assert Participant.REQUESTED is after(Refusal.PAUSED)


def test_audit_log_that_is_behind_is_waited_for() -> None:
    assert None is after(Refusal.AUDIT_BEHIND)
    assert None is after(Refusal.BUSY)


@pytest.mark.parametrize(
    "refusal", sorted(set(Refusal) - {Refusal.STALE, Refusal.PAUSED, Refusal.AUDIT_BEHIND, Refusal.BUSY})
)
def test_every_other_refusal_ends_it(refusal: Refusal) -> None:
    assert Participant.TERMINATED is after(refusal)


def test_exchange_is_under_way_until_its_deadline() -> None:
    assert Exchange.REQUESTED is exchange_state(cancelled=False, deadline=DEADLINE, now=DEADLINE - INSTANT)
    assert Exchange.FINALIZED is exchange_state(cancelled=False, deadline=DEADLINE, now=DEADLINE)


def test_cancelled_exchange_is_terminated_whatever_the_time() -> None:
    for now in (DEADLINE - INSTANT, DEADLINE, DEADLINE + INSTANT):
        assert Exchange.TERMINATED is exchange_state(cancelled=True, deadline=DEADLINE, now=now)
