"""What consent keeps, as values."""

from dataclasses import dataclass, field
from datetime import datetime

from parley_consent.domain.deciding import Effect, Scope
from parley_consent.domain.states import State


@dataclass(frozen=True, slots=True)
class RuleRecord:
    """A rule as it is kept; ``terms`` are the exact bytes that were given."""

    rule_id: str
    effect: Effect
    scope: Scope
    terms: bytes
    created_at: datetime


@dataclass(frozen=True, slots=True)
class MarketerRecord:
    """A marketer as it was when it asked."""

    marketer: str
    name: str
    entity: str
    contact: str
    level: int


@dataclass(frozen=True, slots=True)
class SettlementRecord:
    """A release that was committed."""

    release_id: str
    exchange: str
    settled_at: datetime


@dataclass(frozen=True, slots=True)
class ConsentRecord:
    """
    An offer, and the consent that came of it or of a rule; ``state`` is the stored one.

    ``settlements``, the newest first and not all if there are ``more``, come where a consent is read by itself, not in pages.
    """

    consent_id: str
    state: State
    marketer: MarketerRecord
    pseudonym: str
    exchange: str
    terms: bytes
    offer_text: str
    rule_id: str
    artefact: str
    salt: bytes = field(repr=False)
    detail: bytes = field(repr=False)
    decision_deadline: datetime
    valid_until: datetime
    created_at: datetime
    agreed_at: datetime | None
    revoked_at: datetime | None
    revoked_by: str
    settlements: tuple[SettlementRecord, ...]
    more: bool = False
