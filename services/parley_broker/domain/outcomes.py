"""Where a refusal to settle leads."""

from enum import IntEnum

from parley_broker.domain.states import Participant


class Refusal(IntEnum):
    """Consent's ``SettleRefusal``."""

    STALE = 1
    NOT_CONSENTED = 2
    USED = 3
    EXPIRED = 4
    AUDIT_BEHIND = 5
    PERMIT_INVALID = 6
    PAUSED = 7
    BUSY = 8


def after(refusal: Refusal) -> Participant | None:
    """
    What becomes of a participant whose prepared values may not be released; None: wait and settle again.

    The customer has acted since (STALE), or paused: decide again, and drop the values, which may exceed the new terms.
    """
    match refusal:
        case Refusal.STALE | Refusal.PAUSED:
            return Participant.REQUESTED
        case Refusal.AUDIT_BEHIND | Refusal.BUSY:
            return None
        case _:
            return Participant.TERMINATED
