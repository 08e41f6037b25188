from datetime import UTC, datetime, timedelta

import pytest

from parley_terms.purposes import DPV, PURPOSES
from parley_terms.terms import Field, Form, Level, OneOf, Range, Terms, Validity

START, END = datetime(2030, 1, 1, tzinfo=UTC), datetime(2030, 2, 1, tzinfo=UTC)
TICK = timedelta(microseconds=1)
AGE, ADULT = "profile.age", Range("18")


@pytest.mark.parametrize(
    ("allowed", "asked", "covers"),
    [
        (Field(AGE, Form.EXACT), Field(AGE, Form.EXACT), True),
        (Field(AGE, Form.EXACT), Field(AGE, Form.ANSWER, ADULT), True),
        (Field(AGE, Form.EXACT), Field(AGE, Form.BANDED), False),
        (Field(AGE, Form.EXACT), Field("profile.city", Form.EXACT), False),
        (Field(AGE, Form.ANSWER), Field(AGE, Form.ANSWER, ADULT), True),
        (Field(AGE, Form.ANSWER, ADULT), Field(AGE, Form.ANSWER, ADULT), True),
        (Field(AGE, Form.ANSWER, ADULT), Field(AGE, Form.ANSWER, Range("19")), False),
        (Field(AGE, Form.ANSWER, OneOf(("18",))), Field(AGE, Form.ANSWER, Range("18", "18")), False),
        (Field(AGE, Form.ANSWER, ADULT), Field(AGE, Form.ANSWER), False),
        (Field(AGE, Form.ANSWER), Field(AGE, Form.EXACT), False),
        (Field(AGE, Form.ANSWER), Field("profile.city", Form.ANSWER), False),
        (Field(AGE, Form.BANDED), Field(AGE, Form.BANDED), False),
        (Field(AGE, Form.BANDED), Field(AGE, Form.ANSWER, ADULT), False),
    ],
)
def test_exact_covers_answers_and_an_answer_its_very_question(allowed: Field, asked: Field, covers: bool) -> None:
    assert covers == Terms(fields=(allowed,)).covers(asked)


def test_span_holds_its_start_and_not_its_end() -> None:
    span = Validity(START, END)

    assert [False, True, True, False] == [span.holds(at) for at in (START - TICK, START, END - TICK, END)]
    assert Validity().holds(START)


@pytest.mark.parametrize(
    ("outer", "inner", "contains"),
    [
        (Validity(), Validity(), True),
        (Validity(START, END), Validity(START, END), True),
        (Validity(START, END), Validity(START, END + TICK), False),
        (Validity(START, END), Validity(START - TICK, END), False),
        (Validity(START, END), Validity(START), False),
        (Validity(START), Validity(START), True),
        (Validity(START, END), Validity(None, END), True),
        (Validity(START + 2 * TICK, END), Validity(None, END), False),
    ],
)
def test_span_lies_within_another_where_its_absent_start_is_now(
    outer: Validity, inner: Validity, contains: bool
) -> None:
    assert contains == outer.contains(inner, START + TICK)


def test_attributes_are_named_once() -> None:
    fields = (Field(AGE, Form.EXACT), Field(AGE, Form.ANSWER, ADULT), Field("profile.city", Form.EXACT))

    assert {AGE, "profile.city"} == Terms(fields).attributes


@pytest.mark.parametrize(
    ("purpose", "days", "level"),
    [
        ("Marketing", 92, Level.VERIFIED),
        ("CommercialResearch", 92, Level.VERIFIED),
        ("Personalisation", 366, Level.VERIFIED),
        ("FraudPreventionAndDetection", 366, Level.VERIFIED),
        ("CustomerCare", 366, Level.UNVERIFIED),
        ("AgeVerification", 366, Level.UNVERIFIED),
    ],
)
def test_purpose_has_its_caps(purpose: str, days: int, level: Level) -> None:
    caps = PURPOSES[DPV + purpose]

    assert (timedelta(days=days), level) == (caps.longest, caps.least_level)


def test_every_purpose_is_an_iri_that_requests_may_hold_and_is_capped() -> None:
    assert 26 == len(PURPOSES)
    for iri, caps in PURPOSES.items():
        assert iri.removeprefix(DPV).isalpha()
        assert timedelta(0) < caps.longest <= timedelta(days=366)


def test_advertising_of_any_kind_is_only_for_whom_was_checked() -> None:
    for iri, caps in PURPOSES.items():
        if "Advertising" in iri or "Marketing" in iri:
            assert (Level.VERIFIED, timedelta(days=92)) == (caps.least_level, caps.longest)
