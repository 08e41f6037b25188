"""G1, one step up: what becomes of a request among a customer's rules and consents, against the oracle; and broken deciders."""

import os
import random
import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import pytest

from parley_consent.domain.deciding import (
    Allowed,
    Asking,
    Effect,
    LiveConsent,
    Otherwise,
    Rule,
    Scope,
    Standing,
    decide,
    governing,
)
from parley_consent.domain.meeting import Agreed, meet
from parley_terms.purposes import DPV
from parley_terms.purposes import PURPOSES as CAPS
from parley_terms.terms import Channel, Field, Form, Level, Range, Terms, Use, Validity
from tests.property.oracle import INSTANT, Outcome, agrees, outcome, ruling, untouched

SEED = int(os.environ.get("SEED") or secrets.randbits(32))  # SEED=... replays a run
WORLDS, EACH = 3000, 20

MARKETER, RIVAL = "m" * 26, "r" * 26
HOUR = timedelta(hours=1)
EVERYONE = Scope()
PURPOSES = tuple(DPV + name for name in ("Marketing", "CustomerCare", "Advertising", "DeliveryOfGoods"))
OTHER_PURPOSE = DPV + "RecordManagement"
AGE, LANGUAGE = "profile.age", "profile.language"
FIELDS = (
    Field(AGE, Form.EXACT),
    Field(AGE, Form.ANSWER, Range("18")),
    Field(AGE, Form.ANSWER, Range("19")),
    Field(LANGUAGE, Form.EXACT),
)
OTHER_FIELD = Field("contact.postcode", Form.EXACT)


@dataclass(frozen=True)
class World:
    """One customer, one request, one moment."""

    standing: Standing
    asking: Asking
    now: datetime


@dataclass(frozen=True)
class Judged:
    """A world, what the oracle says becomes of the request, and which rules may govern it."""

    world: World
    outcome: Outcome
    rules: list[Rule]


Decide = Callable[[Standing, Asking, datetime], Allowed | Otherwise]


# --- Worlds --------------------------------------------------------------------------------------------------------------


def a_world(rng: random.Random) -> World:
    now = datetime.fromisoformat("2026-03-01T12:00:00+00:00") + timedelta(microseconds=rng.randrange(10**12))
    marketer, level = rng.choice([MARKETER, MARKETER, MARKETER, RIVAL]), rng.choice(list(Level))
    asking = Asking(marketer, level, _request(rng, now, level), agreed=_now_and_then(rng, 0.4))
    rules = tuple(_rule(rng, f"rule-{n}", asking.terms, now) for n in range(rng.choice([0, 1, 2, 3, 4, 5])))
    consents = tuple(_consent(rng, f"consent-{n}", asking.terms, now) for n in range(rng.choice([0, 0, 1, 1, 2, 3])))
    return World(Standing(_now_and_then(rng, 0.1), rules, consents), asking, now)


def _now_and_then(rng: random.Random, share: float) -> bool:
    return rng.random() < share


def _request(rng: random.Random, now: datetime, level: Level) -> Terms:
    within = [purpose for purpose in PURPOSES if level >= CAPS[purpose].least_level]
    purposes = PURPOSES if _now_and_then(rng, 0.15) else within
    return Terms(
        fields=tuple(rng.sample(FIELDS, rng.randint(1, 2))),
        use=rng.choice(list(Use)),
        purposes=frozenset(rng.sample(purposes, rng.choice([1, 2, 2]))),
        channels=rng.choice([*[frozenset(Channel)] * 3, frozenset({Channel.DATA}), frozenset({Channel.WEB_INBOX})]),
        validity=Validity(rng.choice([None, now, now - HOUR]), now + rng.choice([INSTANT, HOUR])),
        decision_deadline=now + rng.choice([INSTANT * 0, *[INSTANT, HOUR] * 5]),
        unsupported=("goals",) if _now_and_then(rng, 0.05) else (),
    )


def _rule(rng: random.Random, rule_id: str, request: Terms, now: datetime) -> Rule:
    effect = rng.choice([*[Effect.ALLOW] * 3, *[Effect.ASK] * 2, *[Effect.REFUSE] * 2])
    terms = _covering(rng, request, now) if effect is Effect.ALLOW else _touched(rng, request, now)
    return Rule(rule_id, effect, _scope(rng), terms)


