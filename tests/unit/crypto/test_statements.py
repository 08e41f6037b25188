import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from jwt.api_jws import PyJWS

from parley_crypto.jws import (
    Keys,
    StatementInvalid,
    canonical,
    check_current,
    sign_statement,
    spelt,
    unverified_claims,
    verify_statement,
)
from parley_crypto.statements import (
    ASSERTION_LIFE,
    CARD_LIFE,
    TOKEN_LIFE,
    Assertion,
    Card,
    Token,
    issue_card,
    issue_token,
    make_assertion,
    verify_assertion,
    verify_card,
    verify_token,
)
from tests.unit.crypto.makers import KEYS, NOW, SEALER, SIGNER, STRANGER

SECOND = timedelta(seconds=1)
TOKEN = Token("customer", "c", b"\1\2")
CARD = Card("marketers/m", "Näme", "Entity", 2, "a@b", SEALER.public_key)
# Made once, by SIGNER at NOW: a token that is out must be good for as long as it lives, whatever becomes of the code.
HEADER = "eyJhbGciOiJFZERTQSIsImtpZCI6Imt6ZHZ2ajJ1bW5kdXlhdWYiLCJ0eXAiOiJwYXJsZXktdG9rZW4randzIn0"
PAYLOAD = (
    "eyJhcmVmIjoiQVFJPSIsImF1ZCI6InBhcmxleS52YXVsdCIsImV4cCI6MTg5MzQ1NjMwMCwiaWF0IjoxODkzNDU2MDAwLCJpc3MiOiJwYXJsZXkuaWRl"
    "bnRpdHkiLCJraW5kIjoiY3VzdG9tZXIiLCJzdWIiOiJjIn0"
)
SIGNATURE = "vtgoIm81QwMBIn4AKCbA7SgYDSBywj62Hre1Gn1IAoJYxyeFbU_zBfuqcR9NuQXxkpQ7tXAxnzESQiu1iqBIDA"
PINNED = f"{HEADER}.{PAYLOAD}.{SIGNATURE}"

MAKE: dict[str, Callable[[], str]] = {
    "assertion": lambda: make_assertion(SIGNER, "marketers/m", "j", NOW),
    "token": lambda: issue_token(SIGNER, TOKEN, "vault", NOW),
    "card": lambda: issue_card(SIGNER, CARD, NOW),
}
VERIFY: dict[str, Callable[..., Any]] = {
    "assertion": lambda statement, now=NOW, keys=KEYS: verify_assertion(statement, lambda _subject: keys, now),
    "token": lambda statement, now=NOW, keys=KEYS: verify_token(statement, keys, "vault", now),
    "card": lambda statement, now=NOW, keys=KEYS: verify_card(statement, keys, now),
}
SAYS = {"assertion": Assertion("marketers/m", "j"), "token": TOKEN, "card": CARD}
LIFE = {"assertion": ASSERTION_LIFE, "token": TOKEN_LIFE, "card": CARD_LIFE}
KINDS = sorted(MAKE)


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def forged(header: object, payload: bytes = b"{}", *, sign: bool = True) -> str:
    """A statement with any header, signed all the same."""
    signed = f"{b64(json.dumps(header).encode())}.{b64(payload)}"
    return f"{signed}.{b64(SIGNER.sign(signed.encode())) if sign else ''}"


def claims(kind: str, /, **other: Any) -> dict[str, Any]:
    return {name: value for name, value in (unverified_claims(MAKE[kind]()) | other).items() if value is not None}


