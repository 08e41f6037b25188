"""
A slow, literal reading of what terms promise, to hold the quick one against (guarantee G1).

It argues by enumeration: every fact a marketer would learn, every purpose, channel and way of use, every moment about a boundary
is looked at by itself and must have been allowed. It shares the value types with the code under test and nothing else. Sources:
the design's section on consent and the comments of ``terms.proto`` and ``consent.proto``.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from parley_consent.domain.deciding import Asking, Rule, Standing
from parley_consent.domain.deciding import Effect as RuleEffect
from parley_terms.purposes import PURPOSES
from parley_terms.terms import Channel, Field, Form, OneOf, Question, Terms, Use

INSTANT = timedelta(microseconds=1)
LONG_AGO = datetime(1900, 1, 1, tzinfo=UTC)
FAR_OFF = datetime(2200, 1, 1, tzinfo=UTC)
ANOTHER_QUESTION = OneOf(("a question that neither side has named",))


# --- Two terms meeting ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reason:
    """Why two terms don't meet: the dial as the API calls it, the part of it, a sentence, and the path where there is one."""

    dial: str
    part: str
    words: str
    where: str = ""


def objections(standing: Terms, request: Terms, now: datetime) -> frozenset[Reason]:
    """Every reason why a request isn't agreed by standing terms at a moment; none: it is agreed."""
    return frozenset(
        [
            *_of_unsupported(standing, request),
            *_of_deadline(request, now),
            *_of_purpose(standing, request),
            *_of_channel(standing, request),
            *_of_content(standing, request),
            *_of_use(standing, request),
            *_of_validity(standing, request, now),
        ]
    )


def agrees(standing: Terms, request: Terms, now: datetime) -> bool:
    """The request is wholly within the standing terms."""
    return not objections(standing, request, now)


def filled(request: Terms, now: datetime) -> Terms:
    """The request as it is agreed: a span that names no start begins at once."""
    if request.validity.start is not None:
        return request
    return replace(request, validity=replace(request.validity, start=now))


def _of_unsupported(standing: Terms, request: Terms) -> Iterator[Reason]:
    for part in request.unsupported:
        yield Reason(
            "unsupported", "unsupported in the request", f"the request sets {part}, which nobody enforces", part
        )
    for part in standing.unsupported:
        yield Reason("unsupported", "unsupported in the rule", f"the customer set {part}, which nobody enforces", part)


def _of_deadline(request: Terms, now: datetime) -> Iterator[Reason]:
    # The standing terms' own deadline is no part of this: a rule has none, and a consent's was met when it was given.
    if request.decision_deadline is None:
        yield Reason("decision_deadline", "no deadline", "the request says not by when to decide")
    elif not now < request.decision_deadline:
        yield Reason("decision_deadline", "deadline passed", "decisions were due by a moment that isn't ahead")


def _of_purpose(standing: Terms, request: Terms) -> Iterator[Reason]:
    if not request.purposes:
        yield Reason("purpose", "no purpose", "the request says not what for")
    for purpose in request.purposes:
        if not any(purpose == allowed for allowed in standing.purposes):
            yield Reason("purpose", "purpose not named", f"nobody agreed to {purpose}")


def _of_channel(standing: Terms, request: Terms) -> Iterator[Reason]:
    if not request.channels:
        yield Reason("channel", "no channel", "the request says not how")
    for channel in request.channels:
        if not any(channel == allowed for allowed in standing.channels):
            yield Reason("channel", "channel not named", f"nobody agreed to {channel.name}")


# --- Content: what a marketer would learn, fact by fact ------------------------------------------------------------------


@dataclass(frozen=True)
class Fact:
    """Something one may know of an attribute: its value (no question), or the answer to one question."""

    attribute: str
    question: Question | None


def _of_content(standing: Terms, request: Terms) -> Iterator[Reason]:
    if not request.fields:
        yield Reason("content", "no field", "the request says not what")
    questions = _questions(standing, request)
    allowed = {fact for field in standing.fields for fact in _facts(field, questions)}
    for index, field in enumerate(request.fields):
        where = f"content.fields[{index}]"
        if field.form is Form.ANSWER and field.question is None:
            yield Reason("content", "no question", f"{field.attribute} is to be asked an unnamed question", where)
        elif field.form is Form.BANDED:
            yield Reason("content", "banded", f"bands of {field.attribute} are not to be had", where)
        elif any(fact not in allowed for fact in _facts(field, questions)):
            yield _content_reason(field, allowed, where)


