"""Between wire and value: pages, scopes, and parts of terms that nobody enforces."""

import base64
from datetime import UTC, datetime, timedelta

import pytest

from parley.common.v1 import terms_pb2 as termspb
from parley.consent.v1 import consent_pb2 as consentpb
from parley_consent.domain.deciding import Effect, Scope
from parley_consent.domain.records import RuleRecord
from parley_consent.wire import checked_terms, next_token, page_from, rule_to, scope_from
from parley_kit.faults import InvalidRequest, NotSupportedYet
from parley_kit.ids import new_id
from parley_terms.faults import InvalidConsentPurpose, InvalidDateRange
from parley_terms.purposes import DPV
from parley_terms.terms import Level
from parley_terms.wire import timestamp

NOW = datetime(2026, 5, 4, 3, 2, 1, 987654, tzinfo=UTC)
ID = "a" * 26


# --- Pages ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("asked", "given"), [(0, 100), (1, 1), (1000, 1000), (1001, 1000), (2**32 - 1, 1000)])
def test_page_is_as_long_as_asked_within_bounds(asked: int, given: int) -> None:
    assert given == page_from(asked, "").size


def test_first_page_starts_behind_everything() -> None:
    page = page_from(1, "")

    assert page.before > datetime(9999, 1, 1, tzinfo=UTC)


def test_next_page_starts_behind_the_last_of_a_full_one() -> None:
    token = next_token(page_from(2, ""), [(NOW + timedelta(days=1), new_id()), (NOW, ID)])

    assert (NOW, ID, 2) == ((page := page_from(2, token)).before, page.before_id, page.size)


@pytest.mark.parametrize("ends", [[], [(NOW, ID)]])
def test_page_that_is_not_full_is_the_last(ends: list[tuple[datetime, str]]) -> None:
    assert "" == next_token(page_from(2, ""), ends)


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "",
        f" {ID}",
        "2026-01-01T00:00:00+00:00",
        "2026-01-01T00:00:00+00:00 not-an-id",
        f"2026-01-01T00:00:00+00:00 {ID}\0",
        f"0001-01-01T00:00:00+23:59 {ID}",
    ],
)
def test_token_that_no_page_gave_is_refused(text: str) -> None:
    token = base64.urlsafe_b64encode(text.encode()).decode() or "="
    with pytest.raises(InvalidRequest) as refused:
        page_from(2, token)

    assert ["page_token"] == [violation.field for violation in refused.value.violations]


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
        checked_terms(unsupported(), "rule.terms")

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
        checked_terms(termspb.Terms(content=termspb.Content(fields=[answer, exact])), "rule.terms")

    assert ["rule.terms.content.fields[1].question"] == [violation.field for violation in refused.value.violations]


def test_purpose_outside_the_vocabulary_is_refused() -> None:
    with pytest.raises(InvalidConsentPurpose):
        checked_terms(termspb.Terms(purposes=[DPV + "Marketing", DPV + "Anything"]), "rule.terms")


@pytest.mark.parametrize(("end", "good"), [(NOW, False), (NOW - timedelta(days=1), False), (NOW + timedelta(1), True)])
def test_span_ends_after_it_starts(end: datetime, good: bool) -> None:
    span = termspb.Validity(start_time=timestamp(NOW), end_time=timestamp(end))
    terms = termspb.Terms(timing=termspb.Timing(validity=span))
    if good:
        assert (NOW, end) == ((validity := checked_terms(terms, "rule.terms").validity).start, validity.end)
    else:
        with pytest.raises(InvalidDateRange):
            checked_terms(terms, "rule.terms")


def test_rule_has_no_decision_deadline() -> None:
    with pytest.raises(InvalidDateRange):
        checked_terms(termspb.Terms(timing=termspb.Timing(decision_deadline=timestamp(NOW))), "rule.terms")


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
