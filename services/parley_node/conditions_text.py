"""Conditions as people write them: ``profile.age from 30 to 45``, ``profile.job is not one of student, retired``."""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import reduce
from operator import and_

from parley_client.conditions import Attribute, Condition, Question, question_text
from parley_terms.terms import Field, Form
from parley_terms.values import Catalogue, ValueInvalid, ValueType, canonical, check_question

GRAMMAR = """A condition is one of
  ATTRIBUTE is VALUE                  profile.job is technician
  ATTRIBUTE is not VALUE              interest.hiking is not yes
  ATTRIBUTE is one of VALUE, VALUE    profile.city is one of Lisbon, Porto
  ATTRIBUTE is not one of VALUE, ...
  ATTRIBUTE from LEAST to MOST        profile.age from 30 to 45 (both inclusive)
  ATTRIBUTE at least LEAST            profile.age at least 18
  ATTRIBUTE at most MOST              profile.age at most 45"""

_FORMS = (
    ("not one of", re.compile(r"(\S+)\s+is\s+not\s+one\s+of\s+(.+)")),
    ("one of", re.compile(r"(\S+)\s+is\s+one\s+of\s+(.+)")),
    ("not", re.compile(r"(\S+)\s+is\s+not\s+(?!one\s+of\b)(.+)")),
    ("is", re.compile(r"(\S+)\s+is\s+(?!not\b|one\s+of\b)(.+)")),
    ("range", re.compile(r"(\S+)\s+from\s+(\S+)\s+to\s+(\S+)")),
    ("least", re.compile(r"(\S+)\s+at\s+least\s+(\S+)")),
    ("most", re.compile(r"(\S+)\s+at\s+most\s+(\S+)")),
)
_ORDERED = (ValueType.INTEGER, ValueType.DATE)


class ConditionUnclear(ValueError):
    """The text is no condition, or doesn't fit its attribute; the message says what would."""


def parse_condition(text: str, catalogue: Catalogue) -> Condition:
    """Read a condition. Values come out canonical: ``yes`` is ``true``. Raises ConditionUnclear."""
    form, name, values = _parts(text)
    checked = _checked(form, name, values, catalogue)
    asked = _QUESTIONS[form](Attribute(name), checked)
    try:
        check_question(catalogue[name], asked.criteria.question)
    except ValueInvalid as error:
        raise ConditionUnclear(f"{text!r}: {error}") from error
    return ~asked if form.startswith("not") else asked


def parse_question(text: str, catalogue: Catalogue) -> Question:
    """Read a condition that can be asked for as a yes or no. Raises ConditionUnclear."""
    asked = parse_condition(text, catalogue)
    if not isinstance(asked, Question):
        raise ConditionUnclear(f"{text!r}: ask without `not`; the answer will say no")
    return asked


def parse_conditions(texts: Iterable[str], catalogue: Catalogue) -> Condition:
    """Read conditions that all must hold. Raises ConditionUnclear, also for none."""
    read = [parse_condition(text, catalogue) for text in texts]
    if not read:
        raise ConditionUnclear("give at least one condition")
    return reduce(and_, read)


def field_text(field: Field) -> str:
    """Write what is asked for: a name for the exact value, the question for an answer."""
    if field.form is Form.EXACT:
        return field.attribute
    if field.question is None:
        return f"any answer about {field.attribute}"
    return f"whether {question_text(field.attribute, field.question)}"


def _parts(text: str) -> tuple[str, str, list[str]]:
    for form, pattern in _FORMS:
        if found := pattern.fullmatch(text.strip()):
            name, *values = found.groups()
            return form, name, values[0].split(",") if "one of" in form else values
    raise ConditionUnclear(f"{text!r} is no condition. {GRAMMAR}")


def _checked(form: str, name: str, values: list[str], catalogue: Catalogue) -> list[str]:
    if name not in catalogue:
        raise ConditionUnclear(f"no attribute is called {name!r}: `parley attributes` lists them")
    attribute = catalogue[name]
    if form in ("range", "least", "most") and attribute.type not in _ORDERED:
        raise ConditionUnclear(f"{name} has no order to lie between: ask `{name} is ...`")
    try:
        return [canonical(attribute, value) for value in values]
    except ValueInvalid as error:
        raise ConditionUnclear(str(error)) from error


def _range(attribute: Attribute, values: list[str]) -> Question:
    return attribute.between(values[0], values[1])


def _one_of(attribute: Attribute, values: list[str]) -> Question:
    return attribute.one_of(*values)


_QUESTIONS: Mapping[str, Callable[[Attribute, list[str]], Question]] = {
    "not one of": _one_of,
    "one of": _one_of,
    "not": _one_of,
    "is": _one_of,
    "range": _range,
    "least": lambda attribute, values: attribute.at_least(values[0]),
    "most": lambda attribute, values: attribute.at_most(values[0]),
}
