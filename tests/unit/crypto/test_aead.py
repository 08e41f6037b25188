"""Our way to libsodium does what PyNaCl's own does, and reads nothing that it wasn't given."""

import pytest
from nacl.bindings import (
    crypto_aead_xchacha20poly1305_ietf_decrypt,
    crypto_aead_xchacha20poly1305_ietf_encrypt,
    sodium_pad,
)

from parley_crypto.aead import NotAuthentic, decrypt, encrypt, pad, unpad
from tests.unit.crypto.makers import flips

KEY, NONCE = bytes(range(32)), bytes(range(24))


@pytest.mark.parametrize("size", [0, 1, 31, 32, 1000])
@pytest.mark.parametrize("aad", [b"", b"about"])
def test_encrypts_as_pynacl_does_and_opens_what_it_encrypts(size: int, aad: bytes) -> None:
    message = bytes(size)

    sealed = encrypt(message, aad, NONCE, KEY)

    assert crypto_aead_xchacha20poly1305_ietf_encrypt(message, aad, NONCE, KEY) == sealed
    assert message == decrypt(sealed, aad, NONCE, KEY)
    assert message == crypto_aead_xchacha20poly1305_ietf_decrypt(sealed, aad, NONCE, KEY)


def test_nothing_changed_or_cut_short_is_opened() -> None:
    sealed = encrypt(b"secret", b"about", NONCE, KEY)

    for changed in (*flips(sealed), *(sealed[:size] for size in range(len(sealed)))):
        with pytest.raises(NotAuthentic):
            decrypt(changed, b"about", NONCE, KEY)
    with pytest.raises(NotAuthentic):
        decrypt(sealed, b"other", NONCE, KEY)


@pytest.mark.parametrize(("nonce", "key"), [(NONCE[1:], KEY), (NONCE + b"\0", KEY), (NONCE, KEY[1:]), (NONCE, b"")])
def test_keys_and_nonces_of_other_lengths_are_refused(nonce: bytes, key: bytes) -> None:
    with pytest.raises(ValueError, match="24 bytes"):
        encrypt(b"", b"", nonce, key)
    with pytest.raises(ValueError, match="24 bytes"):
        decrypt(bytes(16), b"", nonce, key)


@pytest.mark.parametrize("message", [None, "text", bytearray(8)])
def test_only_bytes_are_taken(message: object) -> None:
    with pytest.raises(TypeError):
        encrypt(message, b"", NONCE, KEY)  # type: ignore[arg-type] # the point of the test


@pytest.mark.parametrize("size", [*range(70), 255, 256, 257])
def test_pads_as_libsodium_does(size: int) -> None:
    message = b"\x80" * size

    assert sodium_pad(message, 32) == pad(message, 32)
    assert message == unpad(pad(message, 32), 32)


@pytest.mark.parametrize("padded", [b"", bytes(32), b"\x80", b"\x80" + bytes(32), bytes(31) + b"\x01"])
def test_what_is_not_padded_is_refused(padded: bytes) -> None:
    with pytest.raises(ValueError, match="not padded"):
        unpad(padded, 32)