def _scope(rng: random.Random) -> Scope:
    return rng.choice(
        [Scope(MARKETER), Scope(RIVAL), EVERYONE, EVERYONE, *(Scope(least_level=level) for level in Level)]
    )


def _covering(rng: random.Random, request: Terms, now: datetime) -> Terms:
    """Terms that a request is wholly within, but in a third of cases for one part."""
    terms = Terms(
        fields=(*request.fields, OTHER_FIELD),
        use=rng.choice([None, Use.STANDING, request.use]),
        purposes=request.purposes | {OTHER_PURPOSE},
        channels=frozenset(Channel),
        validity=Validity(rng.choice([None, now - HOUR]), rng.choice([None, request.validity.end])),
    )
    return rng.choice([terms, terms, _narrowed(rng, terms, now)])


def _narrowed(rng: random.Random, terms: Terms, now: datetime) -> Terms:
    return rng.choice(
        [
            replace(terms, fields=terms.fields[1:]),
            replace(terms, use=Use.ONE_TIME),
            replace(terms, purposes=frozenset({rng.choice(sorted(terms.purposes))})),
            replace(terms, channels=frozenset({Channel.WEB_INBOX})),
            replace(terms, validity=Validity(None, now)),
        ]
    )


def _touched(rng: random.Random, request: Terms, now: datetime) -> Terms:
    """Terms with parts left empty, parts that the request touches, and now and then one that it stays clear of."""
    asked = rng.choice(request.fields)
    parts = Terms(
        fields=rng.choice([(), (asked,), (asked, OTHER_FIELD), (Field(asked.attribute, Form.ANSWER, Range("65")),)]),
        use=rng.choice([None, *Use]),
        purposes=rng.choice([frozenset(), frozenset({min(request.purposes), OTHER_PURPOSE})]),
        channels=rng.choice([frozenset(), frozenset({min(request.channels)})]),
        validity=Validity(rng.choice([None, now, now - HOUR]), rng.choice([None, now + INSTANT, now + HOUR])),
    )
    return rng.choice([parts, _clear_of(rng, parts, request, now)])


def _clear_of(rng: random.Random, terms: Terms, request: Terms, now: datetime) -> Terms:
    return rng.choice(
        [
            replace(terms, fields=(OTHER_FIELD,)),
            replace(terms, purposes=frozenset({OTHER_PURPOSE})),
            replace(terms, channels=frozenset(Channel) - request.channels),
            replace(terms, validity=Validity(None, now - rng.choice([INSTANT * 0, INSTANT * 0, HOUR]))),
            replace(terms, validity=Validity(now + rng.choice([INSTANT, HOUR]))),
        ]
    )


def _consent(rng: random.Random, consent_id: str, request: Terms, now: datetime) -> LiveConsent:
    terms = _covering(rng, request, now)
    if _now_and_then(rng, 0.5):
        terms = replace(terms, validity=Validity(None, now + INSTANT))  # often shorter than what is asked for
    terms = replace(terms, use=terms.use or Use.STANDING, decision_deadline=now - HOUR)  # a consent names its use
    return LiveConsent(consent_id, _now_and_then(rng, 0.4), terms)


# --- Against the oracle --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def judged() -> list[Judged]:
    print(f"SEED={SEED}")
    rng = random.Random(SEED)
    worlds = [a_world(rng) for _ in range(WORLDS)]
    return [
        Judged(
            world,
            outcome(world.standing, world.asking, world.now),
            ruling(world.standing.rules, world.asking, world.now),
        )
        for world in worlds
    ]


def is_right(answer: Allowed | Otherwise, said: Outcome) -> bool:
    """What is allowed names one of the consents or rules that allow it, and the request's own terms."""
    if said.effect != "allow":
        return answer is Otherwise[said.effect.upper()]
    if not isinstance(answer, Allowed) or answer.terms != said.terms:
        return False
    by_consent = answer.consent_id in said.consents and not answer.rule_id
    return by_consent or (answer.rule_id in said.rules and not answer.consent_id)