def _questions(*sides: Terms) -> list[Question]:
    """Every question there is: those that were named, and one more that stands for all the others."""
    named = [field.question for terms in sides for field in terms.fields if field.question is not None]
    return [*named, ANOTHER_QUESTION]


def _facts(field: Field, questions: Iterable[Question]) -> Iterator[Fact]:
    """What one knows once one has the field. Whoever has a value can answer anything about it."""
    if field.form is Form.EXACT:
        yield Fact(field.attribute, None)
    if field.form is Form.ANSWER and field.question is not None:
        yield Fact(field.attribute, field.question)
    if field.form is Form.EXACT or (field.form is Form.ANSWER and field.question is None):
        yield from (Fact(field.attribute, question) for question in questions)


def _content_reason(field: Field, allowed: Iterable[Fact], where: str) -> Reason:
    name = field.attribute
    if not any(fact.attribute == name for fact in allowed):
        return Reason("content", "attribute not allowed", f"nothing of {name} is allowed", where)
    if field.form is Form.EXACT:
        return Reason("content", "exact where an answer is allowed", f"{name} may be asked about, not be had", where)
    return Reason("content", "a different question", f"{name} may be asked other questions than this one", where)


# --- Use: which releases would be made -----------------------------------------------------------------------------------


def _releases(use: Use | None) -> tuple[str, ...]:
    return ("the first",) if use is Use.ONE_TIME else ("the first", "every later one")


def _of_use(standing: Terms, request: Terms) -> Iterator[Reason]:
    if request.use is None:
        yield Reason("use", "no use", "the request says not how often")
        return
    for release in _releases(request.use):
        if release not in _releases(standing.use):
            yield Reason("use", "standing asked of one-time", f"{release} release is beyond what was allowed")


# --- Validity: moment by moment ------------------------------------------------------------------------------------------


def _of_validity(standing: Terms, request: Terms, now: datetime) -> Iterator[Reason]:
    start = now if request.validity.start is None else request.validity.start
    end = request.validity.end
    if end is None:
        yield Reason("validity", "no end", "the request would last for ever")
    if now < start:
        yield Reason("validity", "not begun", "the span lies ahead")
    if end is not None and now >= end:
        yield Reason("validity", "ended", "the span lies behind")
    for moment in _moments(standing, request, now):
        if _within(moment, start, end) and not _within(moment, standing.validity.start, standing.validity.end):
            yield _validity_reason(moment, standing)


def _moments(standing: Terms, request: Terms, now: datetime) -> list[datetime]:
    """Every boundary, the instants beside it, and moments beyond them all."""
    spans = (standing.validity, request.validity)
    edges = [now, *(edge for span in spans for edge in (span.start, span.end) if edge is not None)]
    return [LONG_AGO, *(edge + step for edge in edges for step in (-INSTANT, INSTANT * 0, INSTANT)), FAR_OFF]


def _within(moment: datetime, start: datetime | None, end: datetime | None) -> bool:
    return (start is None or moment >= start) and (end is None or moment < end)


def _validity_reason(moment: datetime, standing: Terms) -> Reason:
    if standing.validity.start is not None and moment < standing.validity.start:
        return Reason("validity", "starts before", "part of the span is before what was allowed")
    return Reason("validity", "too long", "part of the span is after what was allowed")