@pytest.mark.parametrize("value", [{"a": {"b": spelt(1)}}, [spelt(1)], spelt(1), {"ä": spelt(1)}, {1: spelt(1)}])
def test_what_is_spelt_stands_in_the_outermost_object_under_an_ascii_name(value: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - as canonical says
        canonical(value)


@pytest.mark.parametrize("value", [float("nan"), "\ud800", 2**53])
def test_what_has_no_canonical_form_is_not_spelt(value: Any) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - as canonical says
        spelt(value)


def test_format_has_not_drifted() -> None:
    assert PINNED == MAKE["token"]()
    assert TOKEN == verify_token(PINNED, KEYS, "vault", NOW)


@pytest.mark.parametrize("kind", KINDS)
def test_statement_says_what_was_signed(kind: str) -> None:
    assert SAYS[kind] == VERIFY[kind](MAKE[kind]())


@pytest.mark.parametrize("kind", KINDS)
def test_statement_holds_from_five_seconds_before_to_its_end(kind: str) -> None:
    begin = NOW - 20 * SECOND if kind == "assertion" else NOW  # whoever makes it may have a clock that is ahead
    statement, end = MAKE[kind](), begin + LIFE[kind]
    for now in (begin - 5 * SECOND, end - SECOND / 1000):
        VERIFY[kind](statement, now)
    for now in (begin - 5.001 * SECOND, end, end + SECOND, end + timedelta(days=1)):
        with pytest.raises(StatementInvalid, match="not valid now"):
            VERIFY[kind](statement, now)


@pytest.mark.parametrize("made", KINDS)
@pytest.mark.parametrize("read", KINDS)
def test_no_kind_stands_in_for_another(made: str, read: str) -> None:
    if made != read:
        with pytest.raises(StatementInvalid):
            VERIFY[read](sign_statement(made, claims(read), SIGNER))


@pytest.mark.parametrize("kind", KINDS)
def test_statement_of_a_stranger_is_refused(kind: str) -> None:
    statement = sign_statement(kind, claims(kind), STRANGER)
    posing = {SIGNER.key_id: SIGNER.public_key, STRANGER.key_id: SIGNER.public_key}
    for keys in (KEYS, {}, posing):
        with pytest.raises(StatementInvalid):
            VERIFY[kind](statement, keys=keys)


@pytest.mark.parametrize("kind", KINDS)
def test_any_change_to_a_statement_is_noticed(kind: str) -> None:
    statement = MAKE[kind]()
    for place in range(len(statement)):
        other = "A" if statement[place] not in "A." else "B"
        changed = statement[:place] + other + statement[place + 1 :]
        with pytest.raises(StatementInvalid):
            VERIFY[kind](changed)


SIGNED = f"{HEADER}.{PAYLOAD}"
SPELLINGS = {
    "padded": f"{PINNED}==",
    "padded header": f"{HEADER}=.{PAYLOAD}.{b64(SIGNER.sign(f'{HEADER}=.{PAYLOAD}'.encode()))}",
    "broken lines": f"{SIGNED}.{SIGNATURE[:40]}\n{SIGNATURE[40:]}",
    "bits to spare": f"{SIGNED}.{SIGNATURE[:-1]}B",
    "base64 that is not for addresses": f"{SIGNED}.{SIGNATURE.replace('_', '/')}",
}


@pytest.mark.parametrize("statement", SPELLINGS.values(), ids=SPELLINGS)
def test_statement_has_one_spelling(statement: str) -> None:
    with pytest.raises(StatementInvalid):
        verify_token(statement, KEYS, "vault", NOW)


@pytest.mark.parametrize("kind", KINDS)
def test_statement_is_one_to_a_reader_that_is_not_ours(kind: str) -> None:
    stranger, statement = PyJWS(algorithms=["EdDSA"]), MAKE[kind]()
    key = Ed25519PublicKey.from_public_bytes(SIGNER.public_key)
    read = stranger.decode_complete(statement, key, algorithms=["EdDSA"])
    assert {"alg": "EdDSA", "kid": SIGNER.key_id, "typ": f"parley-{kind}+jws"} == read["header"]
    assert unverified_claims(statement) == json.loads(read["payload"])


@pytest.mark.parametrize("sort_headers", [True, False])
def test_statement_of_a_writer_that_is_not_ours_is_one(sort_headers: bool) -> None:
    headers = {"typ": "parley-token+jws", "kid": SIGNER.key_id}
    key = Ed25519PrivateKey.from_private_bytes(SIGNER.seed)
    body = json.dumps(claims("token"), indent=1).encode()
    written = PyJWS(algorithms=["EdDSA"]).encode(body, key, "EdDSA", headers, sort_headers=sort_headers)
    assert TOKEN == verify_token(written, KEYS, "vault", NOW)


@pytest.mark.parametrize("kind", KINDS)
def test_statement_without_times_in_whole_seconds_is_refused(kind: str) -> None:
    wrong: list[dict[str, Any]] = [{"iat": None}, {"exp": None}]
    values: list[Any] = ["1893456000", 1893456000.5, True, [], {}]
    wrong += [{name: value} for name in ("iat", "exp") for value in values]
    for each in wrong:
        with pytest.raises(StatementInvalid):
            VERIFY[kind](sign_statement(kind, claims(kind, **each), SIGNER))


@pytest.mark.parametrize("kind", ["token", "card"])
def test_statement_that_lacks_a_claim_is_refused(kind: str) -> None:
    for name in claims(kind).keys() - {"iss"}:
        with pytest.raises(StatementInvalid):
            VERIFY[kind](sign_statement(kind, claims(kind, **{name: None}), SIGNER))


@pytest.mark.parametrize("wrong", [5, "é", [], {}])
def test_claim_that_is_not_bytes_is_refused(wrong: object) -> None:
    for kind, name in (("token", "aref"), ("card", "seal")):
        with pytest.raises(StatementInvalid):
            VERIFY[kind](sign_statement(kind, claims(kind, **{name: wrong}), SIGNER))


def test_token_is_for_one_service_from_identity() -> None:
    for audience in ("consent", "vaul", "vault2", ""):
        with pytest.raises(StatementInvalid, match="another service"):
            verify_token(MAKE["token"](), KEYS, audience, NOW)
    with pytest.raises(StatementInvalid, match="another service"):
        VERIFY["token"](sign_statement("token", claims("token", iss="parley.vault"), SIGNER))


@pytest.mark.parametrize(
    "wrong",
    [
        {"aud": "parley.vault"},
        {"aud": ["parley.identity"]},
        {"iss": "marketers/n"},
        {"iss": None},
        {"sub": "marketers/n"},
        {"sub": None},
        {"jti": None},
        {"jti": 5},
        {"exp": int(NOW.timestamp()) + 41},
        {"iat": int(NOW.timestamp()) - 21},
        {"exp": 10**15},
    ],
    ids=str,
)
def test_assertion_that_does_not_fit_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(StatementInvalid):
        VERIFY["assertion"](sign_statement("assertion", claims("assertion", **wrong), SIGNER))


def test_assertion_is_checked_with_the_keys_of_whom_it_names() -> None:
    asked: list[str] = []

    def keys_of(subject: str) -> Keys:
        asked.append(subject)
        return KEYS if subject == "marketers/m" else {}

    verify_assertion(MAKE["assertion"](), keys_of, NOW)
    with pytest.raises(StatementInvalid):
        verify_assertion(make_assertion(SIGNER, "marketers/n", "j", NOW), keys_of, NOW)
    assert ["marketers/m", "marketers/n"] == asked


def test_card_names_the_key_that_releases_are_sealed_to() -> None:
    assert SEALER.key_id == CARD.sealing_key_id


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none", "typ": "parley-token+jws", "kid": SIGNER.key_id},
        {"alg": "HS256", "typ": "parley-token+jws", "kid": SIGNER.key_id},
        {"alg": "ES256", "typ": "parley-token+jws", "kid": SIGNER.key_id},
        {"alg": ["EdDSA"], "typ": "parley-token+jws", "kid": SIGNER.key_id},
        {"typ": "parley-token+jws", "kid": SIGNER.key_id},
        {"alg": "EdDSA", "typ": "JWT", "kid": SIGNER.key_id},
        {"alg": "EdDSA", "typ": "PARLEY-TOKEN+JWS", "kid": SIGNER.key_id},
        {"alg": "EdDSA", "kid": SIGNER.key_id},
        {"alg": "EdDSA", "typ": "parley-token+jws"},
        {"alg": "EdDSA", "typ": "parley-token+jws", "kid": 5},
        {"alg": "EdDSA", "typ": "parley-token+jws", "kid": [SIGNER.key_id]},
        {"alg": "EdDSA", "typ": "parley-token+jws", "kid": SIGNER.key_id, "b64": False},
        {"alg": "EdDSA", "typ": "parley-token+jws", "kid": SIGNER.key_id, "b64": False, "crit": ["b64"]},
        {"alg": "EdDSA", "typ": "parley-token+jws", "kid": SIGNER.key_id, "crit": ["exp"], "exp": 1},
        {"alg": "EdDSA", "typ": "parley-token+jws", "kid": SIGNER.key_id, "jku": "https://keys.example"},
        {"alg": "EdDSA", "typ": "parley-token+jws", "kid": "none", "jwk": {"kty": "OKP", "crv": "Ed25519", "x": "A"}},
        [],
        "text",
        None,
    ],
    ids=str,
)
def test_header_that_is_not_ours_is_refused(header: object) -> None:
    payload = canonical(claims("token"))
    for statement in (forged(header, payload), forged(header, payload, sign=False)):
        with pytest.raises(StatementInvalid):
            VERIFY["token"](statement)