def first_wrong(way: Decide, cases: list[Judged]) -> str | None:
    """Explain the first world about which a decider and the oracle differ."""
    for case in cases:
        answer = way(case.world.standing, case.world.asking, case.world.now)
        if not is_right(answer, case.outcome):
            return f"SEED={SEED}: {answer}\nbut {case.outcome}\nin {case.world}"
    return None


def test_every_decision_is_as_the_oracle_says(judged: list[Judged]) -> None:
    assert None is first_wrong(decide, judged)


def test_every_governing_rule_is_one_the_oracle_names(judged: list[Judged]) -> None:
    for case in judged:
        rule = governing(case.world.standing.rules, case.world.asking, case.world.now)
        assert (rule in case.rules) if case.rules else rule is None, f"SEED={SEED}: {rule} not in {case.rules}"


def test_order_of_rules_and_consents_changes_no_outcome(judged: list[Judged]) -> None:
    def backwards(standing: Standing, asking: Asking, now: datetime) -> Allowed | Otherwise:
        return decide(replace(standing, rules=standing.rules[::-1], consents=standing.consents[::-1]), asking, now)

    assert None is first_wrong(backwards, judged)


# --- What the worlds are made of -----------------------------------------------------------------------------------------


def _stories(case: Judged) -> Iterator[str]:
    """What happens in a world that a decider might get wrong."""
    yield case.outcome.why
    yield from _stories_of_rules(case)
    yield from _stories_of_consents(case)


def _stories_of_rules(case: Judged) -> Iterator[str]:
    world, first = case.world, next(iter(case.rules), None)
    if first is not None:
        yield f"{first.effect.name} for {_for_whom(first.scope)} governs"
    for rule in world.standing.rules:
        if rule not in case.rules and rule.scope.includes(world.asking.marketer, world.asking.level):
            yield from _stories_of_a_beaten_rule(rule, first, world)


def _for_whom(scope: Scope) -> str:
    return "a marketer" if scope.marketer else "a level" if scope.least_level else "everyone"


def _stories_of_a_beaten_rule(rule: Rule, first: Rule | None, world: World) -> Iterator[str]:
    if ruling([rule], world.asking, world.now) and first:
        rank = "equal" if rule.scope.rank == first.scope.rank else "lower"
        yield f"{first.effect.name} beats {rule.effect.name} of {rank} rank"
    elif rule.effect is not Effect.ALLOW and not rule.terms.validity.holds(world.now):
        yield "a rule out of its time"
    elif rule.effect is not Effect.ALLOW:
        yield from (f"a rule clear of the {part}" for part in untouched(rule.terms, world.asking.terms))
    else:
        yield "an allow rule that doesn't cover"


def _stories_of_consents(case: Judged) -> Iterator[str]:
    world = case.world
    live = [one for one in world.standing.consents if agrees(one.terms, world.asking.terms, world.now)]
    if live and case.outcome.why in ("a rule refuses", "objected", "isn't verified far enough"):
        yield f"a consent covers it, but {case.outcome.why}"
    if any(rule.effect is Effect.ASK for rule in case.rules) and live:
        yield "a consent covers it, and a rule would ask"
    if any(rule.effect is Effect.ALLOW for rule in case.rules) and live and all(one.paused for one in live):
        yield "its consent is paused, and a rule would allow"
    if any(one.paused for one in live) and not all(one.paused for one in live):
        yield "one consent paused, another active"


STORIES = {
    "isn't verified far enough",
    "objected",
    "a rule refuses",
    "a consent covers it",
    "its consent is paused",
    "what is paused is too near",
    "a rule allows",
    "a rule asks",
    "no rule",
    "has no inbox to ask in",
    "leaves no time to decide in",
    "asks for what isn't enforced",
    *(f"{effect.name} for {who} governs" for effect in Effect for who in ("a marketer", "a level", "everyone")),
    *(f"{one.name} beats {two.name} of lower rank" for one in Effect for two in Effect),
    *(f"{one.name} beats {two.name} of equal rank" for one in Effect for two in Effect if one > two),
    *(f"a rule clear of the {part}" for part in ("purpose", "channel", "attribute")),
    "a rule out of its time",
    "an allow rule that doesn't cover",
    "a consent covers it, but a rule refuses",
    "a consent covers it, but objected",
    "a consent covers it, but isn't verified far enough",
    "agreed to, and a rule refuses",
    "agreed to, and objected",
    "a consent covers it, and a rule would ask",
    "its consent is paused, and a rule would allow",
    "one consent paused, another active",
}


