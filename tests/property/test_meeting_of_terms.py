"""G1: two thousand random pairs of terms, against the oracle; and broken ways of meeting, each of which they find out."""

import os
import random
import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parley_consent.domain.meeting import Agreed, Apart, Dial, meet
from parley_terms.terms import Channel, Field, Form, OneOf, Question, Range, Terms, Use, Validity
from tests.property.oracle import INSTANT, Reason, filled, objections

SEED = int(os.environ.get("SEED") or secrets.randbits(32))  # SEED=... replays a run
PAIRS, AGREEING, EACH_SOLE_FAILURE = 2000, 650, 55

PURPOSES = tuple(
    "https://w3id.org/dpv#" + name for name in ("Marketing", "Advertising", "CustomerCare", "RecordManagement")
)
ATTRIBUTES = ("profile.age", "profile.language", "contact.postcode", "interest.hiking", "behaviour.purchase")
QUESTIONS: tuple[Question, ...] = (
    Range("18"),
    Range("19"),
    Range(None, "18"),
    Range("18", "30"),
    OneOf(("a",)),
    OneOf(("a", "b")),
)
UNSUPPORTED = ("goals", "obligations", "mode.identity_level", "timing.place", "content.fields[0].form")
MOMENT = datetime(2026, 3, 1, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Pair:
    """A customer's terms, a marketer's, and when they meet."""

    standing: Terms
    request: Terms
    now: datetime


@dataclass(frozen=True)
class Judged:
    """A pair and what the oracle says of it."""

    pair: Pair
    reasons: frozenset[Reason]


Meet = Callable[[Terms, Terms, datetime], Agreed | Apart]


# --- Pairs that agree ----------------------------------------------------------------------------------------------------


def agreeing(rng: random.Random) -> Pair:
    """A request, and standing terms that are as wide or wider in every part, often by nothing or by an instant."""
    now = MOMENT + timedelta(microseconds=rng.randrange(10**12))
    start = rng.choice([None, now, now - INSTANT, now - _while(rng)])
    request = Terms(
        fields=tuple(_asked(rng, name) for name in rng.sample(ATTRIBUTES, rng.randint(1, 3))),
        use=rng.choice(list(Use)),
        purposes=frozenset(rng.sample(PURPOSES, rng.randint(1, 3))),
        channels=frozenset(rng.sample(list(Channel), rng.randint(1, 2))),
        validity=Validity(start, now + rng.choice([INSTANT, _while(rng)])),
        decision_deadline=now + rng.choice([INSTANT, _while(rng)]),
    )
    return Pair(_wider(rng, request, now), request, now)


def _while(rng: random.Random) -> timedelta:
    return timedelta(microseconds=rng.randrange(2, 10**13))


def _asked(rng: random.Random, attribute: str) -> Field:
    if rng.random() < 0.4:
        return Field(attribute, Form.EXACT)
    return Field(attribute, Form.ANSWER, rng.choice(QUESTIONS))


def _wider(rng: random.Random, request: Terms, now: datetime) -> Terms:
    fields = [field for asked in request.fields for field in _covering(rng, asked)]
    fields += [_asked(rng, name) for name in ATTRIBUTES if name not in request.attributes and rng.random() < 0.3]
    return Terms(
        fields=tuple(rng.sample(fields, len(fields))),
        use=rng.choice([None, Use.STANDING, request.use]),
        purposes=request.purposes | set(rng.sample(PURPOSES, rng.randint(0, 2))),
        channels=request.channels | set(rng.sample(list(Channel), rng.randint(0, 2))),
        validity=_longer(rng, filled(request, now).validity),
        # A consent keeps its request's deadline, long past.
        decision_deadline=rng.choice([None, now - _while(rng), now, now + _while(rng)]),
    )


def _covering(rng: random.Random, asked: Field) -> list[Field]:
    """What covers a field, and beside it, now and then, what doesn't."""
    name = asked.attribute
    covers = [asked] if asked.form is Form.EXACT else [asked, Field(name, Form.ANSWER), Field(name, Form.EXACT)]
    return [
        rng.choice(covers),
        *(Field(name, Form.ANSWER, other) for other in rng.sample(QUESTIONS, rng.randint(0, 2))),
    ]


def _longer(rng: random.Random, span: Validity) -> Validity:
    start, end = span.start, span.end
    return Validity(
        rng.choice([None, start, start and start - INSTANT, start and start - _while(rng)]),
        rng.choice([None, end, end and end + INSTANT, end and end + _while(rng)]),
    )


# --- One way apart, for every part of every dial -------------------------------------------------------------------------


def _unsupported_in_request(rng: random.Random, pair: Pair) -> Pair:
    return replace(pair, request=replace(pair.request, unsupported=(rng.choice(UNSUPPORTED),)))


def _unsupported_in_rule(rng: random.Random, pair: Pair) -> Pair:
    return replace(pair, standing=replace(pair.standing, unsupported=(rng.choice(UNSUPPORTED),)))


def _deadline_passed(rng: random.Random, pair: Pair) -> Pair:
    deadline = pair.now - rng.choice([INSTANT * 0, INSTANT, _while(rng)])
    return replace(pair, request=replace(pair.request, decision_deadline=deadline))


def _purpose_not_named(rng: random.Random, pair: Pair) -> Pair:
    missing = rng.choice(sorted(pair.request.purposes))
    left = rng.choice([frozenset(), pair.standing.purposes - {missing}])
    return replace(pair, standing=replace(pair.standing, purposes=left))


def _channel_not_named(rng: random.Random, pair: Pair) -> Pair:
    missing = rng.choice(sorted(pair.request.channels))
    return replace(pair, standing=replace(pair.standing, channels=pair.standing.channels - {missing}))


def _about(rng: random.Random, pair: Pair, asked: list[Field], allowed: Callable[[str], list[Field]]) -> Pair:
    """Put one field of the request anew, and all that the customer allows of its attribute."""
    index = rng.randrange(len(pair.request.fields))
    name = pair.request.fields[index].attribute
    fields = [field for field in pair.standing.fields if field.attribute != name] + allowed(name)
    anew = [*pair.request.fields[:index], *(replace(field, attribute=name) for field in asked)]
    return Pair(
        replace(pair.standing, fields=tuple(rng.sample(fields, len(fields)))),
        replace(pair.request, fields=(*anew, *pair.request.fields[index + 1 :])),
        pair.now,
    )


def _attribute_not_allowed(rng: random.Random, pair: Pair) -> Pair:
    return _about(rng, pair, [_asked(rng, "")], lambda _: [])


def _exact_of_an_answer(rng: random.Random, pair: Pair) -> Pair:
    question = rng.choice([None, *QUESTIONS])
    return _about(rng, pair, [Field("", Form.EXACT)], lambda name: [Field(name, Form.ANSWER, question)])


def _different_question(rng: random.Random, pair: Pair) -> Pair:
    asked, *others = rng.sample(QUESTIONS, rng.randint(2, len(QUESTIONS)))
    return _about(
        rng, pair, [Field("", Form.ANSWER, asked)], lambda name: [Field(name, Form.ANSWER, other) for other in others]
    )


def _standing_of_one_time(_: random.Random, pair: Pair) -> Pair:
    return Pair(replace(pair.standing, use=Use.ONE_TIME), replace(pair.request, use=Use.STANDING), pair.now)


def _too_long(rng: random.Random, pair: Pair) -> Pair:
    assert pair.request.validity.end
    end = rng.choice([pair.request.validity.end - INSTANT, pair.now, pair.now - _while(rng)])
    return replace(pair, standing=replace(pair.standing, validity=replace(pair.standing.validity, end=end)))


def _starts_before(rng: random.Random, pair: Pair) -> Pair:
    start = filled(pair.request, pair.now).validity.start
    assert start
    late = rng.choice([start + INSTANT, start + _while(rng)])
    return replace(pair, standing=replace(pair.standing, validity=replace(pair.standing.validity, start=late)))


def _spanning(rng: random.Random, pair: Pair, start: datetime | None, end: datetime | None) -> Pair:
    request = replace(pair.request, validity=Validity(start, end))
    span = _longer(rng, filled(request, pair.now).validity)
    return Pair(replace(pair.standing, validity=span), request, pair.now)


def _ended(rng: random.Random, pair: Pair) -> Pair:
    end = pair.now - rng.choice([INSTANT * 0, INSTANT, _while(rng)])
    return _spanning(rng, pair, rng.choice([None, end - _while(rng)]), end)


def _not_begun(rng: random.Random, pair: Pair) -> Pair:
    start = pair.now + rng.choice([INSTANT, _while(rng)])
    return _spanning(rng, pair, start, start + _while(rng))


def _no_end(rng: random.Random, pair: Pair) -> Pair:
    pair = _spanning(rng, pair, pair.request.validity.start, None)
    return replace(pair, standing=replace(pair.standing, validity=replace(pair.standing.validity, end=None)))


def _asking(pair: Pair, request: Terms) -> Pair:
    return replace(pair, request=request)


SPOILERS: dict[str, Callable[[random.Random, Pair], Pair]] = {
    "unsupported in the request": _unsupported_in_request,
    "unsupported in the rule": _unsupported_in_rule,
    "deadline passed": _deadline_passed,
    "no deadline": lambda _, pair: _asking(pair, replace(pair.request, decision_deadline=None)),
    "purpose not named": _purpose_not_named,
    "no purpose": lambda _, pair: _asking(pair, replace(pair.request, purposes=frozenset())),
    "channel not named": _channel_not_named,
    "no channel": lambda _, pair: _asking(pair, replace(pair.request, channels=frozenset())),
    "attribute not allowed": _attribute_not_allowed,
    "exact where an answer is allowed": _exact_of_an_answer,
    "a different question": _different_question,
    "no field": lambda _, pair: _asking(pair, replace(pair.request, fields=())),
    "standing asked of one-time": _standing_of_one_time,
    "no use": lambda _, pair: _asking(pair, replace(pair.request, use=None)),
    "too long": _too_long,
    "starts before": _starts_before,
    "ended": _ended,
    "not begun": _not_begun,
    "no end": _no_end,
}


# --- The two thousand ----------------------------------------------------------------------------------------------------


def _strangers(rng: random.Random) -> Pair:
    """One customer's terms and another's request: they part in several ways at once."""
    pair = agreeing(rng)
    return replace(rng.choice(list(SPOILERS.values()))(rng, pair), standing=agreeing(rng).standing)


def two_thousand(rng: random.Random) -> Iterator[Pair]:
    for _ in range(AGREEING):
        yield agreeing(rng)
    for spoil in SPOILERS.values():
        for _ in range(EACH_SOLE_FAILURE):
            yield spoil(rng, agreeing(rng))
    for _ in range(PAIRS - AGREEING - EACH_SOLE_FAILURE * len(SPOILERS)):
        yield _strangers(rng)


@pytest.fixture(scope="module")
def judged() -> list[Judged]:
    print(f"SEED={SEED}")
    return [
        Judged(pair, objections(pair.standing, pair.request, pair.now)) for pair in two_thousand(random.Random(SEED))
    ]


def is_right(answer: Agreed | Apart, case: Judged) -> bool:
    """Agreed on exactly the request where there is no objection; else apart, for one of the objections."""
    if not case.reasons:
        return answer == Agreed(filled(case.pair.request, case.pair.now))
    return isinstance(answer, Apart) and (answer.dial, answer.where) in {(why.dial, why.where) for why in case.reasons}


def first_wrong(way: Meet, cases: list[Judged]) -> str | None:
    """Explain the first pair on which a way of meeting and the oracle differ."""
    for case in cases:
        pair = case.pair
        answer = way(pair.standing, pair.request, pair.now)
        if not is_right(answer, case):
            return f"SEED={SEED}: {answer}\nbut {[why.words for why in case.reasons] or 'no objection'}\nto {pair}"
    return None


def test_every_meeting_is_as_the_oracle_says(judged: list[Judged]) -> None:
    assert None is first_wrong(meet, judged)


def test_pairs_agree_often_and_part_over_every_single_part(judged: list[Judged]) -> None:
    parts = [{why.part for why in case.reasons} for case in judged]
    sole = Counter(part for broken in parts if len(broken) == 1 for part in broken)
    agreed = sum(not case.reasons for case in judged)
    assert len(judged) == PAIRS
    assert agreed >= 0.3 * PAIRS
    assert {part: sole[part] for part in SPOILERS if sole[part] < 50} == {}
    assert set(SPOILERS) == set(sole)
    assert {str(dial) for dial in Dial} == {why.dial for case in judged for why in case.reasons}


def test_same_seed_makes_the_same_pairs() -> None:
    assert list(two_thousand(random.Random(SEED))) == list(two_thousand(random.Random(SEED)))


# --- Broken ways of meeting ----------------------------------------------------------------------------------------------


def _with_standing(change: Callable[[Terms, Terms], Terms]) -> Meet:
    return lambda standing, request, now: meet(change(standing, request), request, now)


def _with_fields(change: Callable[[Field], list[Field]]) -> Meet:
    return _with_standing(
        lambda standing, _: replace(standing, fields=tuple(new for field in standing.fields for new in change(field)))
    )


def _with_span(change: Callable[[Validity], Validity]) -> Meet:
    return _with_standing(lambda standing, _: replace(standing, validity=change(standing.validity)))


def _with_request(change: Callable[[Terms, datetime], Terms]) -> Meet:
    """Weigh a request that was tampered with, and agree to the one that was made."""

    def way(standing: Terms, request: Terms, now: datetime) -> Agreed | Apart:
        answer = meet(standing, change(request, now), now)
        return Agreed(filled(request, now)) if isinstance(answer, Agreed) else answer

    return way


def _at(step: timedelta) -> Meet:
    def way(standing: Terms, request: Terms, now: datetime) -> Agreed | Apart:
        answer = meet(standing, request, now + step)
        return Agreed(filled(request, now)) if isinstance(answer, Agreed) else answer

    return way


def _refusing_where(too_strict: Callable[[Terms, Terms, datetime], bool], dial: Dial) -> Meet:
    return lambda standing, request, now: (
        Apart(dial) if too_strict(standing, request, now) else meet(standing, request, now)
    )


def _exact_is_no_answer(standing: Terms, request: Terms, _: datetime) -> bool:
    answers = {(field.attribute, field.question) for field in standing.fields if field.form is Form.ANSWER}
    asked = [field for field in request.fields if field.form is Form.ANSWER]
    return any(not {(field.attribute, field.question), (field.attribute, None)} & answers for field in asked)


def _always_blames_the_purpose(standing: Terms, request: Terms, now: datetime) -> Agreed | Apart:
    answer = meet(standing, request, now)
    return answer if isinstance(answer, Agreed) else Apart(Dial.PURPOSE)


def _points_at_the_next_field(standing: Terms, request: Terms, now: datetime) -> Agreed | Apart:
    answer = meet(standing, request, now)
    if isinstance(answer, Apart) and answer.dial is Dial.CONTENT and answer.where:
        return Apart(Dial.CONTENT, f"content.fields[{len(request.fields)}]")
    return answer


def _leaves_the_start_open(standing: Terms, request: Terms, now: datetime) -> Agreed | Apart:
    answer = meet(standing, request, now)
    return Agreed(request) if isinstance(answer, Agreed) else answer


def _agrees_to_all_that_stands(standing: Terms, request: Terms, now: datetime) -> Agreed | Apart:
    answer = meet(standing, request, now)
    return Agreed(standing) if isinstance(answer, Agreed) else answer


def _first_field_alone(request: Terms, _: datetime) -> Terms:
    return replace(request, fields=request.fields[:1])


def _any_of_one(asked: Field) -> list[Field]:
    return [asked, replace(asked, question=None)] if asked.form is Form.ANSWER else [asked]


BROKEN: dict[str, Meet] = {
    "agrees_to_everything": lambda _, request, now: Agreed(filled(request, now)),
    "refuses_everything": lambda _standing, _request, _now: Apart(Dial.PURPOSE),
    "ignores_unsupported_in_request": _with_request(lambda request, _: replace(request, unsupported=())),
    "ignores_unsupported_in_standing": _with_standing(lambda standing, _: replace(standing, unsupported=())),
    "ignores_deadline": _with_request(lambda request, now: replace(request, decision_deadline=now + INSTANT)),
    "does_without_deadline": _with_request(
        lambda request, now: replace(request, decision_deadline=request.decision_deadline or now + INSTANT)
    ),
    "holds_a_consent_to_its_old_deadline": _refusing_where(
        lambda standing, _, now: standing.decision_deadline is not None and standing.decision_deadline <= now,
        Dial.DEADLINE,
    ),
    "ignores_purposes": _with_standing(
        lambda standing, request: replace(standing, purposes=standing.purposes | request.purposes)
    ),
    "takes_one_purpose_for_all": _with_standing(
        lambda standing, request: replace(
            standing, purposes=request.purposes if request.purposes & standing.purposes else standing.purposes
        )
    ),
    "takes_no_purpose_for_any": _with_standing(
        lambda standing, request: replace(standing, purposes=standing.purposes or request.purposes)
    ),
    "does_without_purpose": _with_request(
        lambda request, _: replace(request, purposes=request.purposes or frozenset(PURPOSES[:1]))
    ),
    "ignores_channels": _with_standing(
        lambda standing, request: replace(standing, channels=standing.channels | request.channels)
    ),
    "does_without_channel": _with_request(
        lambda request, _: replace(request, channels=request.channels or frozenset({Channel.DATA}))
    ),
    "ignores_content": _with_standing(
        lambda standing, request: replace(standing, fields=standing.fields + request.fields)
    ),
    "looks_at_the_first_field_alone": _with_request(_first_field_alone),
    "gives_exact_for_an_answer": _with_fields(lambda field: [replace(field, form=Form.EXACT, question=None)]),
    "confuses_questions": _with_fields(_any_of_one),
    "finds_no_answer_in_an_exact_value": _refusing_where(_exact_is_no_answer, Dial.CONTENT),
    "knows_no_rule_for_any_question": _with_fields(
        lambda field: [] if field.form is Form.ANSWER and field.question is None else [field]
    ),
    "ignores_use": _with_standing(lambda standing, _: replace(standing, use=None)),
    "takes_unset_use_for_one_time": _with_standing(
        lambda standing, _: replace(standing, use=standing.use or Use.ONE_TIME)
    ),
    "keeps_one_time_from_standing": _refusing_where(
        lambda standing, request, _: standing.use is Use.STANDING and request.use is Use.ONE_TIME, Dial.USE
    ),
    "does_without_use": _with_request(lambda request, _: replace(request, use=request.use or Use.ONE_TIME)),
    "ignores_span": _with_span(lambda _: Validity()),
    "ignores_start_of_span": _with_span(lambda span: replace(span, start=None)),
    "ignores_end_of_span": _with_span(lambda span: replace(span, end=None)),
    "starts_an_instant_early": _with_span(lambda span: replace(span, start=span.start and span.start - INSTANT)),
    "starts_an_instant_late": _with_span(lambda span: replace(span, start=span.start and span.start + INSTANT)),
    "ends_an_instant_late": _with_span(lambda span: replace(span, end=span.end and span.end + INSTANT)),
    "ends_an_instant_early": _with_span(lambda span: replace(span, end=span.end and span.end - INSTANT)),
    "clock_an_instant_behind": _at(-INSTANT),
    "clock_an_instant_ahead": _at(INSTANT),
    "does_without_end": _with_request(
        lambda request, now: replace(
            request, validity=replace(request.validity, end=request.validity.end or now + INSTANT)
        )
    ),
    "ignores_end_of_request": _with_request(
        lambda request, now: replace(request, validity=replace(request.validity, end=now + INSTANT))
    ),
    "swaps_the_sides": lambda standing, request, now: meet(request, standing, now),
    "always_blames_the_purpose": _always_blames_the_purpose,
    "points_at_the_next_field": _points_at_the_next_field,
    "leaves_the_start_open": _leaves_the_start_open,
    "agrees_to_all_that_stands": _agrees_to_all_that_stands,
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_meeting_is_found_out(name: str, judged: list[Judged]) -> None:
    assert first_wrong(BROKEN[name], judged), f"SEED={SEED}"


# --- Anything at all -----------------------------------------------------------------------------------------------------


_texts = st.none() | st.text(max_size=3)
_questions = st.none() | st.builds(Range, _texts, _texts) | st.builds(OneOf, st.lists(st.text(max_size=3)).map(tuple))
_fields = st.builds(Field, st.sampled_from(ATTRIBUTES), st.sampled_from(Form), _questions)
_moments = st.datetimes(timezones=st.just(UTC))
_terms = st.builds(
    Terms,
    fields=st.lists(_fields, max_size=4).map(tuple),
    use=st.none() | st.sampled_from(Use),
    purposes=st.frozensets(st.sampled_from(PURPOSES)),
    channels=st.frozensets(st.sampled_from(Channel)),
    validity=st.builds(Validity, st.none() | _moments, st.none() | _moments),
    decision_deadline=st.none() | _moments,
    unsupported=st.lists(st.sampled_from(UNSUPPORTED), max_size=2).map(tuple),
)


@given(_terms, _terms, _moments)
def test_any_two_terms_get_an_answer(standing: Terms, request: Terms, now: datetime) -> None:
    assert isinstance(meet(standing, request, now), Agreed | Apart)


@given(_terms, _moments)
def test_terms_meet_themselves_or_say_why_not(terms: Terms, now: datetime) -> None:
    answer = meet(terms, terms, now)
    assert Agreed(filled(terms, now)) == answer or isinstance(answer, Apart)


# --- What the value types can say and a request may not ------------------------------------------------------------------


def _alone(rng: random.Random, asked: Field, allowed: Field) -> Judged:
    pair = agreeing(rng)
    pair = Pair(replace(pair.standing, fields=(allowed,)), replace(pair.request, fields=(asked,)), pair.now)
    return Judged(pair, objections(pair.standing, pair.request, pair.now))


ANY_AGE, EXACT_AGE = Field("profile.age", Form.ANSWER), Field("profile.age", Form.EXACT)
BANDED_AGE, OVER_18 = Field("profile.age", Form.BANDED), Field("profile.age", Form.ANSWER, Range("18"))
DUBIOUS = (
    pytest.param(ANY_AGE, ANY_AGE, id="any_question_under_any_question"),
    pytest.param(ANY_AGE, EXACT_AGE, id="any_question_under_exact"),
    pytest.param(OVER_18, BANDED_AGE, id="answer_under_band"),
    pytest.param(BANDED_AGE, BANDED_AGE, id="band_under_band"),
    pytest.param(BANDED_AGE, EXACT_AGE, id="band_under_exact"),
)


@pytest.mark.parametrize(("asked", "allowed"), DUBIOUS)
def test_unnamed_questions_and_bands_are_not_agreed(asked: Field, allowed: Field) -> None:
    case = _alone(random.Random(SEED), asked, allowed)
    assert {"content"} == {why.dial for why in case.reasons}
    assert None is first_wrong(meet, [case])
