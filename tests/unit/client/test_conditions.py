from collections.abc import Iterator
from datetime import UTC, date, datetime
from functools import reduce
from operator import or_

import pytest

from parley.common.v1 import terms_pb2 as termspb
from parley_client import Attribute, Condition, Question, attribute
from parley_client.conditions import criteria_to, field_of
from parley_terms import terms
from parley_terms.terms import AllOf, AnyOf, Field, Form, Not, OneOf, Range
from parley_terms.values import Attribute as Kind
from parley_terms.values import ValueType, check_question
from parley_terms.wire import criteria_from

AGE, JOB, LOAN = attribute("profile.age"), attribute("profile.job"), attribute("finance.personal_loan")


@pytest.mark.parametrize(
    ("question", "canonical"),
    [
        (AGE.is_(30), OneOf(("30",))),
        (LOAN.is_(True), OneOf(("true",))),
        (LOAN.is_(False), OneOf(("false",))),
        (JOB.one_of("technician", " admin ", "technician"), OneOf(("admin", "technician"))),
        (AGE.one_of(9, 10, 9), OneOf(("10", "9"))),
        (JOB.is_("me\u0301tier"), OneOf(("m\u00e9tier",))),
        (attribute("a.b").at_least(date(2000, 2, 29)), Range(min="2000-02-29")),
        (AGE.at_most(65), Range(max="65")),
        (AGE.between(30, 45), Range("30", "45")),
        (AGE.between(30, 30), Range("30", "30")),
    ],
)
def test_questions_are_canonical(question: Question, canonical: OneOf | Range) -> None:
    assert canonical == question.criteria.question


@pytest.mark.parametrize("question", [AGE.one_of(100, 9, 20, 9), AGE.between(9, 10), AGE.at_least(-3)])
def test_services_accept_questions_as_they_are_made(question: Question) -> None:
    check_question(Kind("profile.age", "", ValueType.INTEGER), question.criteria.question)


def test_conditions_combine_without_needless_nesting() -> None:
    age, job, loan = AGE.between(30, 45), JOB.is_("technician"), LOAN.is_(True)
    tests = (age.criteria, job.criteria, Not(loan.criteria))

    assert AllOf(tests) == (age & job & ~loan).criteria
    assert AllOf(tests) == (age & (job & ~loan)).criteria
    assert AnyOf(tests) == (age | job | ~loan).criteria
    assert AnyOf((AllOf(tests[:2]), tests[2])) == (age & job | ~loan).criteria


@pytest.mark.parametrize("count", [32, 33, 1025])
def test_any_number_of_alternatives_goes_into_lists_that_are_short_enough(count: int) -> None:
    either = reduce(or_, (AGE.is_(number) for number in range(count)))

    message = criteria_to(either.criteria)

    assert count == len({test.question.one_of.values[0] for test in _tests(message)})
    assert all(len(each.any_of.criteria) <= 32 for each in _lists(message))


def _lists(message: termspb.Criteria) -> Iterator[termspb.Criteria]:
    if message.HasField("any_of"):
        yield message
        for part in message.any_of.criteria:
            yield from _lists(part)


def _tests(message: termspb.Criteria) -> list[termspb.Criterion]:
    return [part.test for each in _lists(message) for part in each.any_of.criteria if part.HasField("test")]


def test_question_reads_as_the_command_line_writes_it() -> None:
    said = [str(asked) for asked in (AGE.between(30, 45), AGE.at_least(18), AGE.at_most(65), JOB.one_of("b", "a"))]

    assert ["from 30 to 45", "at least 18", "at most 65"] == [text.removeprefix("profile.age ") for text in said[:3]]
    assert "profile.job is one of a, b" == said[3]


def test_conditions_come_back_from_the_wire_as_they_went() -> None:
    condition = AGE.at_least(30) & (JOB.one_of("a", "b") | ~LOAN.is_(True)) & ~(AGE.at_most(90) | JOB.is_("c"))

    assert condition == Condition(criteria_from(criteria_to(condition.criteria)))


def test_equal_questions_are_one_key() -> None:
    answers = {AGE.one_of(30, 9): True}

    assert answers[attribute("profile.age").one_of(9, 30, 9)]
    assert AGE.is_(30) not in answers


@pytest.mark.parametrize("wrong", [1.5, None, datetime(2026, 1, 1, tzinfo=UTC), b"x", ["a"]])
def test_values_of_no_kind_are_refused(wrong: object) -> None:
    with pytest.raises(TypeError, match="text, a whole number, a truth or a date"):
        AGE.is_(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (AGE.one_of, "one value or more"),
        (lambda: JOB.is_("  "), "not empty"),
        (lambda: AGE.between(45, 30), "not be above"),
    ],
)
def test_questions_that_cannot_be_are_refused(make: object, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        make()  # type: ignore[operator]


def test_and_or_not_are_refused_instead_of_dropping_a_condition() -> None:
    with pytest.raises(TypeError, match="&"):
        bool(AGE.is_(30))
    with pytest.raises(TypeError, match="conditions only"):
        AGE.is_(30) & True  # type: ignore[operator]


def test_names_and_attributes_ask_for_values_and_questions_for_answers() -> None:
    assert Field("profile.age", Form.EXACT) == field_of("profile.age") == field_of(Attribute("profile.age"))
    assert Field("profile.age", Form.ANSWER, Range(min="18")) == field_of(AGE.at_least(18))
    assert terms.Criterion("profile.age", Range(min="18")) == AGE.at_least(18).criteria


def test_a_condition_of_several_questions_is_no_content() -> None:
    with pytest.raises(TypeError, match="where"):
        field_of(AGE.is_(30) & JOB.is_("a"))  # type: ignore[arg-type]
