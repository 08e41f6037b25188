"""Decisions at their edges; what they are for all inputs is a matter of tests/property."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from parley_consent.domain import deciding
from parley_consent.domain.deciding import (
    Allowed,
    Asking,
    Effect,
    LiveConsent,
    Otherwise,
    Rule,
    Scope,
    Standing,
    agreed_to,
    decide,
    governing,
    next_change,
    touches,
)
from parley_consent.domain.meeting import Agreed, Apart, meet
from parley_terms.purposes import DPV
from parley_terms.terms import Channel, Field, Form, Level, Range, Terms, Use, Validity

NOW = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
DAY, INSTANT = timedelta(days=1), timedelta(microseconds=1)
ADULT, OLDER = (Field("profile.age", Form.ANSWER, Range(least)) for least in ("18", "19"))
REQUEST = Terms(
    fields=(ADULT,),
    use=Use.STANDING,
    purposes=frozenset({"p"}),
    channels=frozenset(Channel),
    validity=Validity(None, NOW + DAY),
    decision_deadline=NOW + DAY,
)
ASKING = Asking("marketers/m", Level.VERIFIED, REQUEST)
COVERING = replace(REQUEST, use=None, validity=Validity(), decision_deadline=None)
AGREED = replace(REQUEST, validity=Validity(NOW, NOW + DAY))
EVERYTHING = Terms()


def rule(effect: Effect, terms: Terms = EVERYTHING, scope: Scope | None = None, name: str = "r") -> Rule:
    return Rule(name, effect, scope or Scope(), terms)


def consent(name: str = "c", *, paused: bool = False, terms: Terms = AGREED) -> LiveConsent:
    return LiveConsent(name, paused, terms)


def test_terms_that_many_stand_by_meet_a_request_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asking, met = replace(ASKING), list[Terms]()

    def noted(standing: Terms, request: Terms, now: datetime) -> Agreed | Apart:
        met.append(standing)
        return meet(standing, request, now)

    monkeypatch.setattr(deciding, "meet", noted)
    same, others = Standing(rules=(rule(Effect.ALLOW, COVERING),)), Standing(consents=(consent(),))
    decided = [decide(standing, asking, NOW) for standing in (same, same, others, same, others)]

    assert [COVERING, AGREED] == met
    assert [Allowed(AGREED, rule_id="r")] * 3 == [decided[0], decided[1], decided[3]]


def test_meeting_is_of_its_moment() -> None:
    standing, asking = Standing(rules=(rule(Effect.ALLOW, COVERING),)), replace(ASKING)

    assert isinstance(decide(standing, asking, NOW), Allowed)
    assert Otherwise.REFUSE is decide(standing, asking, NOW + DAY)


def test_nobody_who_said_nothing_is_released() -> None:
    assert Otherwise.ASK is decide(Standing(), ASKING, NOW)


def test_allow_rule_allows_what_lies_within_it() -> None:
    standing = Standing(rules=(rule(Effect.ALLOW, COVERING),))

    assert Allowed(AGREED, rule_id="r") == decide(standing, ASKING, NOW)
    assert Otherwise.ASK is decide(standing, replace(ASKING, terms=replace(REQUEST, fields=(OLDER,))), NOW)


def test_allow_rule_that_names_nothing_allows_nothing() -> None:
    assert Otherwise.ASK is decide(Standing(rules=(rule(Effect.ALLOW),)), ASKING, NOW)


def test_objection_stands_above_consents_and_rules() -> None:
    standing = Standing(objected=True, rules=(rule(Effect.ALLOW, COVERING),), consents=(consent(),))

    assert Otherwise.REFUSE is decide(standing, ASKING, NOW)


def test_refuse_rule_blocks_an_active_consent() -> None:
    assert Otherwise.REFUSE is decide(Standing(rules=(rule(Effect.REFUSE),), consents=(consent(),)), ASKING, NOW)


def test_ask_rule_does_not_ask_again_what_was_agreed() -> None:
    standing = Standing(rules=(rule(Effect.ASK),), consents=(consent(),))

    assert Allowed(AGREED, consent_id="c") == decide(standing, ASKING, NOW)


@pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)])
def test_most_specific_rule_governs(order: slice) -> None:
    level, marketer = Scope(least_level=Level.UNVERIFIED), Scope(marketer="marketers/m")
    rules = [
        rule(Effect.REFUSE, name="all"),
        rule(Effect.ASK, scope=level, name="level"),
        rule(Effect.ALLOW, COVERING, marketer, name="marketer"),
    ]

    found = [governing(rules[:count][order], ASKING, NOW) for count in (3, 2, 1)]
    assert ["marketer", "level", "all"] == [each.rule_id for each in found if each]


def test_at_equal_rank_refuse_wins_over_ask_over_allow() -> None:
    rules = [rule(Effect.ALLOW, COVERING), rule(Effect.ASK), rule(Effect.REFUSE)]

    found = [governing(rules[:count], ASKING, NOW) for count in (3, 2, 1)]
    assert [Effect.REFUSE, Effect.ASK, Effect.ALLOW] == [each.effect for each in found if each]


def test_rule_for_a_level_stands_from_that_level_up() -> None:
    scope = Scope(least_level=Level.VERIFIED)

    assert [False, True, True] == [scope.includes("marketers/m", level) for level in Level]


def test_paused_consent_answers_not_now_unless_another_covers_it() -> None:
    paused = consent("paused", paused=True)

    assert Otherwise.LATER is decide(Standing(consents=(paused,)), ASKING, NOW)
    assert Allowed(AGREED, consent_id="c") == decide(Standing(consents=(paused, consent())), ASKING, NOW)


@pytest.mark.parametrize("near", [True, False], ids=["of what is asked for", "of something else"])
def test_paused_consent_is_not_got_around_by_asking_for_longer(near: bool) -> None:
    shorter = replace(AGREED, validity=Validity(NOW, NOW + DAY - timedelta(hours=1)))
    other = replace(shorter, purposes=frozenset({"https://w3id.org/dpv#Other"}))
    paused = consent(paused=True, terms=shorter if near else other)
    standing = Standing(rules=(rule(Effect.ALLOW, COVERING),), consents=(paused,))

    assert near == (decide(standing, ASKING, NOW) is Otherwise.LATER)


def test_paused_consent_goes_before_an_allow_rule() -> None:
    standing = Standing(rules=(rule(Effect.ALLOW, COVERING),), consents=(consent(paused=True),))

    assert Otherwise.LATER is decide(standing, ASKING, NOW)


@pytest.mark.parametrize("refusing", [Standing(objected=True), Standing(rules=(rule(Effect.REFUSE),))])
def test_refusal_goes_before_a_pause(refusing: Standing) -> None:
    assert Otherwise.REFUSE is decide(replace(refusing, consents=(consent(paused=True),)), ASKING, NOW)


def test_what_was_agreed_to_is_held_to_everything_but_the_decision_deadline() -> None:
    late = replace(ASKING, terms=replace(REQUEST, decision_deadline=NOW))
    agreed, covered = agreed_to(late, NOW), Standing(consents=(consent(),))

    assert Otherwise.REFUSE is decide(covered, late, NOW)
    assert "c" == getattr(decide(covered, agreed, NOW), "consent_id", "")
    assert agreed == replace(
        late, terms=replace(REQUEST, decision_deadline=agreed.terms.decision_deadline), agreed=True
    )
    assert Otherwise.REFUSE is decide(covered, agreed_to(late, NOW + DAY), NOW + DAY)


@pytest.mark.parametrize("blocking", [{"objected": True}, {"rules": (rule(Effect.REFUSE),)}])
def test_what_was_agreed_to_waits_for_what_blocks_it_to_be_lifted(blocking: dict[str, Any]) -> None:
    agreed, covered = agreed_to(ASKING, NOW), Standing(consents=(consent(),))

    assert Otherwise.LATER is decide(replace(covered, **blocking), agreed, NOW)
    assert Otherwise.REFUSE is decide(replace(covered, **blocking), ASKING, NOW)
    assert Otherwise.REFUSE is decide(Standing(**blocking), agreed, NOW), "what was agreed has ended"


def test_marketer_that_lost_its_level_has_lost_what_it_was_for() -> None:
    marketing = replace(REQUEST, purposes=frozenset({DPV + "Marketing"}))
    standing = Standing(consents=(consent(terms=replace(AGREED, purposes=marketing.purposes)),))
    verified = agreed_to(replace(ASKING, terms=marketing), NOW)

    assert isinstance(decide(standing, verified, NOW), Allowed)
    assert Otherwise.REFUSE is decide(standing, replace(verified, level=Level.UNVERIFIED), NOW)


@pytest.mark.parametrize(
    ("spans", "change"),
    [
        ((), None),
        ((Validity(), Validity(NOW - DAY, NOW)), None),
        ((Validity(NOW, NOW + DAY), Validity(NOW + INSTANT)), NOW + INSTANT),
        ((Validity(NOW - DAY, NOW + INSTANT), Validity(NOW + DAY)), NOW + INSTANT),
    ],
)
def test_next_change_is_where_a_rule_begins_or_ends(spans: tuple[Validity, ...], change: datetime | None) -> None:
    rules = [rule(effect, replace(EVERYTHING, validity=span)) for effect in Effect for span in spans]

    assert change == next_change(rules, NOW)


def test_request_without_an_inbox_is_not_put_into_one() -> None:
    silent = replace(ASKING, terms=replace(REQUEST, channels=frozenset({Channel.DATA})))

    assert Otherwise.REFUSE is decide(Standing(), silent, NOW)


@pytest.mark.parametrize(
    "changes",
    [
        {"decision_deadline": NOW},
        {"decision_deadline": None},
        {"validity": Validity(None, NOW)},
        {"validity": Validity(None, None)},
        {"unsupported": ("goals",)},
    ],
)
def test_request_that_cannot_be_answered_is_not_asked(changes: dict[str, object]) -> None:
    asking = replace(ASKING, terms=replace(REQUEST, **changes))  # type: ignore[arg-type] # a table of keywords

    assert Otherwise.REFUSE is decide(Standing(), asking, NOW)


@pytest.mark.parametrize(
    ("part", "touched"),
    [
        ({"purposes": frozenset({"p", "q"})}, True),
        ({"purposes": frozenset({"q"})}, False),
        ({"channels": frozenset({Channel.DATA})}, True),
        ({"fields": (OLDER,)}, True),
        ({"fields": (Field("profile.language", Form.EXACT),)}, False),
        ({"validity": Validity(NOW, None)}, True),
        ({"validity": Validity(NOW + INSTANT, None)}, False),
        ({"validity": Validity(None, NOW)}, False),
    ],
)
def test_refuse_rule_applies_to_what_touches_every_part_it_names(
    part: dict[str, object],
    touched: bool,
) -> None:
    assert touched is touches(replace(EVERYTHING, **part), REQUEST, NOW)  # type: ignore[arg-type] # as above
