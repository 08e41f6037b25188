"""Vault's one store, on Postgres. It sees ciphertexts only."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from parley_db.database import Database, Tx
from parley_db.queries import load
from parley_kit.faultpoints import reach
from parley_terms.terms import Level
from parley_vault.safe import Kept, Place, Sealed

_SQL = load("parley_vault")

Pair = tuple[str, str]
"""A subject and an attribute."""

Wanted = tuple[str, str, datetime | None]
"""A subject and an attribute, of which only what was put until a moment is wanted, if there is one."""

Change = tuple[str, str]
"""A subject, and the transaction that may have changed what is discoverable of them."""


@dataclass(frozen=True)
class Store:
    """Subjects, their items, and which of them are discoverable."""

    db: Database

    async def meet(self, tx: Tx, deks: dict[str, bytes], at: datetime) -> dict[str, bytes]:
        """
        Lock subjects, by id, making those that aren't there with the wrapped data key given; answers the data keys they have.

        Whose owner has acted is left out. Whoever changes items holds this lock or :meth:`own`'s, which is the same, so
        that versions follow each other without gaps and no import passes its owner's first act.
        """
        await tx.execute(_SQL.subjects_meet, list(deks), list(deks.values()), at)
        rows = await tx.fetch(_SQL.subjects_lock, list(deks))
        return {row["subject"]: row["dek"] for row in rows}

    async def own(self, tx: Tx, subject: str, dek: bytes, at: datetime, *, puts: bool = False) -> bytes:
        """Lock a subject as its owner, as :meth:`meet` does, perhaps to put items; answers its wrapped data key."""
        owned: bytes = await tx.fetchval(_SQL.subject_own, subject, dek, at, puts)
        return owned

    async def any_dek(self) -> tuple[str, bytes] | None:
        """Any subject and its wrapped data key, if there is one."""
        row = await self.db.fetchrow(_SQL.subject_any)
        return (row["subject"], row["dek"]) if row else None

    async def look(self, subject: str, dek: bytes, at: datetime) -> None:
        """Note that a subject's owner looks at its items, if any: what they have seen is nobody else's to change."""
        await self.db.execute(_SQL.subject_look, subject, dek, at)
        await reach("vault.after_look")

    async def now(self) -> int:
        """The present place in the order of transactions."""
        return int(await self.db.fetchval(_SQL.transactions_now))

    async def changed(self, since: int) -> tuple[int, frozenset[Change]]:
        """The place to ask from next, and what of anybody's may have changed since one, or shortly before it."""
        rows = await self.db.fetch(_SQL.subjects_changed, str(since))
        named = frozenset((row["subject"], row["changed"]) for row in rows if row["subject"] is not None)
        return int(rows[0]["next"]), named

    async def latest(self, pairs: Sequence[Pair], tx: Tx | None = None) -> dict[Pair, Kept]:
        """The newest version of each item that is there, in one statement."""
        subjects, attributes = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        rows = await (tx or self.db).fetch(_SQL.items_latest, subjects, attributes)
        return {(one.place.subject, one.place.attribute): one for one in map(_kept, rows)}

    async def sealed(self, wanted: Sequence[Wanted]) -> dict[Wanted, Sealed]:
        """What opens the newest version of each item that is there, and was then, in one statement."""
        columns = ([one[part] for one in wanted] for part in range(3))
        rows = await self.db.fetch(_SQL.items_sealed, *columns)
        return {
            (one := wanted[nth - 1]): Sealed(Place(one[0], one[1], version), dek, ciphertext)
            for nth, dek, version, ciphertext in rows
        }

    async def page(self, subject: str, after: str, size: int) -> list[Kept]:
        """Up to so many items behind an attribute, by attribute."""
        return [_kept(row) for row in await self.db.fetch(_SQL.items_page, subject, after, size)]

    async def versions(self, subject: str, attribute: str) -> list[Kept]:
        """The versions of an item, newest first, 1,000 at most; only the newest can be discoverable."""
        return [_kept(row) for row in await self.db.fetch(_SQL.item_versions, subject, attribute)]

    async def insert(self, tx: Tx, rows: Iterable[tuple[Place, bytes, int]], at: datetime) -> None:
        """Add versions: place, ciphertext, provenance."""
        records = [
            (place.subject, place.attribute, place.version, sealed, provenance, at)
            for place, sealed, provenance in rows
        ]
        columns = ("subject", "attribute", "version", "ciphertext", "provenance", "created_at")
        await tx.copy_records_to_table("items", records=records, columns=columns)

    async def delete(self, tx: Tx, subject: str, attribute: str) -> int:
        """Delete an item with its history and its switch; answers its newest version, 0 where there was none."""
        await self.hide(tx, [(subject, attribute)])
        return await tx.fetchval(_SQL.items_delete, subject, attribute) or 0

    async def show(self, tx: Tx, subject: str, attribute: str, level: Level) -> None:
        """Let an item be matched on."""
        await tx.execute(_SQL.discoverable_set, subject, attribute, level)

    async def hide(self, tx: Tx, pairs: Sequence[Pair]) -> None:
        """Let nobody match on these items."""
        await tx.execute(_SQL.discoverable_clear, [pair[0] for pair in pairs], [pair[1] for pair in pairs])

    async def discoverable_page(self, after: Pair, size: int) -> list[Kept]:
        """Up to so many discoverable items behind a pair, by subject and attribute."""
        return [_kept(row) for row in await self.db.fetch(_SQL.discoverable_page, *after, size)]

    async def discoverable_of(self, subjects: Iterable[str]) -> list[Kept]:
        """The discoverable items of subjects, in one statement."""
        return [_kept(row) for row in await self.db.fetch(_SQL.discoverable_of, list(subjects))]


def _kept(row: Any) -> Kept:
    subject, attribute, dek, version, *rest = row  # by place, in which every statement has them: they are many
    return Kept(Place(subject, attribute, version), dek, *rest)
