"""A consent's life: what time makes of it, and which acts are allowed when."""

from datetime import UTC, datetime, timedelta

import pytest

from parley.consent.v1 import consent_pb2 as consentpb
from parley_consent.domain.states import ALLOWED_FROM, LIVE, OPEN, State, at, may_become

NOW = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
INSTANT = timedelta(microseconds=1)
ENDED = frozenset(State) - OPEN - LIVE


@pytest.mark.parametrize("stored", sorted(OPEN))
def test_open_offer_lapses_at_its_deadline_and_not_before(stored: State) -> None:
    assert stored is at(stored, NOW, None, NOW - INSTANT)
    assert State.FAILED is at(stored, NOW, None, NOW)


@pytest.mark.parametrize("stored", sorted(LIVE))
def test_live_consent_expires_at_its_end_and_not_before(stored: State) -> None:
    assert stored is at(stored, None, NOW, NOW - INSTANT)
    assert State.EXPIRED is at(stored, None, NOW, NOW)


def test_live_consent_outlives_the_deadline_of_its_offer() -> None:
    assert State.ACTIVE is at(State.ACTIVE, NOW - INSTANT, NOW + INSTANT, NOW)


def test_open_offer_does_not_expire() -> None:
    assert State.REQUESTED is at(State.REQUESTED, NOW + INSTANT, NOW, NOW)


def test_nothing_without_bounds_ends() -> None:
    assert list(State) == [at(state, None, None, NOW) for state in State]


@pytest.mark.parametrize("stored", sorted(ENDED))
def test_what_has_ended_stays_as_it_ended(stored: State) -> None:
    assert stored is at(stored, NOW, NOW, NOW + INSTANT)


@pytest.mark.parametrize("ended", sorted(ENDED))
@pytest.mark.parametrize("wanted", sorted(ALLOWED_FROM))
def test_no_act_leads_out_of_an_end(ended: State, wanted: State) -> None:
    assert not may_become(ended, wanted)


@pytest.mark.parametrize(
    ("wanted", "sources"),
    [
        (State.ACTIVE, {State.REQUESTED, State.DEFERRED, State.PAUSED}),
        (State.DEFERRED, {State.REQUESTED, State.DEFERRED}),
        (State.REJECTED, {State.REQUESTED, State.DEFERRED}),
        (State.PAUSED, {State.ACTIVE}),
        (State.REVOKED, {State.ACTIVE, State.PAUSED}),
    ],
)
def test_every_act_has_the_states_it_starts_from(wanted: State, sources: set[State]) -> None:
    assert sources == {state for state in State if may_become(state, wanted)}


def test_states_have_the_numbers_of_the_wire() -> None:
    wire = {name.removeprefix("CONSENT_STATE_"): number for name, number in consentpb.ConsentState.items()}
    assert {state.name: state.value for state in State} == {name: wire[name] for name in wire if wire[name]}
