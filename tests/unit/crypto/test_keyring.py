import hashlib
import secrets
from pathlib import Path

import pytest
from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
)

from parley_crypto.keyring import CiphertextInvalid, KeyRing, decrypt_value, encrypt_value
from parley_crypto.pae import pae
from tests.unit.crypto.makers import flips, nonces, two_key_ciphertext

RING = KeyRing({1: bytes(32), 7: bytes([7]) * 32}, 7)
SECRET, DEK = bytes([9]) * 32, bytes([5]) * 32
PLACE = ("subject", "profile.age")
# Made once with the nonce 00 01 ... 17: what is stored must stay readable, whatever becomes of the code.
NONCE = bytes(range(24))
WRAPPED = bytes.fromhex(
    "0100000007000102030405060708090a0b0c0d0e0f1011121314151617a11ea28cf31552ac2cce884eefeba6a556df311e1dfe3e78fa14be"
    "8893c59d9e85c269ac79b2e422cffd15176d6e0809"
)
VALUE = bytes.fromhex(
    "0100000102000102030405060708090a0b0c0d0e0f10111213141516173ca405e9a76411e4dee70008430e96c60a9455ca441da8b7ac2bf5"
    "ce7ce1bce4c38153b7841012a089b0dac4e02cd25e4384292d198ba8fc286989babe40cd9d7d8da3f622e8164a346ab993a853423c"
)


def fixed_nonce(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "token_bytes", lambda size: bytes(range(size)))


def _derived(dek: bytes, nonce: bytes) -> bytes:
    """The value's key and its commitment, as the format says."""
    return hashlib.blake2b(nonce, key=dek, person=b"parley/value/v1").digest()


def test_what_was_stored_once_still_opens() -> None:
    assert SECRET == RING.unwrap(WRAPPED, "dek", "subject", b"\1")
    assert b"42" == decrypt_value(DEK, VALUE, *PLACE)


def test_formats_have_not_drifted(monkeypatch: pytest.MonkeyPatch) -> None:
    fixed_nonce(monkeypatch)

    assert WRAPPED == RING.wrap(SECRET, "dek", "subject", b"\1")
    assert VALUE == encrypt_value(DEK, 258, b"42", *PLACE)


def test_wrap_is_77_bytes_of_format_version_nonce_and_sealed_key() -> None:
    wrapped = RING.wrap(SECRET, "dek", "subject")
    header, nonce, sealed = wrapped[:5], wrapped[5:29], wrapped[29:]

    assert 77 == len(wrapped)
    assert b"\1\0\0\0\7" == header
    assert SECRET == crypto_aead_xchacha20poly1305_ietf_decrypt(
        sealed, pae(header, "dek", "subject"), nonce, RING.keys[7]
    )


def test_value_is_format_dek_id_nonce_commitment_and_sealed_value() -> None:
    value = encrypt_value(DEK, 258, b"42", *PLACE)
    header, nonce, commitment, sealed = value[:5], value[5:29], value[29:61], value[61:]
    block = _derived(DEK, nonce)

    assert b"\1\0\0\1\2" == header
    assert block[32:] == commitment
    assert 32 + 16 == len(sealed)
    assert b"42\x80".ljust(32, b"\0") == crypto_aead_xchacha20poly1305_ietf_decrypt(
        sealed, pae(header, *PLACE), nonce, block[:32]
    )


def test_nonces_are_fresh() -> None:
    assert 64 == len({RING.wrap(SECRET, "dek")[5:29] for _ in range(64)})
    assert 64 == len({encrypt_value(DEK, 1, b"42")[5:29] for _ in range(64)})


@pytest.mark.parametrize(
    "place", [("dek", "other", b"\1"), ("dek", "subject"), ("deksubject", "", b"\1"), ("dek", "subject", b"\1", b"")]
)
def test_wrapped_key_that_was_moved_is_refused(place: tuple[bytes | str, ...]) -> None:
    with pytest.raises(CiphertextInvalid, match="moved"):
        RING.unwrap(WRAPPED, *place)


@pytest.mark.parametrize(
    "place", [("other", "profile.age"), ("subject", "profile.city"), ("subjectprofile.age",), (*PLACE, "")]
)
def test_value_that_was_moved_is_refused(place: tuple[str, ...]) -> None:
    with pytest.raises(CiphertextInvalid, match="moved"):
        decrypt_value(DEK, VALUE, *place)


def test_older_keys_open_and_the_primary_seals() -> None:
    old = KeyRing({1: bytes(32)}, 1).wrap(SECRET, "dek")

    assert SECRET == RING.unwrap(old, "dek")
    assert 7 == int.from_bytes(RING.wrap(SECRET, "dek")[1:5], "big")


