"""What an artefact says: the fields of ISO/IEC TS 27560 as the DPV guide lists them, and never who the customer is."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from parley_consent.domain.artefact import Birth, common_claims, field_claims, own_claims
from parley_consent.domain.records import MarketerRecord
from parley_crypto.jws import canonical
from parley_kit.clock import iso
from parley_terms.purposes import DPV
from parley_terms.terms import Channel, Field, Form, OneOf, Question, Range, Terms, Use, Validity

NOW = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
MARKETER = MarketerRecord("marketers/m", "Hiker's Friend", "Hiker's Friend GmbH", "privacy@hikers.example", 2)
BIRTH = Birth("consents/c", "pseudonym", NOW)
TERMS = Terms(
    fields=(Field("profile.language", Form.EXACT), Field("profile.age", Form.ANSWER, Range("18"))),
    use=Use.STANDING,
    purposes=frozenset({DPV + "Marketing", DPV + "Advertising"}),
    channels=frozenset(Channel),
    validity=Validity(NOW, NOW + timedelta(days=1)),
    decision_deadline=NOW + timedelta(hours=1),
)
MANDATORY = {  # dpv/guides/consent-27560: the fields it marks M
    "": {"schema_version", "record_id", "pii_principal_id"},
    "pii_processing": {
        "privacy_notice",
        "language",
        "purpose",
        "pii_information",
        "pii_controllers",
        "storage_locations",
        "retention_period",
        "jurisdiction",
        "recipient_third_parties",
        "withdrawal_method",
    },
    "party_identification": {"party_id", "party_name", "party_address", "party_contact", "party_type"},
    "events": {"event_time", "validity_duration", "entity_id", "event_type", "event_state"},
}


def claims(terms: Terms = TERMS, *, by_rule: bool = False) -> dict[str, Any]:
    return common_claims(MARKETER, "exchanges/e", terms, "EU", by_rule=by_rule) | own_claims(BIRTH, terms)


@pytest.mark.parametrize("part", MANDATORY)
def test_every_mandatory_field_is_there(part: str) -> None:
    whole = claims()
    records = whole[part] if part else [whole]

    assert [set()] * len(records) == [MANDATORY[part] - record.keys() for record in records]
    assert len(records) >= 1


def test_every_piece_of_information_names_its_type() -> None:
    (processing,) = claims()["pii_processing"]

    assert ["profile.language", "profile.age"] == [each["pii_type"] for each in processing["pii_information"]]


def test_equal_agreements_have_equal_bytes() -> None:
    shuffled = replace(TERMS, purposes=frozenset(sorted(TERMS.purposes, reverse=True)))

    assert canonical(claims()) == canonical(claims(shuffled))
    assert claims() == json.loads(canonical(claims()))


def test_agreement_says_whether_a_rule_made_it() -> None:
    by_rule = claims(by_rule=True)
    (processing,) = by_rule["pii_processing"]

    assert "release under a standing rule" == processing["collection_method"]
    assert "rules/r" not in str(by_rule)


def test_agreement_without_bounds_begins_at_its_birth() -> None:
    (event,) = claims(replace(TERMS, validity=Validity()))["events"]

    assert {"start": iso(NOW), "end": ""} == event["validity_duration"]


@pytest.mark.parametrize(
    ("form", "question", "expected"),
    [
        (Form.EXACT, None, {"form": "exact"}),
        (Form.ANSWER, OneOf(("de", "fr")), {"form": "answer", "question": {"one_of": ["de", "fr"]}}),
        (Form.ANSWER, Range("18", "30"), {"form": "answer", "question": {"min": "18", "max": "30"}}),
        (Form.ANSWER, Range(None, "30"), {"form": "answer", "question": {"max": "30"}}),
    ],
)
def test_field_says_its_form_and_exact_question(
    form: Form, question: Question | None, expected: dict[str, object]
) -> None:
    assert {"pii_type": "a.b", **expected} == field_claims(Field("a.b", form, question))


def test_time_is_utc_to_the_microsecond() -> None:
    assert "2026-05-04T03:02:01.000000Z" == iso(NOW)
