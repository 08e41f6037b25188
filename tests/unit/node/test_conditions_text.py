"""Are conditions read as people mean them?"""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parley_client.conditions import Condition, Question, attribute, question_text
from parley_node.conditions_text import (
    ConditionUnclear,
    field_text,
    parse_condition,
    parse_conditions,
    parse_question,
)
from parley_terms.terms import Field, Form
from parley_terms.values import canonical
from parley_vault.catalogue import load

CATALOGUE = load()
AGE, JOB, HIKING, BIRTH = map(attribute, ("profile.age", "profile.job", "interest.hiking", "profile.birthdate"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("profile.job is technician", JOB.is_("technician")),
        ("  profile.job   is  technician ", JOB.is_("technician")),
        ("interest.hiking is yes", HIKING.is_(value=True)),
        ("interest.hiking is no", HIKING.is_(value=False)),
        ("interest.hiking is not yes", ~HIKING.is_(value=True)),
        ("profile.job is one of technician, student", JOB.one_of("student", "technician")),
        ("profile.job is not one of student,technician", ~JOB.one_of("student", "technician")),
        ("profile.age from 30 to 45", AGE.between(30, 45)),
        ("profile.age at least 018", AGE.at_least(18)),
        ("profile.age at most 45", AGE.at_most(45)),
        ("profile.birthdate from 1980-01-01 to 1989-12-31", BIRTH.between(date(1980, 1, 1), date(1989, 12, 31))),
    ],
)
def test_condition_is_read(text: str, expected: Condition) -> None:
    assert expected == parse_condition(text, CATALOGUE)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "A condition is one of"),
        ("profile.age between 3 and 5", "ATTRIBUTE from LEAST to MOST"),
        ("profile.age is", "A condition is one of"),
        ("profile.height is 3", "parley attributes"),
        ("profile.age is tall", "a whole number"),
        ("profile.age from 45 to 30", "not be above"),
        ("profile.job at least student", "no order"),
        ("profile.job is one of student,,", "one of"),
    ],
)
def test_unclear_condition_is_refused_with_what_would_do(text: str, said: str) -> None:
    with pytest.raises(ConditionUnclear, match=said):
        parse_condition(text, CATALOGUE)


def test_several_conditions_all_hold() -> None:
    assert AGE.at_least(18) & ~JOB.is_("student") & HIKING.is_(value=True) == parse_conditions(
        ["profile.age at least 18", "profile.job is not student", "interest.hiking is yes"], CATALOGUE
    )


def test_no_condition_is_refused() -> None:
    with pytest.raises(ConditionUnclear, match="at least one"):
        parse_conditions([], CATALOGUE)


def test_question_is_asked_without_not() -> None:
    assert HIKING.is_(value=True) == parse_question("interest.hiking is yes", CATALOGUE)
    with pytest.raises(ConditionUnclear, match="without `not`"):
        parse_question("interest.hiking is not yes", CATALOGUE)


QUESTIONS = st.one_of(
    st.builds(AGE.at_least, st.integers(0, 130)),
    st.builds(AGE.at_most, st.integers(0, 130)),
    st.tuples(st.integers(0, 130), st.integers(0, 130)).map(lambda pair: AGE.between(min(pair), max(pair))),
    st.sets(st.sampled_from(CATALOGUE["profile.job"].choices), min_size=1).map(lambda values: JOB.one_of(*values)),
)


@given(QUESTIONS)
def test_what_is_written_is_read_back(asked: Question) -> None:
    test = asked.criteria
    assert asked == parse_question(question_text(test.attribute, test.question), CATALOGUE)


@given(st.text(max_size=40))
def test_any_text_is_a_condition_or_is_refused(text: str) -> None:
    try:
        parse_condition(f"profile.city is one of {text}", CATALOGUE)
    except ConditionUnclear:
        return
    values = [canonical(CATALOGUE["profile.city"], value) for value in text.split(",")]
    assert attribute("profile.city").one_of(*values) == parse_condition(f"profile.city is one of {text}", CATALOGUE)


def test_fields_are_written_as_what_they_give() -> None:
    assert "profile.age" == field_text(Field("profile.age", Form.EXACT))
    assert "whether profile.age at least 18" == field_text(AGE.at_least(18).field)
    assert "any answer about profile.age" == field_text(Field("profile.age", Form.ANSWER))
