"""Values in and out of ciphertext: a data key for each subject, wrapped by the master key."""

import secrets
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from pathlib import Path

from parley_crypto.keyring import KeyRing, decrypt_value, encrypt_value, require_ring
from parley_terms.terms import Level
from parley_vault.domain.items import Item, Provenance

_SCHEMA_VERSION = b"\x01"
_DEK_ID = 1
_MOST_CACHED = 100_000


@dataclass(frozen=True, slots=True)
class Place:
    """Where a ciphertext belongs: it can't be opened anywhere else."""

    subject: str
    attribute: str
    version: int


@dataclass(frozen=True, slots=True)
class Sealed:
    """One version of an item, and its subject's wrapped data key: what opening it takes."""

    place: Place
    dek: bytes = field(repr=False)
    ciphertext: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Kept(Sealed):
    """All that is kept of it. A ``level`` of 0: nobody may match on it."""

    provenance: int
    created_at: datetime
    level: int


class Safe:
    """Encrypts and decrypts items. Unwrapped data keys are remembered, the most recently used of them."""

    def __init__(self, ring: KeyRing) -> None:
        self._ring = ring
        self._dek = lru_cache(_MOST_CACHED)(self._unwrap)

    def require(self, path: Path, subject: str, dek: bytes) -> None:
        """Refuse a master key, read from a path, that doesn't open a data key that is kept. Raises KeyFileUnusable."""
        require_ring(path, lambda: self._unwrap(subject, dek))

    def make_dek(self, subject: str) -> bytes:
        """Make a data key for a subject, wrapped."""
        return self._ring.wrap(secrets.token_bytes(32), *_owner(subject))

    def _unwrap(self, subject: str, wrapped: bytes) -> bytes:
        return self._ring.unwrap(wrapped, *_owner(subject))

    def seal(self, dek: bytes, place: Place, text: str) -> bytes:
        """Encrypt a value for its place, under the wrapped data key of its subject. Raises CiphertextInvalid."""
        return encrypt_value(self._dek(place.subject, dek), _DEK_ID, text.encode(), *_address(place))

    def text(self, sealed: Sealed) -> str:
        """Decrypt a value. Raises CiphertextInvalid where it, or its data key, was changed or moved."""
        dek = self._dek(sealed.place.subject, sealed.dek)
        return decrypt_value(dek, sealed.ciphertext, *_address(sealed.place)).decode()

    def item(self, kept: Kept) -> Item:
        """Decrypt an item. Raises CiphertextInvalid."""
        return Item(
            attribute=kept.place.attribute,
            value=self.text(kept),
            version=kept.place.version,
            provenance=Provenance(kept.provenance),
            level=Level(kept.level) if kept.level else None,
            created_at=kept.created_at,
        )


def _owner(subject: str) -> tuple[str, str]:
    return "parley/vault/dek/v1", subject


def _address(place: Place) -> tuple[bytes | str, ...]:
    return "parley/vault/item", place.subject, place.attribute, place.version.to_bytes(4, "big"), _SCHEMA_VERSION