def test_unknown_version_and_format_are_refused() -> None:
    with pytest.raises(CiphertextInvalid, match="version"):
        KeyRing({1: bytes(32)}, 1).unwrap(WRAPPED, "dek", "subject", b"\1")
    with pytest.raises(CiphertextInvalid, match="format"):
        RING.unwrap(b"\2" + WRAPPED[1:], "dek", "subject", b"\1")
    with pytest.raises(CiphertextInvalid, match="format"):
        decrypt_value(DEK, b"\2" + VALUE[1:], *PLACE)


def test_version_that_was_changed_is_refused_even_where_both_versions_are_one_key() -> None:
    twins = KeyRing({1: bytes(32), 2: bytes(32)}, 1)
    wrapped = twins.wrap(SECRET, "dek")

    with pytest.raises(CiphertextInvalid):
        twins.unwrap(wrapped[:1] + (2).to_bytes(4, "big") + wrapped[5:], "dek")


def test_any_flipped_bit_is_noticed() -> None:
    for wrapped in flips(WRAPPED):
        with pytest.raises(CiphertextInvalid):
            RING.unwrap(wrapped, "dek", "subject", b"\1")
    for value in flips(VALUE):
        with pytest.raises(CiphertextInvalid):
            decrypt_value(DEK, value, *PLACE)


def test_any_truncation_is_noticed() -> None:
    for size in range(len(WRAPPED)):
        with pytest.raises(CiphertextInvalid):
            RING.unwrap(WRAPPED[:size], "dek", "subject", b"\1")
    for size in range(len(VALUE)):
        with pytest.raises(CiphertextInvalid):
            decrypt_value(DEK, VALUE[:size], *PLACE)


def test_lengths_show_only_to_the_next_32_bytes() -> None:
    lengths = {size: len(encrypt_value(DEK, 1, bytes(size))) for size in range(100)}

    assert {77 + 32 * (1 + size // 32) for size in range(100)} == set(lengths.values())
    assert {lengths[0]} == {lengths[size] for size in range(32)}
    assert lengths[31] < lengths[32]


def test_ciphertext_that_opens_under_two_keys_is_refused_under_the_one_it_is_not_committed_to() -> None:
    other = bytes([6]) * 32
    header = b"\1" + (1).to_bytes(4, "big")
    nonce, both = next(
        (nonce, both)
        for nonce in nonces()
        if (
            both := two_key_ciphertext(
                (_derived(DEK, nonce)[:32], _derived(other, nonce)[:32]), nonce, pae(header, *PLACE)
            )
        )
    )
    blocks = [_derived(key, nonce) for key in (DEK, other)]
    opened = [
        crypto_aead_xchacha20poly1305_ietf_decrypt(both, pae(header, *PLACE), nonce, block[:32]) for block in blocks
    ]
    value = header + nonce + blocks[0][32:] + both

    assert opened[0] != opened[1]
    assert opened[0][:16] == decrypt_value(DEK, value, *PLACE)
    with pytest.raises(CiphertextInvalid, match="key"):
        decrypt_value(other, value, *PLACE)


def test_right_key_with_another_commitment_is_refused_before_anything_is_opened() -> None:
    other = encrypt_value(bytes([6]) * 32, 258, b"42", *PLACE)

    with pytest.raises(CiphertextInvalid, match="unknown format or key"):
        decrypt_value(DEK, VALUE[:29] + other[29:61] + VALUE[61:], *PLACE)


def test_the_cipher_is_the_one_of_the_draft() -> None:
    # draft-irtf-cfrg-xchacha-03, appendix A.3.1.
    plain = b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it."
    sealed = crypto_aead_xchacha20poly1305_ietf_encrypt(
        plain, bytes.fromhex("50515253c0c1c2c3c4c5c6c7"), bytes(range(0x40, 0x58)), bytes(range(0x80, 0xA0))
    )
    assert bytes.fromhex("bd6d179d3e83d43b9576579493c0e939") == sealed[:16]
    assert bytes.fromhex("c0875924c1c7987947deafd8780acf49") == sealed[-16:]


def test_keys_are_in_no_printed_form() -> None:
    assert "KeyRing(primary=7)" == repr(RING)


def test_ring_is_loaded_with_its_last_key_as_the_primary(tmp_path: Path) -> None:
    path = tmp_path / "ring"
    path.touch(0o600)
    path.write_text(f"1 {'A' * 43}=\n7 {'BwcH' * 10}Bwc=\n")

    ring = KeyRing.load(path)

    assert (RING.keys, RING.primary) == (ring.keys, ring.primary)
