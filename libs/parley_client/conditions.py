"""
Who is asked, and what is asked, as expressions: ``attribute("profile.age").between(30, 45) & ~attribute("x.y").is_(True)``.

Every question in them is canonical (equal questions have equal bytes): texts are trimmed and in NFC, truths are ``true`` and
``false``, dates ISO 8601, sets sorted without repeats. Each is content too: a customer's consent must cover that very question.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import NoReturn

from parley.common.v1 import terms_pb2 as termspb
from parley_terms.terms import AllOf, AnyOf, Criteria, Criterion, Field, Form, Not, OneOf, Range
from parley_terms.wire import question_to

Value = str | int | bool | date

_MOST_IN_A_LIST = 32


class Condition:
    """A condition over attributes. Combine with ``&``, ``|`` and ``~``; two that say the same are equal."""

    __slots__ = ("criteria",)

    def __init__(self, criteria: Criteria) -> None:
        self.criteria = criteria

    def __and__(self, other: "Condition") -> "Condition":
        return Condition(AllOf((*_parts(AllOf, self), *_parts(AllOf, other))))

    def __or__(self, other: "Condition") -> "Condition":
        return Condition(AnyOf((*_parts(AnyOf, self), *_parts(AnyOf, other))))

    def __invert__(self) -> "Condition":
        return Condition(Not(self.criteria))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Condition) and self.criteria == other.criteria

    def __hash__(self) -> int:
        return hash(self.criteria)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.criteria!r})"

    def __bool__(self) -> NoReturn:
        raise TypeError("combine conditions with &, | and ~; `and`, `or` and `not` can't be")


class Question(Condition):
    """One question about one attribute: yes or no. It may be asked for, and it is the key of its answer in a release."""

    __slots__ = ()
    criteria: Criterion

    def __str__(self) -> str:
        """As the command line reads it: ``profile.age from 30 to 45``."""
        return question_text(self.criteria.attribute, self.criteria.question)

    @property
    def field(self) -> Field:
        """As content of terms."""
        return Field(self.criteria.attribute, Form.ANSWER, self.criteria.question)


@dataclass(frozen=True, slots=True)
class Attribute:
    """A name in the catalogue, to ask for its exact value or questions about it."""

    name: str

    @property
    def field(self) -> Field:
        """As content of terms."""
        return Field(self.name, Form.EXACT)

    def is_(self, value: Value) -> Question:
        """Ask whether it is this value."""
        return self.one_of(value)

    def one_of(self, *values: Value) -> Question:
        """Ask whether it is one of these values. Raises ValueError for none."""
        if not values:
            raise ValueError("a question names one value or more")
        return Question(Criterion(self.name, OneOf(tuple(sorted({text_of(value) for value in values})))))

    def between(self, least: Value, most: Value) -> Question:
        """Ask whether it lies within these bounds, both inclusive. Raises ValueError where the least is above the most."""
        if isinstance(least, int | date) and type(least) is type(most) and least > most:  # type: ignore[operator]
            raise ValueError("the least value must not be above the greatest")
        return Question(Criterion(self.name, Range(text_of(least), text_of(most))))

    def at_least(self, least: Value) -> Question:
        """Ask whether it is this, or more."""
        return Question(Criterion(self.name, Range(min=text_of(least))))

    def at_most(self, most: Value) -> Question:
        """Ask whether it is this, or less."""
        return Question(Criterion(self.name, Range(max=text_of(most))))


def attribute(name: str) -> Attribute:
    """Name an attribute: ``attribute("profile.age").at_least(18)``."""
    return Attribute(name)


def question_text(attribute: str, asked: OneOf | Range) -> str:
    """Write a question for people, as the command line reads it."""
    match asked:
        case OneOf((value,)):
            return f"{attribute} is {value}"
        case OneOf(values):
            return f"{attribute} is one of {', '.join(values)}"
        case Range(least, None):
            return f"{attribute} at least {least}"
        case Range(None, most):
            return f"{attribute} at most {most}"
        case Range(least, most):
            return f"{attribute} from {least} to {most}"


def text_of(value: Value) -> str:
    """Write a value as its canonical text. Raises TypeError for a kind no attribute has, ValueError for an empty text."""
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case date() if not isinstance(value, datetime):
            return value.isoformat()
        case str() if text := unicodedata.normalize("NFC", value.strip()):  # an accent has one spelling
            return text
        case str():
            raise ValueError("a value is not empty")
    raise TypeError(f"a value is text, a whole number, a truth or a date, not {type(value).__name__}")


def field_of(asked: "str | Attribute | Question") -> Field:
    """What is asked for, as content: a name or an attribute is its exact value, a question its answer. Raises TypeError."""
    match asked:
        case str():
            return Attribute(asked).field
        case Attribute() | Question():
            return asked.field
    raise TypeError("ask for attributes and single questions; conditions of several questions go into `where`")


def criteria_to(criteria: Criteria) -> termspb.Criteria:
    """Write criteria to the wire."""
    match criteria:
        case Criterion(name, question):
            return termspb.Criteria(test=termspb.Criterion(attribute=name, question=question_to(question)))
        case AllOf(parts):
            return termspb.Criteria(all_of=_grouped(AllOf, parts))
        case AnyOf(parts):
            return termspb.Criteria(any_of=_grouped(AnyOf, parts))
        case Not(part):
            return termspb.Criteria(**{"not": criteria_to(part)})  # type: ignore[arg-type] # a keyword of Python's


def _grouped(kind: type[AllOf | AnyOf], parts: Sequence[Criteria]) -> termspb.CriteriaList:
    """A list holds so many: what is longer is a list of lists, which says the same."""
    while len(parts) > _MOST_IN_A_LIST:
        parts = [kind(tuple(parts[at : at + _MOST_IN_A_LIST])) for at in range(0, len(parts), _MOST_IN_A_LIST)]
    return termspb.CriteriaList(criteria=[criteria_to(part) for part in parts])


def _parts(kind: type[AllOf | AnyOf], condition: Condition) -> tuple[Criteria, ...]:
    if not isinstance(condition, Condition):
        raise TypeError("a condition combines with conditions only")
    criteria = condition.criteria
    return criteria.criteria if isinstance(criteria, kind) else (criteria,)
