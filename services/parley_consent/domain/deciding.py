"""Decisions: which rule governs a request, and what becomes of it for one customer."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import Enum, IntEnum, auto

from parley_consent.domain.meeting import Agreed, Apart, meet
from parley_terms.purposes import PURPOSES
from parley_terms.terms import Channel, Level, Terms

_A_MOMENT = timedelta(seconds=1)


class Effect(IntEnum):
    """What a rule does. At equal rank the greater wins."""

    ALLOW = 1
    ASK = 2
    REFUSE = 3


@dataclass(frozen=True, slots=True)
class Scope:
    """For whom a rule stands: one marketer, a verification level and above, or (neither) everyone."""

    marketer: str = ""
    least_level: Level | None = None

    @property
    def rank(self) -> int:
        """How specific it is."""
        return 2 if self.marketer else 1 if self.least_level else 0

    def includes(self, marketer: str, level: Level) -> bool:
        """The marketer is within."""
        if self.marketer:
            return self.marketer == marketer
        return self.least_level is None or level >= self.least_level


@dataclass(frozen=True, slots=True)
class Rule:
    """A customer's standing terms, for whom, and what they do."""

    rule_id: str
    effect: Effect
    scope: Scope
    terms: Terms


@dataclass(frozen=True, slots=True)
class LiveConsent:
    """
    A consent that is active or paused, with the marketer of the request at hand.

    One for one use, under which something was released in another exchange than the one at hand, isn't live any more.
    """

    consent_id: str
    paused: bool
    terms: Terms


@dataclass(frozen=True, slots=True)
class Standing:
    """Everything of one customer that bears on a request; of consents, if there are ``more``, the newest."""

    objected: bool = False
    rules: tuple[Rule, ...] = ()
    consents: tuple[LiveConsent, ...] = ()
    more: bool = False


@dataclass(frozen=True, slots=True)
class Asking:
    """
    A request, and who makes it. Terms that many customers stand by, one and the same object, meet it once.

    ``agreed``: to this very exchange, by accepting its offer or by a release that has settled.
    """

    marketer: str
    level: Level
    terms: Terms
    agreed: bool = False
    _met: dict[tuple[int, datetime], tuple[Terms, Agreed | Apart]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def is_beyond_level(self) -> bool:
        """The marketer isn't verified far enough, any more perhaps, to ask for one of the purposes."""
        known = self.terms.purposes & PURPOSES.keys()
        return any(self.level < PURPOSES[purpose].least_level for purpose in known)

    def meet(self, standing: Terms, now: datetime) -> Agreed | Apart:
        """As :func:`parley_consent.domain.meeting.meet`."""
        key = (id(standing), now)
        if key not in self._met:
            self._met[key] = standing, meet(standing, self.terms, now)  # held, so that no others get its id
        return self._met[key][1]


@dataclass(frozen=True, slots=True)
class Allowed:
    """It may be released: under a consent, or under a rule from which a consent is yet to be born."""

    terms: Terms
    consent_id: str = ""
    rule_id: str = ""


class Otherwise(Enum):
    """It may not be released, now."""

    ASK = auto()
    REFUSE = auto()
    LATER = auto()


def decide(standing: Standing, asking: Asking, now: datetime) -> Allowed | Otherwise:
    """
    What becomes of a request for one customer.

    An objection stands above all. A governing refusal blocks even an active consent: for now, where this very exchange was
    agreed to, as what blocks it may be lifted. A live consent that covers the request goes before asking again; one that is
    paused answers for its customer: not now, but later perhaps. So it does where it is only touched and a rule would allow:
    whoever pauses would be passed by, were a little more asked for.
    """
    if asking.is_beyond_level:
        return Otherwise.REFUSE
    rule = governing(standing.rules, asking, now)
    covered = _under_consent(standing.consents, asking, now)
    if standing.objected or (rule and rule.effect is Effect.REFUSE):
        return Otherwise.LATER if asking.agreed and covered else Otherwise.REFUSE
    if covered:
        return covered
    if allowed := _under_rule(rule, standing, asking, now):
        return allowed
    return Otherwise.ASK if _may_be_asked(asking.terms, now) else Otherwise.REFUSE


def agreed_to(asking: Asking, now: datetime) -> Asking:
    """The request, for a customer who has agreed to its very exchange."""
    # The deadline is for deciding, and that is done; whether it may be sent (again) is a matter of all the rest.
    return replace(asking, terms=replace(asking.terms, decision_deadline=now + _A_MOMENT), agreed=True)


def next_change(rules: Iterable[Rule], now: datetime) -> datetime | None:
    """When the first of these rules begins or ends: what was decided before may be otherwise from then on."""
    edges = (edge for rule in rules for edge in (rule.terms.validity.start, rule.terms.validity.end))
    return min((edge for edge in edges if edge is not None and edge > now), default=None)


def _may_be_asked(request: Terms, now: datetime) -> bool:
    """An offer needs the inbox, time to decide in, an end, and nothing that could not be kept."""
    return (
        Channel.WEB_INBOX in request.channels
        and not request.unsupported
        and request.decision_deadline is not None
        and now < request.decision_deadline
        and request.validity.end is not None
        and now < request.validity.end
    )


def governing(rules: Iterable[Rule], asking: Asking, now: datetime) -> Rule | None:
    """The most specific rule that applies; at equal rank refuse, then ask, then allow. None: ask."""
    applying = [rule for rule in rules if _applies(rule, asking, now)]
    return max(applying, key=lambda rule: (rule.scope.rank, rule.effect), default=None)


def _applies(rule: Rule, asking: Asking, now: datetime) -> bool:
    if not rule.scope.includes(asking.marketer, asking.level):
        return False
    if rule.effect is Effect.ALLOW:
        return isinstance(asking.meet(rule.terms, now), Agreed)
    return touches(rule.terms, asking.terms, now)


def touches(terms: Terms, request: Terms, now: datetime) -> bool:
    """Whether a request touches the terms of an ask or refuse rule: an empty part touches everything."""
    return (
        terms.validity.holds(now)
        and (not terms.purposes or bool(terms.purposes & request.purposes))
        and (not terms.channels or bool(terms.channels & request.channels))
        and (not terms.fields or bool(terms.attributes & request.attributes))
    )


def _under_rule(rule: Rule | None, standing: Standing, asking: Asking, now: datetime) -> Allowed | Otherwise | None:
    """What a rule that allows makes of it: a consent is born of it, unless there are too many to know whether one is paused."""
    if not rule or rule.effect is not Effect.ALLOW or not isinstance(agreed := asking.meet(rule.terms, now), Agreed):
        return None
    if standing.more:
        return Otherwise.REFUSE
    if any(consent.paused and touches(consent.terms, asking.terms, now) for consent in standing.consents):
        return Otherwise.LATER
    return Allowed(agreed.terms, rule_id=rule.rule_id)


def _under_consent(consents: Iterable[LiveConsent], asking: Asking, now: datetime) -> Allowed | Otherwise | None:
    paused = False
    for consent in consents:
        agreed = asking.meet(consent.terms, now)
        if not isinstance(agreed, Agreed):
            continue
        if not consent.paused:
            return Allowed(agreed.terms, consent_id=consent.consent_id)
        paused = True
    return Otherwise.LATER if paused else None
