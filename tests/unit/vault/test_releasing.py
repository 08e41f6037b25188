from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from parley_crypto.subject_ref import SubjectRef
from parley_terms.terms import Field, Form, OneOf, Range
from parley_vault.catalogue import load
from parley_vault.domain.releasing import Permit, Refusal, refusal, release

NOW = datetime(2031, 5, 4, tzinfo=UTC)
REF = SubjectRef("subject", "local", "pseudonym", "marketers/m")
PERMIT = Permit(
    release_id="r",
    exchange="x",
    consent="consents/c",
    marketer="marketers/m",
    level=2,
    pseudonym="pseudonym",
    sealing_key=b"",
    fields=(Field("profile.age", Form.EXACT),),
    vault_host="local",
    expires_at=NOW + timedelta(seconds=30),
    unchanged_since=None,
    until=None,
)


def test_permit_that_fits_its_ref_holds_until_it_expires() -> None:
    assert None is refusal(PERMIT, REF, "local", NOW + timedelta(seconds=29))
    assert Refusal.EXPIRED is refusal(PERMIT, REF, "local", NOW + timedelta(seconds=30))


@pytest.mark.parametrize(
    "permit",
    [
        replace(PERMIT, pseudonym="another"),
        replace(PERMIT, marketer="marketers/n"),
        replace(PERMIT, vault_host="elsewhere"),
        replace(PERMIT, fields=(Field("profile.age", Form.BANDED),)),
        replace(PERMIT, fields=(Field("profile.age", Form.ANSWER),)),
    ],
)
def test_permit_for_another_or_for_what_can_not_be_given_is_invalid(permit: Permit) -> None:
    assert Refusal.INVALID is refusal(permit, REF, "local", NOW)


def test_ref_without_a_pseudonym_opens_nothing() -> None:
    permit, ref = replace(PERMIT, pseudonym="", marketer=""), SubjectRef("subject", "local")

    assert Refusal.INVALID is refusal(permit, ref, "local", NOW)


def test_release_says_what_the_permit_names_and_nothing_else() -> None:
    fields = (
        Field("profile.age", Form.EXACT),
        Field("profile.age", Form.ANSWER, Range("18", None)),
        Field("profile.job", Form.ANSWER, OneOf(("retired", "student"))),
        Field("profile.city", Form.EXACT),
    )
    values = {"profile.age": "42", "profile.job": "management", "finance.income": "90000"}

    assert {
        "release": "r",
        "exchange": "x",
        "marketer": "marketers/m",
        "pseudonym": "pseudonym",
        "consent": "consents/c",
        "fields": [
            {"attribute": "profile.age", "form": "exact", "value": "42"},
            {"attribute": "profile.age", "form": "answer", "question": {"min": "18"}, "answer": True},
            {
                "attribute": "profile.job",
                "form": "answer",
                "question": {"one_of": ["retired", "student"]},
                "answer": False,
            },
        ],
        "expires": "2031-05-04T00:00:00.000000Z",
    } == release(replace(PERMIT, fields=fields, until=NOW), values, load())


@pytest.mark.parametrize(
    "field",
    [
        Field("profile.job", Form.ANSWER, Range("a", "b")),
        Field("profile.age", Form.ANSWER, Range("young", None)),
        Field("profile.age", Form.ANSWER, Range()),
        Field("gone.attribute", Form.ANSWER, OneOf(("x",))),
    ],
)
def test_question_that_does_not_fit_has_no_answer(field: Field) -> None:
    values = {"profile.job": "student", "profile.age": "42", "gone.attribute": "x"}

    assert [] == release(replace(PERMIT, fields=(field,)), values, load())["fields"]