def test_worlds_tell_every_story_often(judged: list[Judged]) -> None:
    told = Counter(story for case in judged for story in set(_stories(case)))
    assert len(judged) == WORLDS
    assert {story: told[story] for story in STORIES if told[story] < EACH} == {}, f"SEED={SEED}"
    assert set() == set(told) - STORIES


# --- Broken deciders -----------------------------------------------------------------------------------------------------


def _with_rules(change: Callable[[Rule, Asking, datetime], Rule | None]) -> Decide:
    def way(standing: Standing, asking: Asking, now: datetime) -> Allowed | Otherwise:
        changed = (change(rule, asking, now) for rule in standing.rules)
        return decide(replace(standing, rules=tuple(rule for rule in changed if rule)), asking, now)

    return way


def _with_scope(change: Callable[[Scope, Asking], Scope | None]) -> Decide:
    def changed(rule: Rule, asking: Asking, _: datetime) -> Rule | None:
        scope = change(rule.scope, asking)
        return replace(rule, scope=scope) if scope else None

    return _with_rules(changed)


def _with_hurdles(change: Callable[[Terms], Terms]) -> Decide:
    """Change the terms of rules that ask or refuse."""
    return _with_rules(
        lambda rule, *_: rule if rule.effect is Effect.ALLOW else replace(rule, terms=change(rule.terms))
    )


def _with_consents(change: Callable[[LiveConsent], LiveConsent | None]) -> Decide:
    def way(standing: Standing, asking: Asking, now: datetime) -> Allowed | Otherwise:
        changed = (change(consent) for consent in standing.consents)
        return decide(replace(standing, consents=tuple(one for one in changed if one)), asking, now)

    return way


def _with_answer(change: Callable[[Allowed], Allowed]) -> Decide:
    def way(standing: Standing, asking: Asking, now: datetime) -> Allowed | Otherwise:
        answer = decide(standing, asking, now)
        return change(answer) if isinstance(answer, Allowed) else answer

    return way


def _asks_instead(where: Callable[[Standing, Asking, datetime], bool]) -> Decide:
    return lambda standing, asking, now: (
        Otherwise.ASK if where(standing, asking, now) else decide(standing, asking, now)
    )


def _consents_go_first(standing: Standing, asking: Asking, now: datetime) -> Allowed | Otherwise:
    answer = decide(replace(standing, rules=()), asking, now)
    return answer if isinstance(answer, Allowed) else decide(standing, asking, now)


def _allows_where_no_rule_applies(standing: Standing, asking: Asking, now: datetime) -> Allowed | Otherwise:
    answer = decide(standing, asking, now)
    ungoverned = answer is Otherwise.ASK and governing(standing.rules, asking, now) is None
    return Allowed(asking.terms) if ungoverned else answer


def _first_that_applies_wins(standing: Standing, asking: Asking, now: datetime) -> Allowed | Otherwise:
    applying = [rule for rule in standing.rules if governing([rule], asking, now)]
    return decide(replace(standing, rules=tuple(applying[:1])), asking, now)


def _allow_wins_at_equal_rank(standing: Standing, asking: Asking, now: datetime) -> Allowed | Otherwise:
    allowed = {
        rule.scope.rank for rule in standing.rules if rule.effect is Effect.ALLOW and governing([rule], asking, now)
    }
    kept = tuple(rule for rule in standing.rules if rule.effect is Effect.ALLOW or rule.scope.rank not in allowed)
    return decide(replace(standing, rules=kept), asking, now)


def _ask_wins_at_equal_rank(standing: Standing, asking: Asking, now: datetime) -> Allowed | Otherwise:
    asked = {rule.scope.rank for rule in standing.rules if rule.effect is Effect.ASK and governing([rule], asking, now)}
    kept = tuple(rule for rule in standing.rules if rule.effect is not Effect.REFUSE or rule.scope.rank not in asked)
    return decide(replace(standing, rules=kept), asking, now)


