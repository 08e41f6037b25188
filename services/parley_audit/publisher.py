"""The publisher: signs checkpoints, each an extension of the one before, or none at all."""

import asyncio

from parley_audit.faults import LogRefused
from parley_audit.growth import extends, proving_tiles
from parley_audit.published import PublishedFile
from parley_audit.store import Published, Store
from parley_crypto.tlog.checkpoint import Checkpoint
from parley_crypto.tlog.note import Signer, sign_note
from parley_db.database import Database, Tx

_RETRY_S = 1.0


class Publisher:
    """
    Signs a checkpoint of all that is committed, whenever there is more of it.

    Before each it proves to itself that the log extends the newest published checkpoint. Where it doesn't (a restored
    database is older than what the world has seen), nothing is signed, and :meth:`require` stops what would be appended.
    """

    def __init__(self, db: Database, store: Store, file: PublishedFile, signer: Signer) -> None:
        self._db = db
        self._store = store
        self._file = file
        self._signer = signer
        self._confirmed: int | None = None
        self._most = 0

    async def ping(self) -> None:
        """Tell whether the log can be continued. Raises LogRefused."""
        self.require(self._confirmed or 0)

    def require(self, size: int) -> None:
        """Let pass what builds on a log of so many entries. Raises LogRefused where it is not known to be sound."""
        if self._confirmed is None or size < self._confirmed:
            raise LogRefused(retry_after=_RETRY_S)

    @property
    def confirmed(self) -> bool:
        """Whether the log is known to extend all that was ever published of it."""
        return self._confirmed is not None

    async def publish(self) -> None:
        """Sign and publish what is new, if anything. Raises LogRefused and Unavailable."""
        try:
            self._confirmed = self._most = await self._db.run("audit.publish", self._publish)
        except LogRefused:
            self._confirmed = None
            raise

    async def _publish(self, tx: Tx) -> int:
        served = await self._store.lock_published(tx)
        head = await self._store.head(tx)
        current = head.checkpoint(self._signer.key.name)
        newest = await asyncio.to_thread(self._file.read)
        if current.size < self._most:  # with the file, too: whoever put both back can't make this process forget
            raise LogRefused("The log is shorter than it was: restore a newer database.")
        await self._require_extension(tx, newest, current, served)
        if newest != current or served.note is None or served.size < current.size:
            note = sign_note(current.text(), [self._signer])
            # The file first: what was ever served must be in it. A crash in between signs the same note again.
            await asyncio.to_thread(self._file.write, note)
            await self._store.publish(tx, current.size, note)
        return current.size

    async def _require_extension(
        self, tx: Tx, newest: Checkpoint | None, current: Checkpoint, served: Published
    ) -> None:
        if newest is None:
            if served.note is not None:
                raise LogRefused(
                    "The file of the newest published checkpoint is gone: put the newest one there that anybody holds."
                )
            return
        tiles = await self._store.tiles(tx, proving_tiles(newest, current.size))
        if not extends(newest, current, tiles):
            raise LogRefused("The log does not extend its newest published checkpoint: restore a newer database.")
