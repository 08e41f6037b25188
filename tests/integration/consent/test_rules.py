"""Customers' standing rules: made, read, ended, and what they stop."""

import json
from datetime import timedelta

import pytest

from parley.common.v1 import terms_pb2 as termspb
from parley.consent.v1 import consent_events_pb2 as eventspb
from parley.consent.v1 import consent_pb2 as consentpb
from parley_consent import commands
from parley_consent.faults import RuleNotFound, TooManyRules
from parley_kit.faults import InvalidRequest, NotSupportedYet
from parley_terms.faults import InvalidConsentPurpose, InvalidDateRange
from parley_terms.purposes import DPV
from parley_terms.wire import timestamp
from tests.support.calls import fault_of
from tests.support.consent import HOUR, Asker, Person, World, rule_terms

E1, E2, E3 = "exchanges/first", "exchanges/second", "exchanges/third"
ASKED, ALLOWED, REFUSED = (
    consentpb.DECISION_OUTCOME_ASKED,
    consentpb.DECISION_OUTCOME_ALLOWED,
    consentpb.DECISION_OUTCOME_REFUSED,
)


SCOPES = (
    consentpb.RuleScope(everyone=consentpb.Everyone()),
    consentpb.RuleScope(marketer=Asker().name),
    consentpb.RuleScope(least_level=termspb.VERIFICATION_LEVEL_ACCREDITED),
)


async def test_rule_reads_as_it_was_made(world: World) -> None:
    for scope in SCOPES:
        ann = world.as_customer(Person())
        made = await ann.rule("ALLOW", rule_terms(), scope)

        assert [made] == list((await ann.rules()).rules)
        assert (scope, rule_terms(), consentpb.RULE_EFFECT_ALLOW) == (made.scope, made.terms, made.effect)
        assert timestamp(world.clock.now()) == made.create_time


async def test_ended_rule_is_gone_and_cannot_be_ended_again(world: World) -> None:
    ann = world.as_customer(Person())
    made = await ann.rule("REFUSE")

    await ann.end_rule(made.name)

    assert [] == list((await ann.rules()).rules)
    assert RuleNotFound is type(await fault_of(ann.end_rule(made.name)))


async def test_rules_come_newest_first_page_by_page(world: World) -> None:
    ann = world.as_customer(Person())
    made = []
    for _ in range(5):
        made.append((await ann.rule("ASK")).name)
        world.clock.move(timedelta(microseconds=1))

    pages, token = [], ""
    for _ in range(3):
        page = await ann.rules(2, token)
        pages.append([rule.name for rule in page.rules])
        token = page.next_page_token

    assert [made[4:2:-1], made[2:0:-1], made[:1]] == pages
    assert token == ""


async def test_each_act_on_rules_is_one_event_that_names_nothing_in_clear(world: World) -> None:
    ann = Person()
    made = await world.as_customer(ann).rule("REFUSE")
    await world.as_customer(ann).end_rule(made.name)

    events = await world.events("RuleChanged")
    notes = [eventspb.RuleChanged.FromString(event.payload).note for event in events]
    assert ["consent:rule:made", "consent:rule:ended"] == [
        json.loads(world.opening(note).detail)["kind"] for note in notes
    ]
    assert not any(ann.customer.encode() in event.SerializeToString() for event in events)


async def test_rule_that_cannot_be_kept_is_refused(world: World) -> None:
    now = world.clock.now()
    for terms, fault in (
        (termspb.Terms(goals=termspb.Goals(words="a discount")), NotSupportedYet),
        (termspb.Terms(purposes=[DPV + "SellDataToThirdParties"]), InvalidConsentPurpose),
        (rule_terms(deadline=now + HOUR), InvalidDateRange),
        (rule_terms(start=now, end=now), InvalidDateRange),
    ):
        assert fault is type(await fault_of(world.as_customer(Person()).rule("ALLOW", terms)))


async def test_rule_is_no_longer_than_a_request_may_be(world: World) -> None:
    ann = world.as_customer(Person())
    fields = [termspb.Field(attribute=f"a.{'b' * 60}{number}", form=termspb.FORM_EXACT) for number in range(64)]

    faulty = await fault_of(ann.rule("ASK", termspb.Terms(content=termspb.Content(fields=fields))))

    assert InvalidRequest is type(faulty)
    assert ["rule.terms"] == [violation.field for violation in faulty.violations]


async def test_so_many_rules_stand_and_no_more_but_for_what_a_withdrawal_leaves(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "MOST_RULES", 2)
    ann, marketers = world.as_customer(someone := Person()), [Asker() for _ in range(3)]
    consents = [(await world.consented(marketer, [someone], f"{E1}{marketer.name[-5:]}"))[0] for marketer in marketers]
    for_one = consentpb.RuleScope(marketer=marketers[0].name)
    (first, _) = [await ann.rule("ASK") for _ in range(2)]
    for _ in range(2):
        await ann.rule("ASK", scope=for_one)

    assert [TooManyRules] * 2 == [
        type(await fault_of(ann.rule("REFUSE", scope=scope)))
        for scope in (for_one, consentpb.RuleScope(least_level=termspb.VERIFICATION_LEVEL_VERIFIED))
    ]
    for consent in consents:
        await ann.withdraw(consent.name)
    await ann.end_rule(first.name)
    await ann.rule("REFUSE")


async def test_rule_for_nobody_is_refused(world: World) -> None:
    faulty = await fault_of(world.as_customer(Person()).rule("ALLOW", rule_terms(), consentpb.RuleScope()))

    assert InvalidRequest is type(faulty)
    assert ["rule.scope"] == [violation.field for violation in faulty.violations]


async def test_refuse_rule_blocks_an_active_consent_until_it_ends(world: World) -> None:
    ann, marketer = Person(), Asker()
    await world.consented(marketer, [ann], E1)
    (entry,) = await world.permits(marketer, [ann], E2)

    rule = await world.as_customer(ann).rule("REFUSE")
    blocked = await world.outcome(marketer, ann, E2)
    (stale,) = await world.settle(entry)
    await world.as_customer(ann).end_rule(rule.name)

    assert (REFUSED, consentpb.SETTLE_REFUSAL_STALE) == (blocked, stale.refusal)
    assert await world.outcome(marketer, ann, E2) == ALLOWED
