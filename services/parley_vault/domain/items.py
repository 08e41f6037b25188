"""Items, and what may become one."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum

from parley_kit.faults import InvalidRequest, Violation
from parley_terms import values as kinds
from parley_terms.faults import AttributeUnknown, InvalidValue
from parley_terms.terms import MOST_FIELDS, AllOf, AnyOf, Criteria, Criterion, Level, Not
from parley_terms.values import Catalogue


class Provenance(IntEnum):
    """Where a value came from."""

    ENTERED = 1
    IMPORTED = 2
    OBSERVED = 3
    INFERRED = 4
    VERIFIED = 5


@dataclass(frozen=True, slots=True)
class Item:
    """One version of an item, in clear. A ``level`` of None: nobody may match on it."""

    attribute: str
    value: str = field(repr=False)
    version: int
    provenance: Provenance
    level: Level | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Entry:
    """A value somebody puts; ``path`` is where it stands in their request."""

    path: str
    subject: str
    attribute: str
    value: str = field(repr=False)
    provenance: Provenance


@dataclass(frozen=True, slots=True)
class Value:
    """A value in its attribute's canonical text, ready to be kept."""

    subject: str
    attribute: str
    text: str = field(repr=False)
    provenance: Provenance


def canonical(catalogue: Catalogue, entries: Sequence[Entry]) -> list[Value]:
    """
    Bring entries into canonical text, all or none.

    Raises InvalidRequest where an item is there twice, AttributeUnknown and InvalidValue; their violations name the entries.
    """
    _refuse_repeats(entries)
    findings = _Findings(catalogue)
    values = [Value(entry.subject, entry.attribute, findings.text(entry), entry.provenance) for entry in entries]
    findings.judge()
    return values


def check(catalogue: Catalogue, criteria: Criteria, path: str) -> None:
    """
    Accept criteria whose questions fit their attributes.

    Raises InvalidRequest for too many, AttributeUnknown and InvalidValue; their violations name the questions.
    """
    tests = _located(criteria, path)
    if len(tests) > MOST_FIELDS:
        raise InvalidRequest(violations=[Violation(path, f"asks more than {MOST_FIELDS} questions")])
    findings = _Findings(catalogue)
    for where, test in tests:
        findings.question(where, test)
    findings.judge()


def _refuse_repeats(entries: Sequence[Entry]) -> None:
    seen: set[tuple[str, str]] = set()
    repeats = []
    for entry in entries:
        if (entry.subject, entry.attribute) in seen:
            repeats.append(Violation(f"{entry.path}.attribute", "is there twice"))
        seen.add((entry.subject, entry.attribute))
    if repeats:
        raise InvalidRequest(violations=repeats)


def _located(criteria: Criteria, path: str) -> list[tuple[str, Criterion]]:
    match criteria:
        case Criterion():
            return [(f"{path}.test", criteria)]
        case AllOf(parts) | AnyOf(parts):
            name = "all_of" if isinstance(criteria, AllOf) else "any_of"
            found = (_located(part, f"{path}.{name}.criteria[{index}]") for index, part in enumerate(parts))
            return [located for some in found for located in some]
        case Not(part):
            return _located(part, f"{path}.not")


class _Findings:
    """Collects what is wrong, so that one answer names all of it."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._unknown: list[Violation] = []
        self._invalid: list[Violation] = []

    def text(self, entry: Entry) -> str:
        """The canonical text; empty where there is none, and that is noted."""
        if attribute := self._attribute(entry.path, entry.attribute):
            try:
                return kinds.canonical(attribute, entry.value)
            except kinds.ValueInvalid as error:
                self._invalid.append(Violation(f"{entry.path}.value", str(error)))
        return ""

    def question(self, path: str, test: Criterion) -> None:
        if attribute := self._attribute(path, test.attribute):
            try:
                kinds.check_question(attribute, test.question)
            except kinds.ValueInvalid as error:
                self._invalid.append(Violation(f"{path}.question", str(error)))

    def judge(self) -> None:
        if self._unknown:
            raise AttributeUnknown(violations=self._unknown)
        if self._invalid:
            raise InvalidValue(violations=self._invalid)

    def _attribute(self, path: str, name: str) -> kinds.Attribute | None:
        attribute = self._catalogue.get(name)
        if attribute is None:
            self._unknown.append(Violation(f"{path}.attribute", "is not in the catalogue"))
        return attribute
