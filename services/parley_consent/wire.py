"""Consent's records between wire and value."""

from collections.abc import Iterable, Iterator
from datetime import datetime

from parley.common.v1 import receipt_pb2 as receiptpb
from parley.common.v1 import terms_pb2 as termspb
from parley.consent.v1 import consent_pb2 as consentpb
from parley_consent.domain.deciding import Effect, Scope
from parley_consent.domain.records import ConsentRecord, RuleRecord, SettlementRecord
from parley_consent.domain.states import at
from parley_crypto.commitment import Opening
from parley_kit.faults import InvalidRequest, NotSupportedYet, Violation
from parley_terms.faults import InvalidConsentPurpose, InvalidDateRange
from parley_terms.purposes import PURPOSES
from parley_terms.terms import Form, Level, Terms
from parley_terms.wire import terms_from, timestamp

_MOST_IN_ALL = 10_000
MOST_NAMED = 5_000
"""Consents that one answer names: a few hundred bytes each."""


def enforced_terms(message: termspb.Terms, prefix: str) -> Terms:
    """Read terms. Raises NotSupportedYet where they have a dial that nothing here enforces."""
    terms = terms_from(message)
    if terms.unsupported:
        raise NotSupportedYet(
            violations=[Violation(f"{prefix}.{path}", "not enforced yet") for path in terms.unsupported]
        )
    return terms


def check_rule_terms(message: termspb.Terms, prefix: str) -> None:
    """Check a rule's terms. Raises NotSupportedYet, InvalidRequest, InvalidConsentPurpose, InvalidDateRange."""
    terms = enforced_terms(message, prefix)
    if stray := [
        Violation(f"{prefix}.content.fields[{index}].question", "only with FORM_ANSWER")
        for index, field in enumerate(terms.fields)
        if field.question is not None and field.form is not Form.ANSWER
    ]:
        raise InvalidRequest(violations=stray)
    if not terms.purposes <= PURPOSES.keys():
        strange = Violation(f"{prefix}.purposes", "name purposes of the vocabulary in docs/terms.md")
        raise InvalidConsentPurpose(violations=[strange])
    if terms.decision_deadline:
        raise InvalidDateRange(violations=[Violation(f"{prefix}.timing.decision_deadline", "a rule has none")])
    start, end = terms.validity.start, terms.validity.end
    if start and end and end <= start:
        raise InvalidDateRange(violations=[Violation(f"{prefix}.timing.validity", "ends before it begins")])


def scope_from(message: consentpb.RuleScope) -> Scope:
    """Read a scope. Raises InvalidRequest where none is chosen."""
    match message.WhichOneof("scope"):
        case "marketer":
            return Scope(marketer=message.marketer)
        case "least_level" if message.least_level:
            return Scope(least_level=Level(message.least_level))
        case "everyone":
            return Scope()
    raise InvalidRequest(violations=[Violation("rule.scope", "choose a marketer, a level, or everyone")])


def rule_to(rule: RuleRecord) -> consentpb.Rule:
    """Write a rule."""
    scope = consentpb.RuleScope(everyone=consentpb.Everyone())
    if rule.scope.marketer:
        scope = consentpb.RuleScope(marketer=rule.scope.marketer)
    elif rule.scope.least_level:
        scope = consentpb.RuleScope(least_level=termspb.VerificationLevel.ValueType(rule.scope.least_level))
    return consentpb.Rule(
        name=f"rules/{rule.rule_id}",
        effect=consentpb.RuleEffect.ValueType(rule.effect),
        scope=scope,
        terms=termspb.Terms.FromString(rule.terms),
        create_time=timestamp(rule.created_at),
    )


def effect_from(message: consentpb.Rule) -> Effect:
    """Read an effect, which the rules of the field have made sure is there."""
    return Effect(message.effect)


def offer_to(record: ConsentRecord, now: datetime) -> consentpb.Offer:
    """Write an offer, with the state it has now."""
    return consentpb.Offer(
        name=f"offers/{record.consent_id}",
        state=_state(record, now),
        marketer=record.marketer.marketer,
        marketer_display_name=record.marketer.name,
        marketer_level=termspb.VerificationLevel.ValueType(record.marketer.level),
        terms=termspb.Terms.FromString(record.terms),
        text=record.offer_text,
        exchange=record.exchange,
        create_time=timestamp(record.created_at),
    )


def consent_to(record: ConsentRecord, now: datetime) -> consentpb.Consent:
    """Write a consent, with the state it has now."""
    message = consentpb.Consent(
        name=f"consents/{record.consent_id}",
        state=_state(record, now),
        marketer=record.marketer.marketer,
        marketer_display_name=record.marketer.name,
        pseudonym=record.pseudonym,
        terms=termspb.Terms.FromString(record.terms),
        artefact=record.artefact,
        rule=f"rules/{record.rule_id}" if record.rule_id else "",
        create_time=timestamp(record.agreed_at or record.created_at),
        revoked_by=record.revoked_by,
        settlements=map(settlement_to, record.settlements),
        more_settlements=record.more,
    )
    if record.revoked_at:
        message.revoke_time.CopyFrom(timestamp(record.revoked_at))
    return message


def ended_to(records: Iterable[ConsentRecord]) -> Iterator[consentpb.Consent]:
    """Write of consents that have just been revoked what is said where there may be thousands."""
    left = _MOST_IN_ALL
    for record in records:
        assert record.revoked_at is not None
        shown = record.settlements[:left]
        left -= len(shown)
        yield consentpb.Consent(
            name=f"consents/{record.consent_id}",
            state=consentpb.ConsentState.ValueType(record.state),
            revoke_time=timestamp(record.revoked_at),
            revoked_by=record.revoked_by,
            settlements=map(settlement_to, shown),
            more_settlements=record.more or len(shown) < len(record.settlements),
        )


def settlement_to(record: SettlementRecord) -> consentpb.Settlement:
    """Write a release that was committed."""
    settled = timestamp(record.settled_at)
    return consentpb.Settlement(release_id=record.release_id, exchange=record.exchange, settle_time=settled)


def opening_to(opening: Opening | None) -> receiptpb.Opening | None:
    """Write what opens a receipt."""
    return receiptpb.Opening(salt=opening.salt, detail=opening.detail) if opening else None


def _state(record: ConsentRecord, now: datetime) -> consentpb.ConsentState.ValueType:
    state = at(record.state, record.decision_deadline, record.valid_until, now)
    return consentpb.ConsentState.ValueType(state)
