"""Between wire and value: scopes, and parts of terms that nobody enforces."""

from datetime import UTC, datetime, timedelta

import pytest

from parley.common.v1 import terms_pb2 as termspb
from parley.consent.v1 import consent_pb2 as consentpb
from parley_consent.domain.deciding import Effect, Scope
from parley_consent.domain.records import RuleRecord
from parley_consent.wire import check_rule_terms, rule_to, scope_from
from parley_kit.faults import InvalidRequest, NotSupportedYet
from parley_terms.faults import InvalidConsentPurpose, InvalidDateRange
from parley_terms.purposes import DPV
from parley_terms.terms import Level
from parley_terms.wire import timestamp

NOW = datetime(2026, 5, 4, 3, 2, 1, 987654, tzinfo=UTC)
ID = "a" * 26


# --- Terms ---------------------------------------------------------------------------------------------------------------


def unsupported() -> termspb.Terms:
    """Terms with every part that nobody enforces."""
    content = termspb.Content(
        fields=[
            termspb.Field(attribute="a.b", form=termspb.FORM_EXACT),
            termspb.Field(attribute="a.c", form=termspb.FORM_BANDED, band_width=10),
        ],
        inward=termspb.Inward(topics=["hiking"]),
    )
    mode = termspb.Mode(
        channels=[termspb.CHANNEL_DATA, termspb.CHANNEL_EMAIL], identity_level=termspb.IDENTITY_LEVEL_IDENTIFIED
    )
    timing = termspb.Timing(
        weekly_windows=[termspb.WeeklyWindow()],
        quiet_hours=termspb.QuietHours(),
        frequency_caps=[termspb.FrequencyCap()],
        place=termspb.Place(),
    )
    return termspb.Terms(
        content=content, mode=mode, timing=timing, goals=termspb.Goals(), obligations=termspb.Obligations()
    )


def test_parts_that_nobody_enforces_are_refused_by_path() -> None:
    with pytest.raises(NotSupportedYet) as refused:
        check_rule_terms(unsupported(), "rule.terms")

    assert {
        "rule.terms.content.fields[1].form",
        "rule.terms.content.inward",
        "rule.terms.mode.channels[1]",
        "rule.terms.mode.identity_level",
        "rule.terms.timing.weekly_windows",
        "rule.terms.timing.quiet_hours",
        "rule.terms.timing.frequency_caps",
        "rule.terms.timing.place",
        "rule.terms.goals",
        "rule.terms.obligations",
    } == {violation.field for violation in refused.value.violations}


def test_question_goes_with_an_answer_alone() -> None:
    over_18 = termspb.Question(range=termspb.Range(min="18"))
    answer, exact = (
        termspb.Field(attribute="profile.age", form=form, question=over_18)
        for form in (termspb.FORM_ANSWER, termspb.FORM_EXACT)
    )
    with pytest.raises(InvalidRequest) as refused:
        check_rule_terms(termspb.Terms(content=termspb.Content(fields=[answer, exact])), "rule.terms")

    assert ["rule.terms.content.fields[1].question"] == [violation.field for violation in refused.value.violations]


def test_purpose_outside_the_vocabulary_is_refused() -> None:
    with pytest.raises(InvalidConsentPurpose) as refused:
        check_rule_terms(termspb.Terms(purposes=[DPV + "Marketing", DPV + "Anything"]), "rule.terms")

    assert ["rule.terms.purposes"] == [violation.field for violation in refused.value.violations]


@pytest.mark.parametrize(("end", "good"), [(NOW, False), (NOW - timedelta(days=1), False), (NOW + timedelta(1), True)])
def test_span_ends_after_it_starts(end: datetime, good: bool) -> None:
    span = termspb.Validity(start_time=timestamp(NOW), end_time=timestamp(end))
    terms = termspb.Terms(timing=termspb.Timing(validity=span))
    if good:
        check_rule_terms(terms, "rule.terms")
    else:
        with pytest.raises(InvalidDateRange) as refused:
            check_rule_terms(terms, "rule.terms")
        assert ["rule.terms.timing.validity"] == [violation.field for violation in refused.value.violations]


def test_rule_has_no_decision_deadline() -> None:
    with pytest.raises(InvalidDateRange) as refused:
        check_rule_terms(termspb.Terms(timing=termspb.Timing(decision_deadline=timestamp(NOW))), "rule.terms")

    assert ["rule.terms.timing.decision_deadline"] == [violation.field for violation in refused.value.violations]


# --- Rules ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "scope", [Scope(), Scope(marketer="marketers/m"), *(Scope(least_level=each) for each in Level)]
)
def test_scope_is_read_as_it_is_written(scope: Scope) -> None:
    record = RuleRecord(ID, Effect.ASK, scope, b"", NOW)

    assert scope == scope_from(rule_to(record).scope)
    assert consentpb.RULE_EFFECT_ASK == rule_to(record).effect


@pytest.mark.parametrize(
    "scope", [consentpb.RuleScope(), consentpb.RuleScope(least_level=termspb.VERIFICATION_LEVEL_UNSPECIFIED)]
)
def test_scope_of_nobody_is_refused(scope: consentpb.RuleScope) -> None:
    with pytest.raises(InvalidRequest):
        scope_from(scope)