def _asking_goes_before_consents(standing: Standing, asking: Asking, now: datetime) -> Allowed | Otherwise:
    rule = governing(standing.rules, asking, now)
    consents = () if rule and rule.effect is Effect.ASK else standing.consents
    return decide(replace(standing, consents=consents), asking, now)


def _rules_go_before_a_pause(standing: Standing, asking: Asking, now: datetime) -> Allowed | Otherwise:
    return decide(replace(standing, consents=tuple(one for one in standing.consents if not one.paused)), asking, now)


def _one_pause_stops_all(standing: Standing, asking: Asking, now: datetime) -> Allowed | Otherwise:
    paused = tuple(one for one in standing.consents if one.paused)
    answer = decide(replace(standing, consents=paused), asking, now)
    return answer if answer is Otherwise.LATER else decide(standing, asking, now)


def _a_pause_stops_no_more_than_it_covers(standing: Standing, asking: Asking, now: datetime) -> Allowed | Otherwise:
    covering = tuple(one for one in standing.consents if isinstance(meet(one.terms, asking.terms, now), Agreed))
    return decide(replace(standing, consents=covering), asking, now)


def _a_pause_goes_before_a_refusal(standing: Standing, asking: Asking, now: datetime) -> Allowed | Otherwise:
    answer = decide(replace(standing, objected=False, rules=()), asking, now)
    return answer if answer is Otherwise.LATER else decide(standing, asking, now)


def _takes_a_pause_for_a_refusal(standing: Standing, asking: Asking, now: datetime) -> Allowed | Otherwise:
    answer = decide(standing, asking, now)
    return Otherwise.REFUSE if answer is Otherwise.LATER else answer


def _in_part(rule: Rule, asking: Asking, now: datetime) -> Rule:
    if rule.effect is not Effect.ALLOW or not rule.terms.purposes & asking.terms.purposes:
        return rule
    within = replace(rule.terms, purposes=rule.terms.purposes | asking.terms.purposes)
    return replace(rule, terms=within if isinstance(meet(within, asking.terms, now), Agreed) else rule.terms)


def _wholly(rule: Rule, asking: Asking, _: datetime) -> Rule | None:
    clear = rule.terms.purposes and not asking.terms.purposes <= rule.terms.purposes
    return None if rule.effect is not Effect.ALLOW and clear else rule


def _very_fields(rule: Rule, asking: Asking, _: datetime) -> Rule | None:
    clear = rule.terms.fields and not {*rule.terms.fields} & {*asking.terms.fields}
    return None if rule.effect is not Effect.ALLOW and clear else rule


def _says_something(rule: Rule, *_: object) -> Rule | None:
    parts = (rule.terms.fields, rule.terms.purposes, rule.terms.channels)
    return rule if rule.effect is Effect.ALLOW or all(parts) else None


def _no_inbox(_: Standing, asking: Asking, __: datetime) -> bool:
    return Channel.WEB_INBOX not in asking.terms.channels


def _asks_without_an_inbox(standing: Standing, asking: Asking, now: datetime) -> Allowed | Otherwise:
    answer, rule = decide(standing, asking, now), governing(standing.rules, asking, now)
    refused = standing.objected or (rule and rule.effect is Effect.REFUSE) or standing.consents
    return Otherwise.ASK if answer is Otherwise.REFUSE and _no_inbox(standing, asking, now) and not refused else answer


def _asks_for_the_unsupported(standing: Standing, asking: Asking, now: datetime) -> Allowed | Otherwise:
    plain = replace(asking, terms=replace(asking.terms, unsupported=()))
    return decide(standing, plain, now) if asking.terms.unsupported else decide(standing, asking, now)


def _never_mind_the_level(standing: Standing, asking: Asking, now: datetime) -> Allowed | Otherwise:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Asking, "is_beyond_level", False)
        return decide(standing, asking, now)


def _agreed(*, to: bool) -> Decide:
    return lambda standing, asking, now: decide(standing, replace(asking, agreed=to), now)