def test_public_key_is_no_shared_secret() -> None:
    header = {"alg": "HS256", "typ": "parley-token+jws", "kid": SIGNER.key_id}
    signed = f"{b64(json.dumps(header).encode())}.{b64(canonical(claims('token')))}"
    tag = hmac.digest(SIGNER.public_key, signed.encode(), hashlib.sha256)

    with pytest.raises(StatementInvalid):
        VERIFY["token"](f"{signed}.{b64(tag)}")


OURS = {"alg": "EdDSA", "typ": "parley-token+jws", "kid": SIGNER.key_id}
GARBAGE = {
    "empty": "",
    "dots": "..",
    "many dots": "." * 1000,
    "two parts": "a.b",
    "four parts": PINNED + ".a",
    "not ascii": "ü.ü.ü",
    "half a character": "\ud800.a.b",
    "zero": "\0",
    "huge": "A" * 1_000_000,
    "huge parts": ".".join(["A" * 300_000] * 3),
    "nested payload": forged(OURS, b"[" * 100_000),
    "nested whole payload": forged(OURS, b"[" * 100_000 + b"]" * 100_000),
    "huge number": forged(OURS, b'{"iat":' + b"9" * 10_000 + b"}"),
    "number": forged(OURS, b"1"),
    "list": forged(OURS, b"[]"),
    "null": forged(OURS, b"null"),
    "no json": forged(OURS, b"{"),
    "no text": forged(OURS, b"\xff\xfe"),
    "nothing": forged(OURS, b""),
}


