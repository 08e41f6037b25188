"""
Envelope encryption: a ring of versioned master keys wraps data keys, data keys encrypt values.

Layouts (all integers big-endian), after the committing construction of CipherSweet and the AWS Encryption SDK:

- wrap: ``0x01 || key version u32 || nonce24 || XChaCha20-Poly1305(KEK, nonce, DEK, AAD)``, 77 bytes;
- value: ``0x01 || dek id u32 || nonce24 || commit32 || XChaCha20-Poly1305(k, nonce, value, AAD)`` with
  ``k || commit = BLAKE2b-512(nonce, key=DEK, person="parley/value/v1")``.

XChaCha20-Poly1305 does not commit to its key: one ciphertext can open under two. The commitment, checked in constant time
before anything is decrypted, closes that. The associated data binds each ciphertext to its place.
"""

import hashlib
import hmac
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from parley_crypto.aead import decrypt, encrypt, pad, unpad
from parley_crypto.keyfiles import KeyFileUnusable, read_keys
from parley_crypto.pae import pae

_FORMAT = b"\x01"
_PERSON = b"parley/value/v1"
_BUCKET = 32  # short categorical values all look alike


class CiphertextInvalid(ValueError):
    """The ciphertext was changed, moved from its place, or belongs to another key."""


@dataclass(frozen=True, eq=False)  # each is itself alone, so that what was opened with it can be remembered
class KeyRing:
    """Versioned 32-byte keys. New ciphertexts name the primary; old ones are opened by the version they name."""

    keys: Mapping[int, bytes] = field(repr=False)
    primary: int

    @classmethod
    def load(cls, path: Path) -> "KeyRing":
        """Read a ring from a key file. Raises KeyFileUnusable."""
        keys = read_keys(path)
        return cls(keys, list(keys)[-1])

    def wrap(self, secret: bytes, *place: bytes | str) -> bytes:
        """Encrypt a short secret (a data key, a seed) for the place named by the pieces."""
        nonce = secrets.token_bytes(24)
        header = _FORMAT + self.primary.to_bytes(4, "big")
        aad = pae(header, *place)
        key = self.keys[self.primary]
        return header + nonce + encrypt(secret, aad, nonce, key)

    def unwrap(self, wrapped: bytes, *place: bytes | str) -> bytes:
        """Decrypt what :meth:`wrap` made for the same place. Raises CiphertextInvalid."""
        key = self.keys.get(int.from_bytes(wrapped[1:5], "big"))
        if wrapped[:1] != _FORMAT or key is None:
            raise CiphertextInvalid("unknown format or key version")
        return _decrypt(wrapped[29:], pae(wrapped[:5], *place), wrapped[5:29], key)


def require_ring(path: Path, unwrap: Callable[[], object]) -> None:
    """
    Refuse a ring that opens nothing of what is kept, before anything is written under it; ``unwrap`` opens one of them.

    Raises KeyFileUnusable.
    """
    try:
        unwrap()
    except CiphertextInvalid:
        raise KeyFileUnusable(
            f"{path} isn't the key that the database was written with; restore it from your backup"
        ) from None


def encrypt_value(dek: bytes, dek_id: int, value: bytes, *place: bytes | str) -> bytes:
    """Encrypt a value under a 32-byte data key for its place; its length shows only to the next 32 bytes."""
    nonce = secrets.token_bytes(24)
    key, commitment = _derive(dek, nonce)
    header = _FORMAT + dek_id.to_bytes(4, "big")
    sealed = encrypt(pad(value, _BUCKET), pae(header, *place), nonce, key)
    return header + nonce + commitment + sealed


def decrypt_value(dek: bytes, ciphertext: bytes, *place: bytes | str) -> bytes:
    """Decrypt what :func:`encrypt_value` made for the same place. Raises CiphertextInvalid."""
    nonce = ciphertext[5:29]
    key, commitment = _derive(dek, nonce)
    if ciphertext[:1] != _FORMAT or not hmac.compare_digest(commitment, ciphertext[29:61]):
        raise CiphertextInvalid("unknown format or key")
    return unpad(_decrypt(ciphertext[61:], pae(ciphertext[:5], *place), nonce, key), _BUCKET)


def _derive(dek: bytes, nonce: bytes) -> tuple[bytes, bytes]:
    block = hashlib.blake2b(nonce, key=dek, person=_PERSON).digest()
    return block[:32], block[32:]


def _decrypt(sealed: bytes, aad: bytes, nonce: bytes, key: bytes) -> bytes:
    try:
        return decrypt(sealed, aad, nonce, key)
    except ValueError as error:
        raise CiphertextInvalid("changed, or moved from its place") from error
