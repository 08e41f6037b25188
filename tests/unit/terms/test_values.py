from datetime import date, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parley_terms.terms import OneOf, Question, Range
from parley_terms.values import Attribute, ValueInvalid, ValueType, answer, canonical, check_question

AGE = Attribute("profile.age", "Age.", ValueType.INTEGER, unit="years", min="0", max="130")
DEBT = Attribute("finance.debt", "Debt.", ValueType.INTEGER)
BORN = Attribute("profile.birthdate", "Born.", ValueType.DATE, min="1890-01-01")
HIKES = Attribute("interest.hiking", "Hikes.", ValueType.BOOLEAN)
JOB = Attribute("profile.job", "Job.", ValueType.CHOICE, choices=("other", "retired", "student"))
CITY = Attribute("profile.city", "City.", ValueType.TEXT)
COUNTRY = Attribute("profile.country", "Country.", ValueType.TEXT, pattern="[A-Z]{2}")
ALL = [AGE, DEBT, BORN, HIKES, JOB, CITY, COUNTRY]

# Texts near to what is accepted, so that a good part of the examples gets through.
texts = st.one_of(
    st.text(max_size=12),
    st.integers(-200, 10**19).map(str),
    st.from_regex(r"\s?-?0*[0-9]{1,4}\s?", fullmatch=True),
    st.dates().map(date.isoformat),
    st.dates().map(lambda day: day.strftime("%G-W%V-%u")),
    st.sampled_from(["yes", "No", "TRUE", "0", "y ", "student", " retired", "PT", "Zürich\t"]),
)
numbers = st.integers(-5, 5)


@pytest.mark.parametrize(
    ("attribute", "text", "value"),
    [
        (AGE, "42", "42"),
        (AGE, " 042 ", "42"),
        (AGE, "-0", "0"),
        (AGE, "130", "130"),
        (DEBT, "-007", "-7"),
        (DEBT, "9" * 18, "9" * 18),
        (BORN, "1990-02-28", "1990-02-28"),
        (BORN, " 19900228", "1990-02-28"),
        (BORN, "1890-01-01", "1890-01-01"),
        (HIKES, "Yes", "true"),
        (HIKES, "1", "true"),
        (HIKES, " n ", "false"),
        (HIKES, "FALSE", "false"),
        (JOB, " student\n", "student"),
        (CITY, "  Zürich ", "Zürich"),
        (CITY, "Sa\u0303o Paulo", "S\u00e3o Paulo"),
        (CITY, "x" * 256, "x" * 256),
        (COUNTRY, "PT", "PT"),
    ],
)
def test_value_is_brought_into_its_one_text(attribute: Attribute, text: str, value: str) -> None:
    assert value == canonical(attribute, text)


@pytest.mark.parametrize(
    ("attribute", "text", "says"),
    [
        (AGE, "forty", "a whole number of years"),
        (AGE, "4.2", "a whole number of years"),
        (AGE, "+42", "a whole number"),
        (AGE, "٤٢", "a whole number"),
        (AGE, "1_0", "a whole number"),
        (AGE, "", "a whole number"),
        (AGE, "131", "between 0 and 130"),
        (AGE, "-1", "between 0 and 130"),
        (DEBT, "9" * 19, "a whole number$"),
        (BORN, "1889-12-31", "between 1890-01-01 and any"),
        (BORN, "1990-02-30", "YYYY-MM-DD"),
        (BORN, "28.02.1990", "YYYY-MM-DD"),
        (BORN, "1990-02-28T00:00", "YYYY-MM-DD"),
        (HIKES, "maybe", "yes or no"),
        (HIKES, "", "yes or no"),
        (JOB, "Student", "one of other, retired, student"),
        (JOB, "", "one of"),
        (CITY, "", "1 to 256 characters"),
        (CITY, " \t", "1 to 256 characters"),
        (CITY, "x" * 257, "1 to 256 characters"),
        (CITY, "a\nb", "1 to 256 characters"),
        (CITY, "a\0b", "1 to 256 characters"),
        (COUNTRY, "pt", r"text like \[A-Z\]\{2\}"),
        (COUNTRY, "PRT", "text like"),
    ],
)
def test_refusal_says_what_is_expected_and_never_the_value(attribute: Attribute, text: str, says: str) -> None:
    with pytest.raises(ValueInvalid, match=says) as refused:
        canonical(attribute, text)
    assert str(refused.value).startswith(attribute.name)
    assert not text.strip() or text.strip() not in str(refused.value).removeprefix(attribute.name).replace("130", "")


