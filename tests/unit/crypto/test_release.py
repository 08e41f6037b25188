import pytest
from nacl.bindings import sodium_pad

from parley_crypto.jws import StatementInvalid, canonical
from parley_crypto.release import open_release, seal_release
from parley_crypto.signing import SealInvalid, seal
from tests.unit.crypto.makers import KEYS, OTHER_SEALER, SEALER, SIGNER, STRANGER, flips

RELEASE = {"marketer": "marketers/m", "fields": [{"attribute": "profile.city", "value": "Zürich"}]}
SEALED = seal_release(SIGNER, SEALER.public_key, RELEASE)
CONTEXT = b"parley/release/v1\n"


def sealed_plain(plain: bytes) -> bytes:
    return seal(SEALER.public_key, plain)


def test_release_comes_back_as_it_was_with_the_key_that_signed_it() -> None:
    assert RELEASE | {"kid": SIGNER.key_id} == open_release(SEALER, SEALED, KEYS)


def test_release_is_a_signature_and_canonical_json_in_whole_buckets() -> None:
    plain = SEALER.open(SEALED)
    body = canonical(RELEASE | {"kid": SIGNER.key_id})

    assert sodium_pad(SIGNER.sign(CONTEXT + body) + body, 256) == plain


def test_lengths_show_only_to_the_next_256_bytes() -> None:
    lengths = {len(seal_release(SIGNER, SEALER.public_key, {"value": "x" * size})) for size in range(0, 600, 5)}

    assert {72 + 256, 72 + 512, 72 + 768} == lengths


def test_two_seals_of_one_release_share_nothing_but_the_senders_key() -> None:
    other = seal_release(SIGNER, SEALER.public_key, RELEASE)

    assert 16 > sum(a == b for a, b in zip(SEALED[32:], other[32:], strict=True))


def test_release_to_another_key_is_refused() -> None:
    with pytest.raises(SealInvalid):
        open_release(OTHER_SEALER, SEALED, KEYS)


def test_release_that_a_stranger_signed_is_refused() -> None:
    posing = canonical(RELEASE | {"kid": SIGNER.key_id})
    for sealed in (
        seal_release(STRANGER, SEALER.public_key, RELEASE),
        sealed_plain(sodium_pad(STRANGER.sign(CONTEXT + posing) + posing, 256)),
        sealed_plain(sodium_pad(SIGNER.sign(posing) + posing, 256)),
    ):
        with pytest.raises(StatementInvalid):
            open_release(SEALER, sealed, KEYS)


def test_changed_and_truncated_releases_are_refused() -> None:
    for wrong in [*flips(SEALED), *(SEALED[:size] for size in range(0, len(SEALED), 7))]:
        with pytest.raises(SealInvalid):
            open_release(SEALER, wrong, KEYS)


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 100])
def test_truncated_plaintext_is_refused(size: int) -> None:
    with pytest.raises(StatementInvalid):
        open_release(SEALER, sealed_plain(sodium_pad(SEALER.open(SEALED)[:size], 256)), KEYS)


@pytest.mark.parametrize(
    "body",
    [b"", b"1", b"[]", b'"kid"', b"{}", b'{"kid":[]}', b'{"kid":{}}', b'{"kid":"none"}', b"\xff", b"[" * 100_000],
    ids=lambda body: body[:12].decode("latin-1"),
)
def test_nonsense_that_anyone_may_seal_is_refused(body: bytes) -> None:
    with pytest.raises(StatementInvalid):
        open_release(SEALER, sealed_plain(sodium_pad(bytes(64) + body, 256)), KEYS)


@pytest.mark.parametrize("plain", [b"", b"\0", bytes(256), b"\x80" + bytes(300)])
def test_plaintext_without_padding_is_refused(plain: bytes) -> None:
    with pytest.raises(StatementInvalid):
        open_release(SEALER, sealed_plain(plain), KEYS)


def test_nobody_is_trusted_without_a_key() -> None:
    with pytest.raises(StatementInvalid):
        open_release(SEALER, SEALED, {})
