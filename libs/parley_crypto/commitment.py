"""
Commitments: what stands in the public log in place of what happened.

``SHA-256(salt32 || detail)`` with a fresh salt: without the salt, not even a phone number could be guessed from it.
"""

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from parley_crypto.jws import canonical
from parley_crypto.pae import pae, unpae
from parley_crypto.signing import Sealer, seal


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
    return Opening(secrets.token_bytes(32), canonical(detail))


def seal_opening(audit_key: bytes, opening: Opening) -> bytes:
    """Seal an opening to audit."""
    return seal(audit_key, pae(opening.salt, opening.detail))


def unseal_opening(sealer: Sealer, sealed: bytes) -> Opening:
    """Open it again as audit. Raises SealInvalid, ValueError."""
    salt, detail = unpae(sealer.open(sealed))
    return Opening(salt, detail)
