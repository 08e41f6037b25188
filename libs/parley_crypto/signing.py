"""Ed25519 and X25519 key pairs, key ids, and the checks a public key must pass before anyone relies on it."""

import base64
import hashlib
import secrets
import time
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

from nacl.bindings import (
    crypto_box_beforenm,
    crypto_box_easy_afternm,
    crypto_box_keypair,
    crypto_box_open_easy_afternm,
    crypto_core_ed25519_is_valid_point,
    crypto_scalarmult,
)
from nacl.exceptions import BadSignatureError, CryptoError
from nacl.public import PrivateKey
from nacl.signing import SigningKey, VerifyKey

from parley_crypto.keyfiles import read_key

_FIELD = 2**255 - 19
_KEY, _NONCE = 32, 24
_AGREEMENT_S = 60
"""Seconds for which one key agreement serves: it costs ten times what encrypting does."""


class KeyInvalid(ValueError):
    """A public key that is malformed, of small order, or not canonical."""


class SignatureInvalid(ValueError):
    """The signature is not this key's over these bytes."""


class SealInvalid(ValueError):
    """The box was not sealed to this key, or was changed."""


@dataclass(frozen=True)
class Signer:
    """An Ed25519 key that signs."""

    seed: bytes = field(repr=False)

    @classmethod
    def load(cls, path: Path) -> "Signer":
        """Read the newest key of a key file. Raises KeyFileUnusable."""
        return cls(read_key(path))

    @cached_property
    def _key(self) -> SigningKey:
        return SigningKey(self.seed)

    @cached_property
    def public_key(self) -> bytes:
        """32 bytes."""
        return bytes(self._key.verify_key)

    @cached_property
    def key_id(self) -> str:
        """The id of the public key."""
        return key_id(self.public_key)

    def sign(self, message: bytes) -> bytes:
        """Sign: 64 bytes, RFC 8032."""
        return self._key.sign(message).signature


@dataclass(frozen=True)
class Sealer:
    """An X25519 key that opens what was sealed to it."""

    private_key: bytes = field(repr=False)

    @classmethod
    def load(cls, path: Path) -> "Sealer":
        """Read the newest key of a key file. Raises KeyFileUnusable."""
        return cls(read_key(path))

    @cached_property
    def public_key(self) -> bytes:
        """32 bytes."""
        return bytes(PrivateKey(self.private_key).public_key)

    @cached_property
    def key_id(self) -> str:
        """The id of the public key."""
        return key_id(self.public_key)

    def open(self, sealed: bytes) -> bytes:
        """Open what :func:`seal` sealed to this key. Raises SealInvalid."""
        sender, nonce = sealed[:_KEY], sealed[_KEY : _KEY + _NONCE]
        try:
            _check_canonical(sender)  # another spelling of the same key would be a change that nobody notices
            return crypto_box_open_easy_afternm(sealed[_KEY + _NONCE :], nonce, _agreed(sender, self.private_key))
        except (CryptoError, ValueError, TypeError) as error:
            raise SealInvalid("not sealed to this key, or changed") from error


def seal(public_key: bytes, plaintext: bytes) -> bytes:
    """
    Seal to an X25519 key: anonymous, 72 bytes longer.

    ``sender's key 32 || nonce 24 || crypto_box`` (NaCl), so that any library of its family opens it with one call. The sender's
    key pair is made for this, its secret half forgotten at once, and serves for a minute: who sealed to whom in the same minute
    of one process shows, nothing else.
    """
    sender, key = _agreement(public_key, int(time.monotonic()) // _AGREEMENT_S)
    nonce = secrets.token_bytes(_NONCE)
    return sender + nonce + crypto_box_easy_afternm(plaintext, nonce, key)


@lru_cache(64)
def _agreement(public_key: bytes, _minute: int) -> tuple[bytes, bytes]:
    sender, secret = crypto_box_keypair()
    return sender, crypto_box_beforenm(public_key, secret)


@lru_cache(256)
def _agreed(public_key: bytes, private_key: bytes) -> bytes:
    return crypto_box_beforenm(public_key, private_key)


def verify(public_key: bytes, message: bytes, signature: bytes) -> None:
    """Check an Ed25519 signature. Raises SignatureInvalid."""
    try:
        VerifyKey(public_key).verify(message, signature)
    except (BadSignatureError, ValueError, TypeError) as error:
        raise SignatureInvalid("not this key's signature over these bytes") from error


def key_id(public_key: bytes) -> str:
    """Name a public key: 16 characters from its SHA-256."""
    return base64.b32encode(hashlib.sha256(public_key).digest()[:10]).decode().lower()


def check_signing_key(public_key: bytes) -> None:
    """Accept a canonical Ed25519 point of the main subgroup. Raises KeyInvalid."""
    if len(public_key) != 32 or not crypto_core_ed25519_is_valid_point(public_key):
        raise KeyInvalid("not a canonical Ed25519 public key of full order")


def check_sealing_key(public_key: bytes) -> None:
    """Accept a canonical X25519 key of large order. Raises KeyInvalid."""
    _check_canonical(public_key)
    try:
        crypto_scalarmult(b"\x42" * 32, public_key)  # libsodium refuses the all-zero result of a small-order point
    except (CryptoError, RuntimeError) as error:
        raise KeyInvalid("a public key of small order") from error


def _check_canonical(public_key: bytes) -> None:
    if len(public_key) != _KEY or int.from_bytes(public_key, "little") >= _FIELD:
        raise KeyInvalid("not a canonical X25519 public key")
