"""Whatever comes in: each reader of the small formats answers with what went in, or with its own refusal and no other error."""

import json
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.bindings import sodium_pad

from parley_crypto.jws import StatementInvalid, canonical, sign_statement, spelt
from parley_crypto.keyring import CiphertextInvalid, KeyRing, decrypt_value, encrypt_value
from parley_crypto.pae import pae, unpae
from parley_crypto.release import open_release, seal_release
from parley_crypto.signing import Sealer, SealInvalid, Signer, seal
from parley_crypto.statements import verify_assertion, verify_card, verify_token
from parley_crypto.subject_ref import RefInvalid, SubjectRef, open_ref, seal_ref
from parley_crypto.trust import Trust, TrustUnusable

few = settings(max_examples=50, deadline=None)  # real cryptography on shared machines: a slow example is no failure

SIGNER, SEALER = Signer(bytes(range(32))), Sealer(bytes(range(32)))
KEYS = {SIGNER.key_id: SIGNER.public_key}
RING = KeyRing({1: bytes([1]) * 32, 2: bytes([2]) * 32}, 2)
NOW = datetime(2030, 1, 1, tzinfo=UTC)

places = st.lists(st.text(max_size=8) | st.binary(max_size=8), max_size=4)
whole = st.integers(-(2**53) + 1, 2**53 - 1)
json_values = st.recursive(
    st.none() | st.booleans() | whole | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
names = st.sampled_from(
    ["iss", "sub", "aud", "jti", "iat", "exp", "kind", "aref", "name", "entity", "level", "contact", "seal"]
)
fitting = st.sampled_from(["parley.identity", "parley.vault", int(NOW.timestamp()), int(NOW.timestamp()) + 60, "AA=="])
claims = st.dictionaries(names, fitting | json_values, max_size=13)


@few
@given(st.binary(max_size=100), places)
def test_wrapped_secret_opens_in_its_place_alone(secret: bytes, place: list[str | bytes]) -> None:
    wrapped = RING.wrap(secret, *place)
    assert secret == RING.unwrap(wrapped, *place)
    with suppress(CiphertextInvalid):
        RING.unwrap(wrapped, *place, "")
        raise AssertionError("it opened elsewhere")


@few
@given(st.binary(min_size=32, max_size=32), st.integers(0, 2**32 - 1), st.binary(max_size=100), places)
def test_encrypted_value_comes_back(dek: bytes, dek_id: int, value: bytes, place: list[str | bytes]) -> None:
    encrypted = encrypt_value(dek, dek_id, value, *place)
    assert value == decrypt_value(dek, encrypted, *place)
    assert 77 + 32 * (len(value) // 32 + 1) == len(encrypted)


@few
@given(st.binary(max_size=300), st.sampled_from([b"", b"\1\0\0\0\1", b"\1\0\0\0\2"]))
def test_random_ciphertext_is_refused_as_such(data: bytes, header: bytes) -> None:
    for read in (
        lambda: RING.unwrap(header + data, "place"),
        lambda: decrypt_value(bytes(32), header + data, "place"),
        lambda: open_ref(RING, "vault", header + data),
        lambda: open_ref(RING, "vault", RING.wrap(data, "parley/ref/v1", "vault")),
    ):
        with suppress(CiphertextInvalid, RefInvalid):
            read()


@few
@given(places)
def test_pieces_come_back(pieces: list[str | bytes]) -> None:
    assert [piece.encode() if isinstance(piece, str) else piece for piece in pieces] == unpae(pae(*pieces))


@few
@given(st.binary(max_size=80))
def test_pieces_are_read_from_their_one_encoding_alone(data: bytes) -> None:
    with suppress(ValueError):
        assert data == pae(*unpae(data))


@few
@given(st.builds(SubjectRef, *[st.text(max_size=12)] * 4))
def test_refs_come_back_and_are_of_one_length(ref: SubjectRef) -> None:
    sealed = seal_ref(RING, "vault", ref)
    assert (ref, 269) == (open_ref(RING, "vault", sealed), len(sealed))


@few
@given(claims)
def test_signed_claims_are_understood_or_refused(given_claims: dict[str, Any]) -> None:
    for kind in ("assertion", "token", "card"):
        statement = sign_statement(kind, given_claims, SIGNER)
        for read in (
            lambda: verify_assertion(statement, lambda _subject: KEYS, NOW),  # noqa: B023 - it is called at once
            lambda: verify_token(statement, KEYS, "vault", NOW),  # noqa: B023 - as above
            lambda: verify_card(statement, KEYS, NOW),  # noqa: B023 - as above
        ):
            with suppress(StatementInvalid):
                read()


@few
@given(st.text(max_size=60) | st.text("abcAB.-_=019", max_size=60))
def test_random_text_is_no_statement(text: str) -> None:
    for read in (
        lambda: verify_assertion(text, lambda _subject: KEYS, NOW),
        lambda: verify_token(text, KEYS, "vault", NOW),
        lambda: verify_card(text, KEYS, NOW),
    ):
        with suppress(StatementInvalid):
            read()
            raise AssertionError("it was understood")


@few
@given(st.dictionaries(st.text(max_size=8).filter(lambda name: name != "kid"), json_values, max_size=4))
def test_releases_come_back_in_whole_buckets(release: dict[str, Any]) -> None:
    sealed = seal_release(SIGNER, SEALER.public_key, release)
    assert release | {"kid": SIGNER.key_id} == open_release(SEALER, sealed, KEYS)
    assert 0 == (len(sealed) - 72) % 256


@few
@given(st.binary(max_size=300), st.booleans())
def test_random_bytes_that_anyone_may_seal_are_no_release(data: bytes, padded: bool) -> None:
    sealed = seal(SEALER.public_key, sodium_pad(data, 256) if padded else data)
    for each in (sealed, data):
        with suppress(SealInvalid, StatementInvalid):
            open_release(SEALER, each, KEYS)
            raise AssertionError("it was understood")


@few
@given(json_values)
def test_signed_json_is_a_release_where_it_is_an_object_that_names_its_key(value: Any) -> None:
    body = canonical(value)
    plain = sodium_pad(SIGNER.sign(b"parley/release/v1\n" + body) + body, 256)
    with suppress(StatementInvalid):
        assert KEYS.keys() == {open_release(SEALER, seal(SEALER.public_key, plain), KEYS)["kid"]}


@few
@given(json_values, st.dictionaries(st.sampled_from(["x", "crv", "parley_zone"]), json_values))
def test_random_json_is_a_key_set_or_unusable(value: Any, key: dict[str, Any]) -> None:
    for each in (value, {"keys": value}, {"keys": [value]}, {"keys": [{"crv": "Ed25519", **key}]}):
        with suppress(TrustUnusable):
            Trust.parse(json.dumps(each))


_TEXT = st.text(st.characters(exclude_categories=["Cs"]))
_NAMES = st.text(st.characters(min_codepoint=32, max_codepoint=126))
_SIGNED = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | _TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(_NAMES, inner),
    max_leaves=16,
)


@given(_SIGNED)
def test_what_is_signed_is_canonical_to_the_byte(value: Any) -> None:
    assert rfc8785.dumps(value) == canonical(value)


@given(st.dictionaries(_NAMES, _SIGNED, max_size=8), st.sampled_from([0, 1]))
def test_members_that_were_spelt_before_change_no_byte(members: dict[str, Any], odd: int) -> None:
    some = {name: spelt(each) if n % 2 == odd else each for n, (name, each) in enumerate(members.items())}

    assert rfc8785.dumps(members) == canonical(some)
