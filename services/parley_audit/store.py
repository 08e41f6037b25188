"""Audit's one store, on Postgres."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from parley_audit.domain import Leaf, Page, Progress, Waiting
from parley_audit.faults import HeadMoved, LogForeign
from parley_audit.growth import EMPTY, Growth, Head
from parley_crypto.tlog.merkle import HASH_SIZE, leaf_hash
from parley_crypto.tlog.tiles import Tile
from parley_db.database import Database, Tx
from parley_db.queries import load

_SQL = load("parley_audit")


@dataclass(frozen=True, slots=True)
class Published:
    """The newest signed checkpoint, and how many entries it covers. No note: there is none yet."""

    size: int
    note: bytes | None


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a commitment is: its entry, the entry's index, and its way to the entry's inner root."""

    log_index: int
    entry: bytes
    inner_index: int
    inner_size: int
    path: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A subject's key as it is kept."""

    key_id: int
    wrapped: bytes


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """One thing that happened to a customer; ``sealed`` holds its opening."""

    occurred_at: datetime
    commitment: bytes
    log_index: int
    sealed: bytes


@dataclass(frozen=True, slots=True)
class Sealed:
    """An opening on its way into a history."""

    subject: str
    key_id: int
    occurred_at: datetime
    commitment: bytes
    sealed: bytes


