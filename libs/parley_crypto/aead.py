"""
XChaCha20-Poly1305 and padding, as libsodium has them, for the calls that come by the dozen for each customer.

PyNaCl's own functions check each argument in a call of its own and write the texts of errors that nobody raises: that takes twice
as long as all the rest. Here two lengths are checked, without which libsodium would read what is behind a key. That what it is
given is bytes, cffi sees to.
"""

from nacl._sodium import ffi, lib  # type: ignore[import-not-found] # what PyNaCl itself stands on; it has no stubs

KEY, NONCE, TAG = 32, 24, 16
"""Bytes."""

_BYTES = ffi.typeof("unsigned char[]")
_MARK = b"\x80"


class NotAuthentic(ValueError):
    """What is to be decrypted was changed, or belongs to another key, nonce or associated data."""


def encrypt(message: bytes, aad: bytes, nonce: bytes, key: bytes) -> bytes:
    """Encrypt (draft-irtf-cfrg-xchacha-03): the message, and a tag. Raises ValueError for a key or nonce that is none."""
    _check(nonce, key)
    sealed = ffi.new(_BYTES, len(message) + TAG)
    lib.crypto_aead_xchacha20poly1305_ietf_encrypt(
        sealed, ffi.NULL, message, len(message), aad, len(aad), ffi.NULL, nonce, key
    )
    return bytes(ffi.buffer(sealed))


def decrypt(sealed: bytes, aad: bytes, nonce: bytes, key: bytes) -> bytes:
    """Decrypt. Raises NotAuthentic, and ValueError for a key or nonce that is none."""
    _check(nonce, key)
    size = len(sealed) - TAG
    if size < 0:
        raise NotAuthentic("shorter than a tag")
    message = ffi.new(_BYTES, size)
    if lib.crypto_aead_xchacha20poly1305_ietf_decrypt(
        message, ffi.NULL, ffi.NULL, sealed, len(sealed), aad, len(aad), nonce, key
    ):
        raise NotAuthentic("changed, or under another key")
    return bytes(ffi.buffer(message))


def pad(message: bytes, block: int) -> bytes:
    """Pad to whole blocks, by a byte at least (ISO/IEC 7816-4), as ``sodium_pad`` does."""
    size = len(message)
    return (message + _MARK).ljust(size + block - size % block, b"\0")


def unpad(padded: bytes, block: int) -> bytes:
    """
    Take padding off again. Raises ValueError where there is none.

    In no constant time: it is for what has proved authentic, whose padding was made by who knew the message.
    """
    marked = padded.rstrip(b"\0")
    if len(padded) < block or len(padded) - len(marked) >= block or not marked.endswith(_MARK):
        raise ValueError("not padded")
    return marked[:-1]


def _check(nonce: bytes, key: bytes) -> None:
    if len(nonce) != NONCE or len(key) != KEY:
        raise ValueError("a nonce has 24 bytes, a key 32")
