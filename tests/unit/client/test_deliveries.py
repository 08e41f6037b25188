import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from parley.broker.v1 import broker_pb2 as brokerpb
from parley_client import Kind, attribute
from parley_client.deliveries import Delivery, Opener
from parley_client.errors import DeliveryInvalid
from parley_crypto.jws import sign_statement
from parley_crypto.release import seal_release
from parley_crypto.signing import Sealer, Signer
from parley_crypto.trust import Trust
from tests.unit.client.deliveries import (
    CLAIMS,
    CONSENT_CLAIMS,
    EXCHANGE,
    NOTICE_CLAIMS,
    OPENER,
    PSEUDONYM,
    notice,
    release,
)
from tests.unit.client.scripted import CONSENT, MARKETER, SEALER, VAULT


def test_a_release_opens_to_values_answers_and_consent() -> None:
    opened = release().open()

    assert ("r" * 32, EXCHANGE, PSEUDONYM) == (opened.release_id, opened.exchange, opened.pseudonym)
    assert {"profile.education": "tertiary"} == opened.values
    assert {
        attribute("profile.age").between(30, 45): True,
        attribute("profile.job").is_("student"): False,
    } == opened.answers
    assert ("consents/c", CONSENT_CLAIMS) == (opened.consent_name, opened.consent)
    assert datetime(2026, 6, 1, tzinfo=UTC) == opened.expires
    assert "tertiary" not in repr(opened) + repr(release())


def test_a_delivery_is_named_in_a_log_and_holds_its_keys_back() -> None:
    assert "Delivery('deliveries/1', release)" == repr(release())
    for held in (release(), SEALER, CONSENT):
        with pytest.raises(TypeError, match="private key"):
            pickle.dumps(held)


def test_a_delivery_is_kept_as_bytes_that_only_its_marketer_opens() -> None:
    delivery = release()
    raw = delivery.to_bytes()

    assert delivery.message == brokerpb.Delivery.FromString(raw)
    assert b"tertiary" not in raw
    assert SEALER.private_key not in raw


def test_a_release_to_an_older_key_still_opens() -> None:
    rotated = Opener(MARKETER, [Sealer(b"newer".ljust(32)), SEALER], OPENER.trust)

    assert PSEUDONYM == replace(release(), opener=rotated).open().pseudonym


def test_a_release_to_another_key_does_not_open() -> None:
    other = Opener(MARKETER, [Sealer(b"other".ljust(32))], OPENER.trust)

    with pytest.raises(DeliveryInvalid, match="not sealed to a key of yours"):
        replace(release(), opener=other).open()


def test_every_changed_byte_of_a_sealed_release_is_noticed() -> None:
    sealed = release().message.release.sealed_release
    for at in range(len(sealed)):
        changed = release()
        changed.message.release.sealed_release = sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :]
        with pytest.raises(DeliveryInvalid, match="not sealed"):
            changed.open()


@pytest.mark.parametrize("zone", ["vault", "consent"])
def test_a_release_signed_by_somebody_else_is_refused(zone: str) -> None:
    keys = {name: ring for name, ring in OPENER.trust.signing.items() if name != zone}

    with pytest.raises(DeliveryInvalid, match="not signed by whom you trust"):
        replace(release(), opener=replace(OPENER, trust=Trust(keys, {}))).open()


@pytest.mark.parametrize(
    ("claim", "foreign"),
    [
        ("marketer", "marketers/" + "z" * 26),
        ("pseudonym", "z" * 32),
        ("exchange", f"{MARKETER}/exchanges/other"),
        ("release", "z" * 32),
    ],
)
def test_a_release_that_says_inside_other_than_outside_is_refused(claim: str, foreign: str) -> None:
    with pytest.raises(DeliveryInvalid, match=f"differs.*{claim}"):
        release({**CLAIMS, claim: foreign}).open()


@pytest.mark.parametrize("field", ["pseudonym", "exchange", "release_id"])
def test_an_envelope_that_the_broker_changed_is_refused(field: str) -> None:
    changed = release()
    setattr(changed.message.release, field, "z" * 32)

    with pytest.raises(DeliveryInvalid, match="differs"):
        changed.open()


@pytest.mark.parametrize(
    "changed",
    [
        {"record_id": "consents/other"},
        {"pii_principal_id": "z" * 32},
        {"pii_processing": [{"pii_controllers": ["marketers/" + "z" * 26]}]},
    ],
)
def test_a_consent_about_something_else_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(DeliveryInvalid, match="differs"):
        release(consent={**CONSENT_CLAIMS, **changed}).open()


@pytest.mark.parametrize(
    "changed",
    [
        {"fields": [{"attribute": "a.b"}]},
        {"fields": 1},
        {"fields": [{"attribute": "a.b", "form": "answer", "question": None, "answer": True}]},
        {"expires": "soon"},
    ],
)
def test_a_form_that_is_not_known_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(DeliveryInvalid, match="not of a form"):
        release({**CLAIMS, **changed}).open()


def test_a_statement_of_another_kind_is_no_consent() -> None:
    delivery = release()
    delivery.message.release.consent_artefact = sign_statement("notice", CONSENT_CLAIMS, CONSENT)

    with pytest.raises(DeliveryInvalid, match="not signed"):
        delivery.open()


def test_a_notice_says_what_became_of_a_consent() -> None:
    read = notice().notice()

    assert ("consents/c", PSEUDONYM, "ConsentRevoked") == (read.consent, read.pseudonym, read.notice)
    assert datetime(2026, 5, 4, tzinfo=UTC) == read.time
    assert (Kind.NOTICE, Kind.RELEASE) == (notice().kind, release().kind)


@pytest.mark.parametrize("field", ["consent", "pseudonym", "notice"])
def test_a_notice_that_the_broker_changed_is_refused(field: str) -> None:
    changed = notice()
    setattr(changed.message.notice, field, "other")

    with pytest.raises(DeliveryInvalid, match=f"differs.*{field}"):
        changed.notice()


@pytest.mark.parametrize(
    "forge",
    [
        lambda: sign_statement("notice", NOTICE_CLAIMS, VAULT),
        lambda: sign_statement("consent", NOTICE_CLAIMS, CONSENT),
        lambda: "",
        lambda: json.dumps(NOTICE_CLAIMS),
    ],
)
def test_a_notice_that_consent_did_not_sign_is_refused(forge: Callable[[], str]) -> None:
    changed = notice()
    changed.message.notice.signed_notice = forge()

    with pytest.raises(DeliveryInvalid, match="not signed by a consent service"):
        changed.notice()


@pytest.mark.parametrize("time", [{}, {"iat": "soon"}, {"iat": 1e300}])
def test_a_notice_without_a_time_is_refused(time: dict[str, Any]) -> None:
    claims = {name: value for name, value in NOTICE_CLAIMS.items() if name != "iat"} | time
    changed = notice()
    changed.message.notice.signed_notice = sign_statement("notice", claims, CONSENT)

    with pytest.raises(DeliveryInvalid, match="not of a form"):
        changed.notice()


def test_each_kind_is_read_by_its_own_method() -> None:
    with pytest.raises(TypeError, match=r"notice\(\)"):
        notice().open()
    with pytest.raises(TypeError, match=r"open\(\)"):
        release().notice()


def test_a_foreign_vault_cannot_speak_for_ours() -> None:
    delivery = release()
    delivery.message.release.sealed_release = seal_release(Signer(b"evil".ljust(32)), SEALER.public_key, CLAIMS)

    with pytest.raises(DeliveryInvalid, match="not signed"):
        Delivery(brokerpb.Delivery(release=delivery.message.release), OPENER).open()
