"""A consent's life, after the ReBIT account aggregator scheme."""

from datetime import datetime
from enum import IntEnum


class State(IntEnum):
    """Where a consent stands."""

    REQUESTED = 1
    DEFERRED = 2
    REJECTED = 3
    FAILED = 4
    ACTIVE = 5
    PAUSED = 6
    REVOKED = 7
    EXPIRED = 8
    INVALIDATED = 9


OPEN = frozenset({State.REQUESTED, State.DEFERRED})
LIVE = frozenset({State.ACTIVE, State.PAUSED})

ALLOWED_FROM = {
    State.ACTIVE: OPEN | {State.PAUSED},
    State.DEFERRED: OPEN,
    State.REJECTED: OPEN,
    State.PAUSED: frozenset({State.ACTIVE}),
    State.REVOKED: LIVE,
}


def at(stored: State, deadline: datetime | None, valid_until: datetime | None, now: datetime) -> State:
    """
    The state that time has made of a stored one.

    Lapsing and expiring are derived, never written: no job could be late with them.
    """
    if stored in OPEN and deadline is not None and now >= deadline:
        return State.FAILED
    if stored in LIVE and valid_until is not None and now >= valid_until:
        return State.EXPIRED
    return stored


def may_become(current: State, wanted: State) -> bool:
    """Whether an act may lead from one state to another."""
    return current in ALLOWED_FROM[wanted]