# --- What becomes of a request for one customer --------------------------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """
    What may be answered, and why.

    It is ``allow`` (under any of these consents or rules, on these terms), ``ask``, ``refuse`` or ``later``.
    """

    effect: str
    why: str
    terms: Terms | None = None
    consents: frozenset[str] = frozenset()
    rules: frozenset[str] = frozenset()


def outcome(standing: Standing, asking: Asking, now: datetime) -> Outcome:
    """Decide as the design says it, one sentence after the other."""
    if any(asking.level < PURPOSES[purpose].least_level for purpose in asking.terms.purposes):
        return Outcome("refuse", "isn't verified far enough")
    rules = ruling(standing.rules, asking, now)
    effects = {rule.effect for rule in rules}
    blocks = "objected" if standing.objected else "a rule refuses" if RuleEffect.REFUSE in effects else ""
    if blocks and asking.agreed and any(agrees(consent.terms, asking.terms, now) for consent in standing.consents):
        return Outcome("later", f"agreed to, and {blocks}")
    if blocks:
        return Outcome("refuse", blocks)
    return _by_consent(standing, asking, now) or _by_pause(standing, rules, asking, now) or _by_rule(rules, asking, now)


def _by_consent(standing: Standing, asking: Asking, now: datetime) -> Outcome | None:
    covering = [consent for consent in standing.consents if agrees(consent.terms, asking.terms, now)]
    active = frozenset(consent.consent_id for consent in covering if not consent.paused)
    if active:
        return Outcome("allow", "a consent covers it", filled(asking.terms, now), consents=active)
    return Outcome("later", "its consent is paused") if covering else None


def _by_pause(standing: Standing, rules: list[Rule], asking: Asking, now: datetime) -> Outcome | None:
    for consent in standing.consents:
        in_force = _within(now, consent.terms.validity.start, consent.terms.validity.end)
        near = in_force and not {"purpose", "channel", "attribute"} & {*untouched(consent.terms, asking.terms)}
        if consent.paused and near and any(rule.effect is RuleEffect.ALLOW for rule in rules):
            return Outcome("later", "what is paused is too near")
    return None


def _by_rule(rules: list[Rule], asking: Asking, now: datetime) -> Outcome:
    if any(rule.effect is RuleEffect.ALLOW for rule in rules):
        names = frozenset(rule.rule_id for rule in rules)
        return Outcome("allow", "a rule allows", filled(asking.terms, now), rules=names)
    if asking.terms.unsupported:
        return Outcome("refuse", "asks for what isn't enforced")
    if Channel.WEB_INBOX not in asking.terms.channels:
        return Outcome("refuse", "has no inbox to ask in")
    if asking.terms.decision_deadline is None or asking.terms.decision_deadline <= now:
        return Outcome("refuse", "leaves no time to decide in")
    if asking.terms.validity.end is None or asking.terms.validity.end <= now:
        return Outcome("refuse", "has no end ahead")
    return Outcome("ask", "a rule asks" if rules else "no rule")


# --- Which rule governs --------------------------------------------------------------------------------------------------


def ruling(rules: Iterable[Rule], asking: Asking, now: datetime) -> list[Rule]:
    """The rules that may govern, all of one rank and one effect; none: the customer is asked."""
    applying = [rule for rule in rules if _addressed(rule, asking) and _applies(rule, asking, now)]
    for rank in ("marketer", "level", "everyone"):
        for effect in (RuleEffect.REFUSE, RuleEffect.ASK, RuleEffect.ALLOW):
            found = [rule for rule in applying if _rank(rule) == rank and rule.effect is effect]
            if found:
                return found
    return []


def _rank(rule: Rule) -> str:
    if rule.scope.marketer:
        return "marketer"
    return "everyone" if rule.scope.least_level is None else "level"


def _addressed(rule: Rule, asking: Asking) -> bool:
    match _rank(rule):
        case "marketer":
            return rule.scope.marketer == asking.marketer
        case "level":
            return rule.scope.least_level in [level for level in type(asking.level) if level <= asking.level]
    return True


def _applies(rule: Rule, asking: Asking, now: datetime) -> bool:
    if rule.effect is RuleEffect.ALLOW:
        return agrees(rule.terms, asking.terms, now)
    return _within(now, rule.terms.validity.start, rule.terms.validity.end) and not untouched(rule.terms, asking.terms)


def untouched(rule: Terms, request: Terms) -> list[str]:
    """
    The parts by which a request stays clear of a rule.

    Content is touched attribute by attribute: an answer to one question tells of every other about the same value, so that who
    refuses "over 18" isn't asked "over 19". Any two uses share the first release.
    """
    pairs: dict[str, tuple[list[object], list[object]]] = {
        "purpose": ([*rule.purposes], [*request.purposes]),
        "channel": ([*rule.channels], [*request.channels]),
        "attribute": ([field.attribute for field in rule.fields], [field.attribute for field in request.fields]),
        "use": ([*_releases(rule.use)], [*_releases(request.use)]),
    }
    return [
        part
        for part, (ours, theirs) in pairs.items()
        if ours and not any(mine == its for mine in ours for its in theirs)
    ]
