"""One key a customer: what is sealed under it can be erased without touching the log."""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from parley_audit.store import Store, WrappedKey
from parley_crypto.commitment import Opening
from parley_crypto.keyring import KeyRing, decrypt_value, encrypt_value, require_ring
from parley_crypto.tlog.receipt import SALT_SIZE
from parley_db.database import Database, Tx
from parley_kit.offload import each

_PLACE = "audit/subject-key/v1"


@dataclass(frozen=True, slots=True)
class SubjectKey:
    """A subject's key, in use. ``key_id`` is a random u32."""

    subject: str
    key_id: int
    dek: bytes = field(repr=False)

    def seal(self, commitment: bytes, opening: Opening) -> bytes:
        """Encrypt a commitment's opening for its row in the subject's history."""
        return encrypt_value(self.dek, self.key_id, opening.salt + opening.detail, *self._place(commitment))

    def open(self, commitment: bytes, sealed: bytes) -> Opening:
        """Decrypt it again. Raises CiphertextInvalid."""
        plain = decrypt_value(self.dek, sealed, *self._place(commitment))
        return Opening(plain[:SALT_SIZE], plain[SALT_SIZE:])

    def _place(self, commitment: bytes) -> tuple[str, str, bytes]:
        return ("audit/history/v1", self.subject, commitment)


@dataclass(frozen=True)
class SubjectKeys:
    """Keys of subjects, wrapped by the master key where they are kept. None is held longer than it is used."""

    ring: KeyRing
    store: Store

    async def require(self, path: Path) -> None:
        """Refuse a master key, read from a path, that doesn't open a key that is kept. Raises KeyFileUnusable."""
        if kept := await self.store.any_key():
            require_ring(path, lambda: self._unwrap(*kept))

    async def ensure(self, tx: Tx, subjects: Iterable[str]) -> dict[str, SubjectKey]:
        """The subjects' keys, made where there are none."""
        wanted = set(subjects)
        found = await self.store.keys(tx, sorted(wanted))
        made = {key.subject: (key, wrapped) for key, wrapped in await each(self._make, sorted(wanted - found.keys()))}
        given = (
            await self.store.add_keys(tx, {subject: wrapped for subject, (_, wrapped) in made.items()})
            if made
            else set()
        )
        if overtaken := made.keys() - given:
            found |= await self.store.keys(tx, sorted(overtaken))
        kept = await each(lambda one: self._unwrap(*one), found.items())
        return {key.subject: key for key in (*kept, *(made[subject][0] for subject in given))}

    async def find(self, db: Database, subject: str) -> SubjectKey | None:
        """A subject's key; None if there was never one, or it is erased."""
        found = await self.store.keys(db, [subject])
        return self._unwrap(subject, found[subject]) if found else None

    def _make(self, subject: str) -> tuple[SubjectKey, WrappedKey]:
        key = SubjectKey(subject, secrets.randbits(32), secrets.token_bytes(32))
        return key, WrappedKey(key.key_id, self.ring.wrap(key.dek, _PLACE, subject))

    def _unwrap(self, subject: str, kept: WrappedKey) -> SubjectKey:
        return SubjectKey(subject, kept.key_id, self.ring.unwrap(kept.wrapped, _PLACE, subject))