BROKEN: dict[str, Decide] = {
    "never_minds_the_level": _never_mind_the_level,
    "lifts_nothing": _agreed(to=False),
    "takes_every_exchange_for_agreed_to": _agreed(to=True),
    "always_asks": lambda _standing, _asking, _now: Otherwise.ASK,
    "always_refuses": lambda _standing, _asking, _now: Otherwise.REFUSE,
    "ignores_objection": lambda standing, asking, now: decide(replace(standing, objected=False), asking, now),
    "asks_who_objected": _asks_instead(lambda standing, _, __: standing.objected),
    "consents_go_before_a_refusal": _consents_go_first,
    "asking_goes_before_consents": _asking_goes_before_consents,
    "ignores_rules": _with_rules(lambda *_: None),
    "ignores_consents": _with_consents(lambda _: None),
    "allows_where_no_rule_applies": _allows_where_no_rule_applies,
    "ignores_pause": _with_consents(lambda consent: replace(consent, paused=False)),
    "rules_go_before_a_pause": _rules_go_before_a_pause,
    "one_pause_stops_all": _one_pause_stops_all,
    "a_pause_stops_no_more_than_it_covers": _a_pause_stops_no_more_than_it_covers,
    "a_pause_goes_before_a_refusal": _a_pause_goes_before_a_refusal,
    "takes_a_pause_for_a_refusal": _takes_a_pause_for_a_refusal,
    "first_rule_wins": _first_that_applies_wins,
    "ignores_rank": _with_scope(
        lambda scope, asking: EVERYONE if scope.includes(asking.marketer, asking.level) else None
    ),
    "ranks_level_with_everyone": _with_scope(
        lambda scope, asking: EVERYONE if scope.least_level and asking.level >= scope.least_level else scope
    ),
    "takes_one_marketer_for_another": _with_scope(
        lambda scope, asking: Scope(asking.marketer) if scope.marketer else scope
    ),
    "takes_a_level_for_itself_alone": _with_scope(
        lambda scope, asking: None if scope.least_level and scope.least_level != asking.level else scope
    ),
    "takes_a_level_for_any": _with_scope(
        lambda scope, _: Scope(least_level=Level.UNVERIFIED) if scope.least_level else scope
    ),
    "allow_wins_at_equal_rank": _allow_wins_at_equal_rank,
    "ask_wins_at_equal_rank": _ask_wins_at_equal_rank,
    "allows_in_part": _with_rules(_in_part),
    "stops_only_what_is_wholly_within": _with_rules(_wholly),
    "stops_only_the_very_fields": _with_rules(_very_fields),
    "empty_part_touches_nothing": _with_rules(_says_something),
    "stops_out_of_time": _with_hurdles(lambda terms: replace(terms, validity=Validity())),
    "stops_an_instant_too_long": _with_hurdles(
        lambda terms: replace(
            terms, validity=replace(terms.validity, end=terms.validity.end and terms.validity.end + INSTANT)
        )
    ),
    "stops_an_instant_too_late": _with_hurdles(
        lambda terms: replace(
            terms, validity=replace(terms.validity, start=terms.validity.start and terms.validity.start + INSTANT)
        )
    ),
    "stops_any_purpose": _with_hurdles(lambda terms: replace(terms, purposes=frozenset())),
    "stops_any_channel": _with_hurdles(lambda terms: replace(terms, channels=frozenset())),
    "stops_any_content": _with_hurdles(lambda terms: replace(terms, fields=())),
    "asks_without_an_inbox": _asks_without_an_inbox,
    "asks_for_the_unsupported": _asks_for_the_unsupported,
    "names_another_consent": _with_answer(lambda answer: replace(answer, consent_id=answer.consent_id and "consent-x")),
    "names_another_rule": _with_answer(lambda answer: replace(answer, rule_id=answer.rule_id and "rule-x")),
    "names_nothing": _with_answer(lambda answer: replace(answer, consent_id="", rule_id="")),
    "leaves_the_start_open": _with_answer(
        lambda answer: replace(answer, terms=replace(answer.terms, validity=replace(answer.terms.validity, start=None)))
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_decider_is_found_out(name: str, judged: list[Judged]) -> None:
    assert first_wrong(BROKEN[name], judged), f"SEED={SEED}"