@pytest.mark.parametrize("statement", GARBAGE.values(), ids=GARBAGE)
def test_garbage_is_refused_as_any_other(statement: str) -> None:
    for kind in KINDS:
        with pytest.raises(StatementInvalid):
            VERIFY[kind](statement)
    with pytest.raises(StatementInvalid):
        unverified_claims(statement)


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_header_that_is_nested_deeply_is_refused_as_any_other(opening: bytes) -> None:
    with pytest.raises(StatementInvalid):
        verify_statement("token", f"{b64(opening * 100_000)}.{PAYLOAD}.{SIGNATURE}", KEYS)


def test_claims_are_read_unverified_only_to_learn_whose_they_are() -> None:
    changed = f"{HEADER}.{PAYLOAD}.{b64(bytes(64))}"

    assert "c" == unverified_claims(changed)["sub"]
    with pytest.raises(StatementInvalid):
        verify_statement("token", changed, KEYS)


def test_canonical_json_is_the_standards() -> None:
    # RFC 8785, section 3.2.3: names sorted by UTF-16 code units; section 3.2.2.3: numbers.
    names = {"\u20ac": 1, "\r": 2, "\ufb33": 3, "1": 4, "\U0001f600": 5, "\x80": 6, "\u00f6": 7}

    assert ["\r", "1", "\x80", "\u00f6", "\u20ac", "\U0001f600", "\ufb33"] == list(json.loads(canonical(names)))
    assert b"[333333333.3333333,1e+30,4.5,0.002,1e-27]" == canonical([333333333.33333329, 1e30, 4.50, 2e-3, 1e-27])


def test_moment_of_the_check_is_the_one_that_is_given() -> None:
    span = {"iat": int(NOW.timestamp()), "exp": int(NOW.timestamp()) + 1}

    check_current(span, NOW)
    with pytest.raises(StatementInvalid):
        check_current(span, NOW + timedelta(days=365))
