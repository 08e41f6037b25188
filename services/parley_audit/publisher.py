"""The publisher: signs checkpoints, each an extension of the one before, or none at all."""

import asyncio
from dataclasses import dataclass

from parley_audit.faults import LogRefused
from parley_audit.growth import Head, extends, goes_on, proving_tiles
from parley_audit.published import PublishedFile
from parley_audit.store import Published, Store
from parley_crypto.tlog.note import Signer, sign_note
from parley_crypto.tlog.tiles import WIDTH
from parley_db.database import Database, Tx
from parley_kit.completion import to_the_end

_RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class _Signed:
    """A head of the log, and the note over it."""

    head: Head
    note: bytes


class Publisher:
    """
    Signs a checkpoint of all that is committed, whenever there is more of it.

    Before each it proves to itself that the log extends the newest published checkpoint. Where it doesn't (a restored
    database is older than what the world has seen), nothing is signed, and :meth:`require` stops what would be appended.
    From what it has proven itself it goes on by the entries since. All that is stored it looks at again before a tile is made
    of it.
    """

    def __init__(self, db: Database, store: Store, file: PublishedFile, signer: Signer) -> None:
        self._db = db
        self._store = store
        self._file = file
        self._signer = signer
        self._last: _Signed | None = None
        self._most = 0

    async def ping(self) -> None:
        """Tell whether the log can be continued. Raises LogRefused."""
        self.require(self._most)

    def require(self, size: int) -> None:
        """Let pass what builds on a log of so many entries. Raises LogRefused where it is not known to be sound."""
        if self._last is None or size < self._last.head.size:
            raise LogRefused(retry_after=_RETRY_S)

    @property
    def confirmed(self) -> bool:
        """Whether the log is known to extend all that was ever published of it."""
        return self._last is not None

    async def publish(self) -> None:
        """Sign and publish what is new, if anything. Raises LogRefused and Unavailable."""
        try:
            self._last = await self._db.run("audit.publish", self._publish)
        except LogRefused:
            self._last = None
            raise
        self._most = self._last.head.size

    async def _publish(self, tx: Tx) -> _Signed:
        served = await self._store.lock_published(tx)
        head = await self._store.head(tx)
        held = await asyncio.to_thread(self._file.read)
        if head.size < self._most:  # with the file, too: whoever put both back can't make this process forget
            raise LogRefused("The log is shorter than it was: restore a newer database.")
        covered = await self._covered(tx, held, head, served)
        if held is not None and served.note is not None and head.size == covered <= served.size:
            return _Signed(head, held)
        note = sign_note(head.checkpoint(self._signer.key.name).text(), [self._signer])
        # The file first: what was ever served must be in it. A crash in between signs the same note again. No thread outlives
        # the lock, or it could put this note in the place of one that another process has signed since.
        await to_the_end(asyncio.to_thread(self._file.write, note))
        await self._store.publish(tx, head.size, note)
        return _Signed(head, note)

    async def _covered(self, tx: Tx, held: bytes | None, head: Head, served: Published) -> int:
        """How many entries the newest published checkpoint covers. Raises LogRefused unless the log extends it."""
        if held is None:
            if served.note is not None:
                raise LogRefused(
                    "The file of the newest published checkpoint is gone: put the newest one there that anybody holds."
                )
            return 0
        if self._last is not None and held == self._last.note and await self._went_on(tx, self._last.head, head):
            return self._last.head.size
        newest = self._file.checkpoint_in(held)
        tiles = await self._store.tiles(tx, proving_tiles(newest, head.size))
        if not extends(newest, head.checkpoint(self._signer.key.name), tiles):
            raise LogRefused("The log does not extend its newest published checkpoint: restore a newer database.")
        return newest.size

    async def _went_on(self, tx: Tx, last: Head, head: Head) -> bool:
        """
        Whether the log is known to be what this process has proven, and the few entries since.

        Not where the next entry fills a bundle: of that a tile is made for good, so all that is stored is looked at before.
        """
        if (last.size + 1) // WIDTH != (head.size + 1) // WIDTH:
            return False
        return goes_on(last, await self._store.entries(tx, last.size, head.size), head)
