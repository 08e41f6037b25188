"""
Commitments: what stands in the public log in place of what happened.

``SHA-256(salt32 || detail)`` with a fresh salt: without the salt, not even a phone number could be guessed from it.
"""

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from parley_crypto.aead import pad, unpad
from parley_crypto.jws import canonical
from parley_crypto.pae import pae, unpae
from parley_crypto.signing import Sealer, SealInvalid, seal

_BUCKET = 512
_SALT = 32


@dataclass(frozen=True, slots=True)
class Opening:
    """What opens one commitment: 32 random bytes and the canonical JSON of what happened."""

    salt: bytes = field(repr=False)
    detail: bytes = field(repr=False)

    @property
    def commitment(self) -> bytes:
        """32 bytes, for everyone to see."""
        return hashlib.sha256(self.salt + self.detail).digest()


def commit(detail: Mapping[str, Any]) -> Opening:
    """Commit to a detail with a fresh salt."""
    return Opening(secrets.token_bytes(_SALT), canonical(detail))


def seal_opening(audit_key: bytes, opening: Opening, audit_ref: bytes = b"") -> bytes:
    """
    Seal an opening to audit, with the reference to the customer it is about, if any.

    The reference goes inside: in clear it would stand, byte for byte, on every event of one token, and whoever reads the
    stream could join a customer's pseudonyms by it. Lengths show only in steps of 512 bytes.
    """
    return seal(audit_key, pad(pae(opening.salt, opening.detail, audit_ref), _BUCKET))


def unseal_opening(sealer: Sealer, sealed: bytes) -> tuple[Opening, bytes]:
    """Open it again as audit: the opening, and the reference. Raises SealInvalid, ValueError."""
    plain = sealer.open(sealed)
    try:
        padded = unpad(plain, _BUCKET)
    except ValueError as error:
        raise SealInvalid("not padded as an opening is") from error
    salt, detail, audit_ref = unpae(padded)
    if len(salt) != _SALT:
        raise ValueError("a salt is 32 bytes")  # were it of any length, one commitment would open to many details
    return Opening(salt, detail), audit_ref
