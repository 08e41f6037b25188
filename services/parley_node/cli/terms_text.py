"""Terms as people read and write them."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import Any

from parley.common.v1 import terms_pb2 as termspb
from parley.consent.v1 import consent_pb2 as consentpb
from parley_client.exchanges import complete_purpose
from parley_node.cli.options import level_text
from parley_node.cli.show import iso
from parley_node.cli.stop import Stop
from parley_node.conditions_text import field_text
from parley_terms.purposes import DPV, PURPOSES
from parley_terms.terms import Field, Form, Terms, Use
from parley_terms.wire import field_to, terms_from, timestamp


class Effect(IntEnum):
    """What a rule does, as on the wire."""

    ALLOW = consentpb.RULE_EFFECT_ALLOW
    ASK = consentpb.RULE_EFFECT_ASK
    REFUSE = consentpb.RULE_EFFECT_REFUSE


def parts(message: termspb.Terms) -> dict[str, Any]:
    """Take terms apart for a table: what, for what, until when, how often."""
    terms = terms_from(message)
    return {
        "content": [field_text(field) for field in terms.fields],
        "purposes": sorted(purpose.removeprefix(DPV) for purpose in terms.purposes),
        "until": iso(terms.validity.end) if terms.validity.end else "",
        "use": _use(terms),
    }


def scope_text(scope: consentpb.RuleScope) -> str:
    """Write for whom a rule stands."""
    match scope.WhichOneof("scope"):
        case "marketer":
            return scope.marketer
        case "least_level":
            return f"{level_text(scope.least_level)} and above"
    return "everyone"


def rule(
    effect: Effect,
    scope: consentpb.RuleScope,
    *,
    attributes: list[str],
    answers: list[str],
    purposes: list[str],
    until: datetime | None,
    once: bool,
) -> consentpb.Rule:
    """Write a rule. An allow rule names the channels that this version has; another touches any. Raises Stop."""
    check_purposes(purposes)
    fields = [Field(name, Form.EXACT) for name in attributes] + [Field(name, Form.ANSWER) for name in answers]
    terms = termspb.Terms(purposes=[complete_purpose(purpose) for purpose in purposes])
    if fields or once:
        terms.content.fields.extend(map(field_to, fields))
        terms.content.use = termspb.USE_ONE_TIME if once else termspb.USE_UNSPECIFIED
    if effect is Effect.ALLOW:
        terms.mode.channels.extend((termspb.CHANNEL_DATA, termspb.CHANNEL_WEB_INBOX))
    if until:
        terms.timing.validity.end_time.CopyFrom(timestamp(until))
    return consentpb.Rule(effect=consentpb.RuleEffect.ValueType(effect), scope=scope, terms=terms)


def end_of(until: datetime | None, days: int | None, now: datetime) -> datetime | None:
    """Find where a span ends: at the start of a day in UTC, or so many days from now."""
    if until:
        return until.replace(tzinfo=UTC)
    return now + timedelta(days=days) if days else None


def check_purposes(purposes: Iterable[str]) -> None:
    """Accept names of purposes, in full or without the vocabulary's address. Raises Stop, which lists them."""
    for purpose in purposes:
        if complete_purpose(purpose) not in PURPOSES:
            known = ", ".join(sorted(each.removeprefix(DPV) for each in PURPOSES))
            raise Stop(f"no purpose is called {purpose!r}", f"One of: {known}.")


def _use(terms: Terms) -> str:
    return {Use.ONE_TIME: "once", Use.STANDING: "while it lives", None: "any"}[terms.use]