class Store:
    """The log called ``origin`` and what opens it. Methods that take a ``tx`` are part of it."""

    def __init__(self, db: Database, origin: str) -> None:
        self._db = db
        self._origin = origin

    async def open(self) -> None:
        """Begin the log, unless it was begun. Raises LogForeign if the database holds another one."""
        await self._db.execute(_SQL.log_open, self._origin, EMPTY.frontier)
        if await self._db.fetchrow(_SQL.head_find, self._origin) is None:
            raise LogForeign("PARLEY_AUDIT_ORIGIN: the database holds a log of another name; give it that one back")

    async def head(self, tx: Tx) -> Head:
        """Where the log ends."""
        return Head(**await tx.fetchrow(_SQL.head_find, self._origin))

    async def lock_head(self, tx: Tx) -> Head:
        """Where the log ends, and will until the transaction does. What follows reads what other writers committed."""
        return Head(**await tx.fetchrow(_SQL.head_lock, self._origin))

    async def append(self, tx: Tx, head: Head, growth: Growth, leaf: Leaf) -> None:
        """
        Append an entry to the log that ends at ``head``.

        Raises HeadMoved where it ends elsewhere by now: then nothing may be kept of the transaction.
        """
        ways = leaf.ways.values()
        moved = await tx.fetchval(
            _SQL.log_append,
            self._origin,
            head.size,
            growth.head.size,
            growth.head.frontier,
            leaf.entry,
            [tile.level for tile in growth.tiles],
            [tile.index for tile in growth.tiles],
            list(growth.tiles.values()),
            list(leaf.ways),
            [way.index for way in ways],
            [way.size for way in ways],
            [b"".join(way.path) for way in ways],
        )
        if not moved:
            raise HeadMoved

    async def tiles(self, tx: Tx | Database, wanted: Sequence[Tile]) -> dict[Tile, bytes]:
        """Tiles by full name, each as wide as it is; those that are not there are left out."""
        kept, lowest = [tile for tile in wanted if tile.level], [tile.index for tile in wanted if not tile.level]
        rows = (
            await tx.fetch(_SQL.tiles_find, [tile.level for tile in kept], [tile.index for tile in kept])
            if kept
            else []
        )
        under = await tx.fetch(_SQL.entries_under, lowest) if lowest else []
        return {Tile(row["level"], row["tile_index"]): row["hashes"] for row in rows} | {
            Tile(0, row["tile_index"]): b"".join(map(leaf_hash, row["entries"])) for row in under if row["entries"]
        }

    async def entries(self, tx: Tx | Database, first: int, end: int) -> list[bytes]:
        """The entries from one index up to another, in order."""
        return [row["entry"] for row in await tx.fetch(_SQL.entries_between, first, end)]

    async def known(self, tx: Tx, commitments: Sequence[bytes]) -> set[bytes]:
        """Which of these are in the log already."""
        return {row["commitment"] for row in await tx.fetch(_SQL.commitments_known, commitments)}

    async def placed(self, commitment: bytes) -> Placed | None:
        """Where a commitment is."""
        row = await self._db.fetchrow(_SQL.commitment_find, commitment)
        if row is None:
            return None
        return Placed(row["log_index"], row["entry"], row["inner_index"], row["inner_size"], _hashes(row["path"]))

    async def published(self) -> Published:
        """The newest signed checkpoint."""
        return Published(**await self._db.fetchrow(_SQL.checkpoint_find, self._origin))

    async def lock_published(self, tx: Tx) -> Published:
        """The newest signed checkpoint, and it is until the transaction ends."""
        return Published(**await tx.fetchrow(_SQL.checkpoint_lock, self._origin))

    async def publish(self, tx: Tx, size: int, note: bytes) -> None:
        """Serve a checkpoint from the commit on; one that covers less than the newest is ignored."""
        await tx.execute(_SQL.checkpoint_publish, self._origin, size, note)

    async def add_waiting(self, tx: Tx, waiting: Sequence[Waiting]) -> None:
        """Have events wait for the log's next tick."""
        await tx.executemany(_SQL.waiting_insert, [(each.service, each.seq, each.commitments) for each in waiting])

    async def waiting(self, tx: Tx) -> int:
        """How many events wait, about."""
        return int(await tx.fetchval(_SQL.waiting_length))

    async def take_waiting(self, tx: Tx, most: int) -> list[Waiting]:
        """Take the longest waiting events, of so many commitments; only under :meth:`lock_head`, for good if it commits."""
        return [Waiting(**row) for row in await tx.fetch(_SQL.waiting_take, most)]

    async def keys(self, tx: Tx | Database, subjects: Sequence[str]) -> dict[str, WrappedKey]:
        """The keys of these subjects; those without one are left out."""
        rows = await tx.fetch(_SQL.keys_find, subjects)
        return {row["subject"]: WrappedKey(row["key_id"], row["wrapped"]) for row in rows}

    async def any_key(self) -> tuple[str, WrappedKey] | None:
        """Any subject's key, if there is one."""
        row = await self._db.fetchrow(_SQL.key_any)
        return (row["subject"], WrappedKey(row["key_id"], row["wrapped"])) if row else None

    async def add_keys(self, tx: Tx, keys: Mapping[str, WrappedKey]) -> set[str]:
        """Give keys to subjects, and tell who got theirs: the others have one that somebody else gave them meanwhile."""
        ids, wrapped = [key.key_id for key in keys.values()], [key.wrapped for key in keys.values()]
        return {row["subject"] for row in await tx.fetch(_SQL.keys_insert, list(keys), ids, wrapped)}

    async def add_history(self, tx: Tx, sealed: Sequence[Sealed]) -> None:
        """Add to histories, which show it once it is in the log. What is there already stays as it is."""
        await tx.execute(
            _SQL.history_insert,
            [each.subject for each in sealed],
            [each.occurred_at for each in sealed],
            [each.commitment for each in sealed],
            [each.key_id for each in sealed],
            [each.sealed for each in sealed],
        )

    async def history(self, subject: str, key_id: int, page: Page) -> list[HistoryRow]:
        """A page of a subject's history, newest first; what an erased key had sealed is left out."""
        after = page.after or (None, None)
        args = (subject, key_id, page.after is not None, *after, page.size)
        return [HistoryRow(**row) for row in await self._db.fetch(_SQL.history_page, *args)]

    async def progress(self, tx: Tx, service: str) -> Progress:
        """How far a stream is in the log."""
        row = await tx.fetchrow(_SQL.progress_find, service)
        return Progress(row["logged_seq"], frozenset(row["ahead"])) if row else Progress(0)

    async def set_progress(self, tx: Tx, service: str, progress: Progress) -> None:
        """Note how far a stream is in the log; only under :meth:`lock_head`."""
        await tx.execute(_SQL.progress_set, service, progress.logged, sorted(progress.ahead))


def _hashes(path: bytes) -> tuple[bytes, ...]:
    return tuple(path[at : at + HASH_SIZE] for at in range(0, len(path), HASH_SIZE))
