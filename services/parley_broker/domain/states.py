"""States after the Dataspace Protocol: every participant has one, the exchange's is derived."""

from datetime import datetime
from enum import IntEnum


class Participant(IntEnum):
    """
    Where an exchange stands with one customer. A marketer sees nothing of it but a release.

    AGREED, between decided and settled, is never written down: its values wait in memory, and a crash decides anew.
    """

    REQUESTED = 1
    """To be decided."""
    OFFERED = 2
    """Waits for the customer."""
    ACCEPTED = 3
    """The customer has answered: to be decided again."""
    FINALIZED = 5
    """Released."""
    TERMINATED = 6
    """Ended without a release."""


TO_DECIDE = (Participant.REQUESTED, Participant.ACCEPTED)


class Exchange(IntEnum):
    """Where an exchange stands, as its marketer may know it: time and its own acts, never a customer's."""

    REQUESTED = 1
    FINALIZED = 2
    TERMINATED = 3


def exchange_state(*, cancelled: bool, deadline: datetime, now: datetime) -> Exchange:
    """The state of an exchange. It depends on nobody's decision, so it tells nobody's."""
    if cancelled:
        return Exchange.TERMINATED
    return Exchange.FINALIZED if now >= deadline else Exchange.REQUESTED
