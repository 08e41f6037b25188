"""What a marketer may ask: every objection, by reason and path."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from parley_broker.domain.requests import LONGEST_DECISION, Wrong, objections, with_questions
from parley_terms.purposes import DPV, PURPOSES
from parley_terms.terms import (
    MOST_FIELDS,
    AllOf,
    AnyOf,
    Channel,
    Criterion,
    Field,
    Form,
    Level,
    Not,
    OneOf,
    Range,
    Terms,
    Use,
    Validity,
)
from parley_terms.values import Attribute, ValueType

NOW = datetime(2031, 5, 4, 12, tzinfo=UTC)
DAY, INSTANT = timedelta(days=1), timedelta(microseconds=1)
CATALOGUE = {
    "profile.city": Attribute("profile.city", "City.", ValueType.TEXT),
    "profile.age": Attribute("profile.age", "Age.", ValueType.INTEGER),
    "finance.income": Attribute("finance.income", "Income.", ValueType.INTEGER, least_level=Level.VERIFIED),
}
CITY = Field("profile.city", Form.EXACT)
INCOME = Field("finance.income", Form.EXACT)
ADULT = Range("18", None)
GOOD = Terms(
    fields=(CITY,),
    use=Use.STANDING,
    purposes=frozenset({DPV + "Marketing"}),
    channels=frozenset({Channel.DATA, Channel.WEB_INBOX}),
    validity=Validity(None, NOW + 30 * DAY),
    decision_deadline=NOW + 7 * DAY,
)
CARE = frozenset({DPV + "CustomerCare"})


def found(level: Level = Level.VERIFIED, **changes: Any) -> list[tuple[Wrong, str]]:
    """What is objected to good terms with some changes."""
    return [(one.wrong, one.path) for one in objections(replace(GOOD, **changes), level, CATALOGUE, NOW)]


def test_what_criteria_ask_is_named_as_theirs() -> None:
    stray = Field("profile.agge", Form.ANSWER, Range("18"))
    terms = replace(GOOD, fields=(*GOOD.fields, stray))

    (found,) = objections(terms, Level.ACCREDITED, CATALOGUE, NOW, own=len(GOOD.fields))

    assert (Wrong.ATTRIBUTE, "audience.criteria.attribute", True) == (
        found.wrong,
        found.path,
        "profile.agge" in found.says,
    )


def test_good_request_meets_no_objection() -> None:
    assert [] == found()


@pytest.mark.parametrize(
    ("changes", "objection"),
    [
        ({"unsupported": ("goals",)}, (Wrong.UNSUPPORTED, "terms.goals")),
        ({"fields": ()}, (Wrong.MALFORMED, "terms.content.fields")),
        ({"fields": (CITY,) * (MOST_FIELDS + 1)}, (Wrong.MALFORMED, "terms.content.fields")),
        ({"use": None}, (Wrong.MALFORMED, "terms.content.use")),
        ({"channels": frozenset({Channel.WEB_INBOX})}, (Wrong.UNSUPPORTED, "terms.mode.channels")),
        ({"purposes": frozenset()}, (Wrong.PURPOSE, "terms.purposes")),
        ({"purposes": frozenset({DPV + "Marketing", DPV + "Nonsense"})}, (Wrong.PURPOSE, "terms.purposes")),
        ({"validity": Validity()}, (Wrong.DATES, "terms.timing")),
        ({"decision_deadline": None}, (Wrong.DATES, "terms.timing")),
        (
            {"validity": Validity(NOW + DAY, NOW + 30 * DAY)},
            (Wrong.UNSUPPORTED, "terms.timing.validity.start_time"),
        ),
        ({"decision_deadline": NOW}, (Wrong.DATES, "terms.timing.decision_deadline")),
        ({"decision_deadline": NOW + 31 * DAY}, (Wrong.DATES, "terms.timing.decision_deadline")),
        (
            {"fields": (CITY, Field("profile.nonsense", Form.EXACT))},
            (Wrong.ATTRIBUTE, "terms.content.fields[1].attribute"),
        ),
        ({"fields": (Field("profile.age", Form.ANSWER),)}, (Wrong.MALFORMED, "terms.content.fields[0].question")),
        ({"fields": (Field("profile.age", Form.EXACT, ADULT),)}, (Wrong.MALFORMED, "terms.content.fields[0].question")),
        (
            {"fields": (Field("profile.age", Form.ANSWER, Range("018", None)),)},
            (Wrong.QUESTION, "terms.content.fields[0].question"),
        ),
        (
            {"fields": (Field("profile.city", Form.ANSWER, OneOf(("b", "a"))),)},
            (Wrong.QUESTION, "terms.content.fields[0].question"),
        ),
    ],
)
def test_each_wrong_is_objected_to_by_its_path(changes: dict[str, Any], objection: tuple[Wrong, str]) -> None:
    assert [objection] == found(**changes)


@pytest.mark.parametrize("purpose", sorted(PURPOSES))
def test_every_purpose_keeps_to_its_caps(purpose: str) -> None:
    caps, purposes = PURPOSES[purpose], frozenset({purpose})
    longest, too_long = Validity(None, NOW + caps.longest), Validity(None, NOW + caps.longest + INSTANT)
    assert [] == found(caps.least_level, purposes=purposes, validity=longest)
    assert [(Wrong.DATES, "terms.timing.validity")] == found(caps.least_level, purposes=purposes, validity=too_long)
    below = [Level(level) for level in range(Level.UNVERIFIED, caps.least_level)]
    assert [[(Wrong.LEVEL, "terms.purposes")]] * len(below) == [found(level, purposes=purposes) for level in below]


def test_shortest_cap_of_several_purposes_holds() -> None:
    both, year = frozenset({DPV + "Marketing", DPV + "Personalisation"}), Validity(None, NOW + 366 * DAY)
    assert [] == found(purposes=frozenset({DPV + "Personalisation"}), validity=year)
    assert [(Wrong.DATES, "terms.timing.validity")] == found(purposes=both, validity=year)


def test_decision_may_take_only_so_long() -> None:
    year: dict[str, Any] = {"purposes": CARE, "validity": Validity(None, NOW + 366 * DAY)}
    assert [] == found(**year, decision_deadline=NOW + LONGEST_DECISION)
    late = found(**year, decision_deadline=NOW + LONGEST_DECISION + INSTANT)
    assert [(Wrong.DATES, "terms.timing.decision_deadline")] == late


def test_attribute_may_need_a_level_that_its_purpose_does_not() -> None:
    assert [] == found(Level.UNVERIFIED, purposes=CARE)
    asked: dict[str, Any] = {"purposes": CARE, "fields": (CITY, INCOME)}
    assert [(Wrong.LEVEL, "terms.content.fields[1].attribute")] == found(Level.UNVERIFIED, **asked)
    assert [] == found(Level.VERIFIED, **asked)


def test_gravest_kind_comes_first() -> None:
    kinds = [wrong for wrong, _ in found(unsupported=("goals",), use=None, purposes=frozenset(), validity=Validity())]
    assert [Wrong.UNSUPPORTED, Wrong.MALFORMED, Wrong.PURPOSE, Wrong.DATES] == kinds


def test_every_question_of_the_criteria_is_among_the_fields_once() -> None:
    adult, senior = Criterion("profile.age", ADULT), Criterion("profile.age", Range("65", None))
    lisbon = Criterion("profile.city", OneOf(("Lisbon",)))
    criteria = AllOf((adult, Not(senior), AnyOf((lisbon, adult))))
    asked = with_questions(replace(GOOD, fields=(CITY, Field("profile.age", Form.ANSWER, ADULT))), criteria)
    assert (
        CITY,
        Field("profile.age", Form.ANSWER, ADULT),
        Field("profile.age", Form.ANSWER, senior.question),
        Field("profile.city", Form.ANSWER, lisbon.question),
    ) == asked.fields


def test_without_criteria_terms_stay_as_they_are() -> None:
    assert with_questions(GOOD, None) == GOOD


def test_question_of_the_criteria_needs_the_level_of_its_attribute() -> None:
    rich = with_questions(replace(GOOD, purposes=CARE), Criterion("finance.income", Range("1", None)))
    assert [Wrong.LEVEL] == [one.wrong for one in objections(rich, Level.UNVERIFIED, CATALOGUE, NOW)]
