"""
The consent artefact: what one customer agreed with one marketer, in the fields of ISO/IEC TS 27560 as DPV spells them.

The principal is the pseudonym: both sides hold the artefact, and it must name the customer to nobody else.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from parley_consent.domain.records import MarketerRecord
from parley_kit.clock import iso
from parley_terms.claims import question_claims
from parley_terms.terms import Field, Form, Terms

SCHEMA = "https://w3id.org/dpv/schema/dpv-27560#record"
_FORMS = {Form.EXACT: "exact", Form.BANDED: "banded", Form.ANSWER: "answer"}


@dataclass(frozen=True, slots=True)
class Birth:
    """How an agreement came about: which, about whom as the marketer knows them, and when."""

    consent: str
    pseudonym: str
    at: datetime


def common_claims(
    marketer: MarketerRecord, exchange: str, terms: Terms, jurisdiction: str, *, by_rule: bool
) -> dict[str, Any]:
    """Build what is the same in the artefacts of all who agree to the same, in one exchange."""
    return {
        "schema_version": SCHEMA,
        "pii_processing": [_processing(marketer, exchange, terms, jurisdiction, by_rule=by_rule)],
        "party_identification": [_party(marketer)],
    }


def own_claims(birth: Birth, terms: Terms) -> dict[str, Any]:
    """Build what one artefact says besides."""
    return {
        "record_id": birth.consent,
        "pii_principal_id": birth.pseudonym,
        "events": [_event(birth, terms)],
    }


def _processing(
    marketer: MarketerRecord, exchange: str, terms: Terms, jurisdiction: str, *, by_rule: bool
) -> dict[str, Any]:
    return {
        "privacy_notice": f"urn:parley:exchange:{exchange}",
        "language": "en",
        "purpose": sorted(terms.purposes),
        "lawful_basis": "https://w3id.org/dpv/legal/eu/gdpr#A6-1-a",
        "pii_information": [field_claims(field) for field in terms.fields],
        "pii_controllers": [marketer.marketer],
        "collection_method": "release under a standing rule" if by_rule else "release",
        "processing_method": sorted(channel.name.lower() for channel in terms.channels),
        "storage_locations": [jurisdiction],
        "retention_period": "until the end of the consent",
        "recipient_third_parties": [],
        "withdrawal_method": "parley.consent.v1.ConsentService/WithdrawConsent",
        "jurisdiction": jurisdiction,
        "use": terms.use.name.lower() if terms.use else "",
    }


def _party(marketer: MarketerRecord) -> dict[str, Any]:
    return {
        "party_id": marketer.marketer,
        "party_name": marketer.entity,
        "party_address": marketer.contact,
        "party_contact": marketer.contact,
        "party_type": "https://w3id.org/dpv#DataController",
        "party_role": marketer.name,
    }


def _event(birth: Birth, terms: Terms) -> dict[str, Any]:
    return {
        "event_time": iso(birth.at),
        "event_type": "https://w3id.org/dpv#ConsentGiven",
        "event_state": "ACTIVE",
        "validity_duration": {
            "start": iso(terms.validity.start or birth.at),
            "end": iso(terms.validity.end) if terms.validity.end else "",
        },
        "entity_id": birth.pseudonym,
    }


def field_claims(field: Field) -> dict[str, Any]:
    """One field as it stands in artefacts and audit details."""
    claims: dict[str, Any] = {"pii_type": field.attribute, "form": _FORMS[field.form]}
    if field.question is not None:
        claims["question"] = question_claims(field.question)
    return claims
