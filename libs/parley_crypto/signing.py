"""Ed25519 and X25519 key pairs, key ids, and the checks a public key must pass before anyone relies on it."""

import base64
import hashlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import NoReturn

from nacl.bindings import (
    crypto_box_beforenm,
    crypto_box_easy_afternm,
    crypto_box_keypair,
    crypto_box_open_easy_afternm,
    crypto_core_ed25519_is_valid_point,
    crypto_scalarmult,
)
from nacl.exceptions import BadSignatureError, CryptoError
from nacl.public import PrivateKey, SealedBox
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

    def __reduce__(self) -> NoReturn:
        raise TypeError("a private key isn't pickled, nor is what holds one")

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

    def __reduce__(self) -> NoReturn:
        raise TypeError("a private key isn't pickled, nor is what holds one")

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
        sender, salt, box = sealed[:_KEY], sealed[_KEY : _KEY + _NONCE], sealed[_KEY + _NONCE :]
        try:
            return crypto_box_open_easy_afternm(box, _nonce(sender, self.public_key, salt), self._agreed(sender))
        except (CryptoError, ValueError, TypeError):
            return self._open_older(sealed)

    def _open_older(self, sealed: bytes) -> bytes:
        """Open libsodium's ``crypto_box_seal``, which an earlier version may have left on its way."""
        try:
            return SealedBox(PrivateKey(self.private_key)).decrypt(sealed)
        except (CryptoError, ValueError, TypeError) as error:
            raise SealInvalid("not sealed to this key, or changed") from error

    @cached_property
    def _agreed(self) -> Callable[[bytes], bytes]:
        """Agrees with a sender's key; a sender's boxes come in numbers."""
        return lru_cache(256)(lambda sender: crypto_box_beforenm(sender, self.private_key))


def seal(public_key: bytes, plaintext: bytes) -> bytes:
    """
    Seal to an X25519 key: anonymous, 72 bytes longer.

    ``sender's key 32 || salt 24 || crypto_box`` (NaCl) under the nonce BLAKE2b-192(sender's key || key || salt), which binds both
    keys: no byte can be changed. Any library of that family opens it. The sender's key pair is made for one key and serves for a
    minute; its secret half is forgotten at once, and what was agreed when the minute is over and another agreement is made.
    """
    agreement, salt = _agreement(public_key), secrets.token_bytes(_NONCE)
    nonce = _nonce(agreement.sender, public_key, salt)
    return agreement.sender + salt + crypto_box_easy_afternm(plaintext, nonce, agreement.key)


@dataclass(frozen=True, slots=True)
class _Agreement:
    sender: bytes
    key: bytes = field(repr=False)
    until: float


_agreements: dict[bytes, _Agreement] = {}


def _agreement(public_key: bytes) -> _Agreement:
    now, held = time.monotonic(), _agreements.get(public_key)
    if held is None or now >= held.until:
        for key in [key for key, each in list(_agreements.items()) if now >= each.until]:
            _agreements.pop(key, None)
        sender, secret = crypto_box_keypair()
        # A minute from its own first use: no two keys' minutes tell of one process by beginning together.
        held = _agreements[public_key] = _Agreement(sender, crypto_box_beforenm(public_key, secret), now + _AGREEMENT_S)
    return held


def _nonce(sender: bytes, recipient: bytes, salt: bytes) -> bytes:
    return hashlib.blake2b(sender + recipient + salt, digest_size=_NONCE).digest()


def verify(public_key: bytes, message: bytes, signature: bytes) -> None:
    """Check an Ed25519 signature. Raises SignatureInvalid."""
    try:
        VerifyKey(public_key).verify(message, signature)
    except (BadSignatureError, ValueError, TypeError) as error:
        raise SignatureInvalid("not this key's signature over these bytes") from error


@lru_cache(1024)
def key_id(public_key: bytes) -> str:
    """Name a public key: 16 characters from its SHA-256. One marketer's stands in all that is permitted to it."""
    return base64.b32encode(hashlib.sha256(public_key).digest()[:10]).decode().lower()


def check_signing_key(public_key: bytes) -> None:
    """Accept a canonical Ed25519 point of the main subgroup. Raises KeyInvalid."""
    if len(public_key) != 32 or not crypto_core_ed25519_is_valid_point(public_key):
        raise KeyInvalid("not a canonical Ed25519 public key of full order")


def check_sealing_key(public_key: bytes) -> None:
    """Accept a canonical X25519 key of large order. Raises KeyInvalid."""
    if len(public_key) != _KEY or int.from_bytes(public_key, "little") >= _FIELD:
        raise KeyInvalid("not a canonical X25519 public key")
    try:
        crypto_scalarmult(b"\x42" * 32, public_key)  # libsodium refuses the all-zero result of a small-order point
    except (CryptoError, RuntimeError) as error:
        raise KeyInvalid("a public key of small order") from error