@settings(deadline=None)
@given(st.sampled_from(ALL), texts)
def test_canonical_text_is_its_own(attribute: Attribute, text: str) -> None:
    try:
        value = canonical(attribute, text)
    except ValueInvalid:
        return
    assert value == canonical(attribute, value)
    check_question(attribute, OneOf((value,)))
    assert answer(attribute, OneOf((value,)), value)


@pytest.mark.parametrize(
    ("attribute", "question"),
    [
        (AGE, OneOf(("7", "10"))),
        (AGE, OneOf(("10", "10"))),
        (AGE, OneOf(("010",))),
        (AGE, OneOf(("131",))),
        (JOB, OneOf(("student", "retired"))),
        (JOB, OneOf(("artist",))),
        (HIKES, OneOf(("yes",))),
        (CITY, OneOf((" Rome",))),
        (CITY, OneOf(("Sa\u0303o Paulo",))),
        (JOB, Range("other", "student")),
        (CITY, Range("a", None)),
        (HIKES, Range(None, "true")),
        (AGE, Range()),
        (AGE, Range("")),
        (AGE, Range("018")),
        (AGE, Range("18", "17")),
        (AGE, Range("18", "many")),
        (BORN, Range("2000-01-02", "2000-01-01")),
        (BORN, Range("20000101")),
        (DEBT, Range("-1", "-2")),
    ],
)
def test_question_that_is_not_canonical_or_does_not_fit_is_refused(attribute: Attribute, question: Question) -> None:
    with pytest.raises(ValueInvalid):
        check_question(attribute, question)


@pytest.mark.parametrize(
    ("attribute", "question"),
    [
        (AGE, OneOf(("10", "7"))),
        (JOB, OneOf(("retired", "student"))),
        (HIKES, OneOf(("false", "true"))),
        (AGE, Range("18")),
        (AGE, Range(None, "17")),
        (AGE, Range("18", "18")),
        (DEBT, Range("-2", "10")),
        (BORN, Range("2000-01-01", "2000-12-31")),
    ],
)
def test_question_that_fits_is_accepted(attribute: Attribute, question: Question) -> None:
    check_question(attribute, question)


@settings(deadline=None)
@given(numbers, st.none() | numbers, st.none() | numbers)
def test_range_of_numbers_is_answered_as_numbers_are_ordered(value: int, least: int | None, most: int | None) -> None:
    question = Range(None if least is None else str(least), None if most is None else str(most))
    within = {*range(-5 if least is None else least, (5 if most is None else most) + 1)}

    assert (value in within) == answer(DEBT, question, str(value))


@settings(deadline=None)
@given(numbers, st.none() | numbers, st.none() | numbers)
def test_range_of_dates_is_answered_as_days_follow(value: int, least: int | None, most: int | None) -> None:
    days = {number: (date(1999, 12, 31) + timedelta(days=number)).isoformat() for number in range(-5, 6)}
    question = Range(None if least is None else days[least], None if most is None else days[most])
    within = {*range(-5 if least is None else least, (5 if most is None else most) + 1)}

    assert (value in within) == answer(BORN, question, days[value])


@settings(deadline=None)
@given(st.sets(numbers, min_size=1), numbers)
def test_set_is_answered_by_membership(values: set[int], value: int) -> None:
    assert (value in values) == answer(DEBT, OneOf(tuple(sorted(map(str, values)))), str(value))
