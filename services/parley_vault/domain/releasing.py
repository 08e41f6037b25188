"""What a permit opens: whether it holds for whom it came with, and what a release then says."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from parley_crypto.subject_ref import SubjectRef
from parley_kit.clock import iso
from parley_terms.claims import question_claims
from parley_terms.terms import Field, Form, Question
from parley_terms.values import Catalogue, answer, check_question


class Refusal(StrEnum):
    """Why nothing was opened: names of ``parley.common.v1.ErrorReason``."""

    INVALID = "PERMIT_INVALID"
    EXPIRED = "PERMIT_EXPIRED"
    DEFECT = "INTERNAL"


@dataclass(frozen=True, slots=True)
class Permit:
    """
    What consent permits, as far as vault needs to know.

    ``until`` is the end of what was agreed, if it has one. What was put after ``unchanged_since`` isn't given, if it says so.
    """

    release_id: str
    exchange: str
    consent: str
    marketer: str
    level: int
    pseudonym: str
    sealing_key: bytes
    fields: tuple[Field, ...]
    vault_host: str
    expires_at: datetime
    unchanged_since: datetime | None
    until: datetime | None


def refusal(permit: Permit, ref: SubjectRef, host: str, now: datetime) -> Refusal | None:
    """Why a permit of consent's opens nothing here, now, for the subject of a ref; None where it does."""
    if (permit.pseudonym, permit.marketer, permit.vault_host) != (ref.pseudonym, ref.marketer, host):
        return Refusal.INVALID
    if not permit.pseudonym or not all(_can_be_given(field) for field in permit.fields):
        return Refusal.INVALID
    return Refusal.EXPIRED if now >= permit.expires_at else None


def _can_be_given(field: Field) -> bool:
    return field.form is Form.EXACT or (field.form is Form.ANSWER and field.question is not None)


def release(permit: Permit, values: Mapping[str, str], catalogue: Catalogue) -> dict[str, Any]:
    """
    What a release says: the fields that the permit names and nothing else, of the values that are there.

    A question that doesn't fit its attribute has no answer, so it is left out like an item that isn't there. So is an attribute
    for which the marketer isn't verified far enough, any more perhaps.
    """
    said = {
        "release": permit.release_id,
        "exchange": permit.exchange,
        "marketer": permit.marketer,
        "pseudonym": permit.pseudonym,
        "consent": permit.consent,
        "fields": [
            claims
            for field in permit.fields
            if _is_within(permit.level, field, catalogue)
            for claims in _given(field, values, catalogue)
        ],
    }
    return said | ({"expires": iso(permit.until)} if permit.until else {})


def _is_within(level: int, field: Field, catalogue: Catalogue) -> bool:
    attribute = catalogue.get(field.attribute)
    return attribute is None or level >= attribute.least_level


def _given(field: Field, values: Mapping[str, str], catalogue: Catalogue) -> Iterator[dict[str, Any]]:
    value = values.get(field.attribute)
    if value is None:
        return
    if field.form is Form.EXACT:
        yield {"attribute": field.attribute, "form": "exact", "value": value}
    elif field.question is not None and (answered := _answer(field, field.question, value, catalogue)) is not None:
        question = question_claims(field.question)
        yield {"attribute": field.attribute, "form": "answer", "question": question, "answer": answered}


def _answer(field: Field, question: Question, value: str, catalogue: Catalogue) -> bool | None:
    attribute = catalogue.get(field.attribute)
    try:
        if attribute is not None:
            check_question(attribute, question)
            return answer(attribute, question, value)
    except ValueError:  # nobody before the vault knows the catalogue
        return None
    return None
