"""Terms as values: what ``parley.common.v1.Terms`` says, in the parts that are enforced, and which other parts were set."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum

MOST_FIELDS = 64
"""That terms may have, and so criteria questions: each of them is content."""


class Form(IntEnum):
    """The form an attribute is given in."""

    EXACT = 1
    BANDED = 2
    ANSWER = 3


class Use(IntEnum):
    """How often agreed content may be used."""

    ONE_TIME = 1
    STANDING = 2


class Channel(IntEnum):
    """A way to reach a customer; the ones that are enforced."""

    DATA = 1
    WEB_INBOX = 2


class Level(IntEnum):
    """How far the operator has checked who a marketer is."""

    UNVERIFIED = 1
    VERIFIED = 2
    ACCREDITED = 3


@dataclass(frozen=True, slots=True)
class OneOf:
    """Is the value one of these? Canonical: sorted, without repeats."""

    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Range:
    """Does the value lie within these bounds? Both are inclusive."""

    min: str | None = None
    max: str | None = None


Question = OneOf | Range


@dataclass(frozen=True, slots=True)
class Field:
    """One attribute in one form. A question of None stands, in a rule, for any question about the attribute."""

    attribute: str
    form: Form
    question: Question | None = None


@dataclass(frozen=True, slots=True)
class Validity:
    """A span of time, start inclusive, end exclusive; None is no bound."""

    start: datetime | None = None
    end: datetime | None = None

    def holds(self, at: datetime) -> bool:
        """The moment lies within."""
        return (self.start is None or self.start <= at) and (self.end is None or at < self.end)

    def contains(self, other: "Validity", now: datetime) -> bool:
        """The other span lies wholly within; its absent start is now."""
        start = other.start or now
        return (self.start is None or self.start <= start) and (
            self.end is None or (other.end is not None and other.end <= self.end)
        )


@dataclass(frozen=True, slots=True)
class Terms:
    """The dials that are enforced; ``unsupported`` names (by proto path) every other part that was set."""

    fields: tuple[Field, ...] = ()
    use: Use | None = None
    purposes: frozenset[str] = frozenset()
    channels: frozenset[Channel] = frozenset()
    validity: Validity = Validity()
    decision_deadline: datetime | None = None
    unsupported: tuple[str, ...] = ()
    _named: Mapping[str, frozenset[Question | Form | None]] | None = field(
        default=None, init=False, repr=False, compare=False
    )

    def covers(self, asked: Field) -> bool:
        """
        Whether whoever is allowed this may be given what is asked: exact covers any answer, an answer only its very question.

        Fields are looked up, not gone through: a customer may have a thousand rules of 64 fields, and is decided among others.
        """
        named = self._look_up().get(asked.attribute)
        if named is None or asked.form not in (Form.EXACT, Form.ANSWER):
            return False
        if Form.EXACT in named:
            return True
        return asked.form is Form.ANSWER and (asked.question in named or None in named)

    def _look_up(self) -> Mapping[str, frozenset[Question | Form | None]]:
        """Of each attribute the questions that may be answered, and whether any may, or its exact value be given."""
        if self._named is not None:
            return self._named
        named: dict[str, set[Question | Form | None]] = {}
        for one in self.fields:
            what = one.question if one.form is Form.ANSWER else one.form
            named.setdefault(one.attribute, set()).add(what)
        found = {attribute: frozenset(what) for attribute, what in named.items()}
        object.__setattr__(self, "_named", found)
        return found

    @property
    def attributes(self) -> frozenset[str]:
        """The attributes that are named."""
        return frozenset(one.attribute for one in self.fields)


@dataclass(frozen=True, slots=True)
class Criterion:
    """A question about an attribute."""

    attribute: str
    question: Question


@dataclass(frozen=True, slots=True)
class AllOf:
    """Every one holds."""

    criteria: tuple["Criteria", ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one holds."""

    criteria: tuple["Criteria", ...]


@dataclass(frozen=True, slots=True)
class Not:
    """It doesn't hold, of a customer whose attributes are all there to be asked."""

    criteria: "Criteria"


Criteria = Criterion | AllOf | AnyOf | Not


def each_criterion(criteria: Criteria) -> Iterator[Criterion]:
    """Every question in the criteria: each is content that a consent must cover."""
    match criteria:
        case Criterion():
            yield criteria
        case AllOf(inner) | AnyOf(inner):
            for part in inner:
                yield from each_criterion(part)
        case Not(part):
            yield from each_criterion(part)
