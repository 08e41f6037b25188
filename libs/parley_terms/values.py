"""Attributes and their values: one canonical text for each, so that equal values and equal questions have equal bytes."""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from enum import IntEnum

from parley_terms.terms import Level, OneOf, Question, Range

_INTEGER = re.compile(r"-?[0-9]{1,18}")
_TRUE = frozenset({"true", "yes", "y", "1"})
_FALSE = frozenset({"false", "no", "n", "0"})


class ValueType(IntEnum):
    """What a value is made of."""

    TEXT = 1
    INTEGER = 2
    BOOLEAN = 3
    DATE = 4
    CHOICE = 5


class ValueInvalid(ValueError):
    """The value is not of the attribute's kind. The message names what is expected, never the value."""


@dataclass(frozen=True)
class Attribute:
    """A name in the catalogue and what its values must be."""

    name: str
    description: str
    type: ValueType
    unit: str = ""
    choices: tuple[str, ...] = ()
    pattern: str = ""
    min: str = ""
    max: str = ""
    category: str = ""
    least_level: Level = Level.UNVERIFIED


Catalogue = Mapping[str, Attribute]


def canonical(attribute: Attribute, text: str) -> str:
    """Bring a value into the attribute's canonical text. Raises ValueInvalid."""
    value = _parse(attribute, unicodedata.normalize("NFC", text.strip()))
    for bound, outside in ((attribute.min, -1), (attribute.max, 1)):
        if bound and _compare(attribute, value, bound) == outside:
            raise ValueInvalid(f"{attribute.name} lies between {attribute.min or 'any'} and {attribute.max or 'any'}")
    return value


def _parse(attribute: Attribute, text: str) -> str:
    match attribute.type:
        case ValueType.INTEGER if _INTEGER.fullmatch(text):
            return str(int(text))
        case ValueType.BOOLEAN if text.lower() in _TRUE | _FALSE:
            return "true" if text.lower() in _TRUE else "false"
        case ValueType.CHOICE if text in attribute.choices:
            return text
        case ValueType.TEXT if text and re.fullmatch(attribute.pattern or r"[^\x00-\x1f]{1,256}", text):
            return text
        case ValueType.DATE:
            return _date(attribute, text)
    raise ValueInvalid(f"{attribute.name} is {_expectation(attribute)}")


def _date(attribute: Attribute, text: str) -> str:
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        raise ValueInvalid(f"{attribute.name} is {_expectation(attribute)}") from None


def _expectation(attribute: Attribute) -> str:
    match attribute.type:
        case ValueType.INTEGER:
            return "a whole number" + (f" of {attribute.unit}" if attribute.unit else "")
        case ValueType.BOOLEAN:
            return "yes or no"
        case ValueType.DATE:
            return "a date, YYYY-MM-DD"
        case ValueType.CHOICE:
            return "one of " + ", ".join(attribute.choices)
        case ValueType.TEXT:
            return f"text like {attribute.pattern}" if attribute.pattern else "a line of 1 to 256 characters"


def _compare(attribute: Attribute, left: str, right: str) -> int:
    a, b = _order(attribute, left), _order(attribute, right)
    return (a > b) - (a < b)


def _order(attribute: Attribute, text: str) -> int:
    return int(text) if attribute.type is ValueType.INTEGER else date.fromisoformat(text).toordinal()


def check_question(attribute: Attribute, question: Question) -> None:
    """Accept a question in canonical form that fits the attribute. Raises ValueInvalid."""
    match question:
        case OneOf(values):
            if list(values) != sorted({canonical(attribute, value) for value in values}):
                raise ValueInvalid("the values of a question are canonical, sorted, and without repeats")
        case Range(least, most):
            if attribute.type not in (ValueType.INTEGER, ValueType.DATE):
                raise ValueInvalid(f"{attribute.name} has no order to lie between")
            _check_bounds(attribute, least, most)


def _check_bounds(attribute: Attribute, least: str | None, most: str | None) -> None:
    bounds = [bound for bound in (least, most) if bound is not None]
    if not bounds or any(_parse(attribute, bound) != bound for bound in bounds):
        raise ValueInvalid(f"a bound of {attribute.name} is {_expectation(attribute)}, in canonical text")
    if least is not None and most is not None and _compare(attribute, least, most) > 0:
        raise ValueInvalid("the least value must not be above the greatest")


def answer(attribute: Attribute, question: Question, value: str) -> bool:
    """Answer a question that :func:`check_question` accepted about a canonical value."""
    match question:
        case OneOf(values):
            return value in values
        case Range(least, most):
            return (least is None or _compare(attribute, value, least) >= 0) and (
                most is None or _compare(attribute, value, most) <= 0
            )
