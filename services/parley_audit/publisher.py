"""The publisher: signs checkpoints, each an extension of the one before, or none at all."""

import asyncio
from datetime import timedelta

from parley_audit.faults import LogRefused
from parley_audit.growth import extends, proving_tiles
from parley_audit.published import PublishedFile
from parley_audit.store import Published, Store
from parley_bus.log import Log, State
from parley_crypto.tlog.checkpoint import Checkpoint
from parley_crypto.tlog.note import Signer, sign_note
from parley_db.database import Database, Tx

POLL = 1.0
"""Seconds, at most, between two looks at the log: other processes append to it too."""


class Publisher:
    """
    Signs a checkpoint of all that is committed, whenever there is more of it, at most one an interval.

    Before each it proves to itself that the log extends the newest published checkpoint. Where it doesn't (a restored
    database is older than what the world has seen), nothing is signed, and :meth:`require` stops what would be appended.
    """

    def __init__(
        self, db: Database, store: Store, file: PublishedFile, signer: Signer, *, interval: timedelta, log: Log
    ) -> None:
        self._db = db
        self._store = store
        self._file = file
        self._signer = signer
        self._interval = interval.total_seconds()
        self._poked = asyncio.Event()
        self._confirmed: int | None = None
        self._state = State(log, "publisher")

    async def run(self) -> None:
        """Publish until cancelled. What fails is tried again, after 50 ms at first and every 2 s at last."""
        while True:
            try:
                await self.turn()
                self._state.good("publishing")
                await self._rest()
            except LogRefused as error:
                await asyncio.sleep(self._state.bad("refusing", error))
            except Exception as error:  # noqa: BLE001 - whatever it is, the log must be signed again once it is over
                await asyncio.sleep(self._state.bad("failing", error))

    def poke(self) -> None:
        """Say that leaves were just committed."""
        self._poked.set()

    async def ping(self) -> None:
        """Tell whether the log can be continued. Raises LogRefused."""
        self.require(self._confirmed or 0)

    def require(self, size: int) -> None:
        """Let pass what builds on a log of so many entries. Raises LogRefused where it is not known to be sound."""
        if self._confirmed is None or size < self._confirmed:
            raise LogRefused(retry_after=POLL)

    async def turn(self) -> None:
        """Sign and publish if there is something new. Raises LogRefused and Unavailable."""
        try:
            self._confirmed = await self._db.run("audit.publish", self._publish)
        except LogRefused:
            self._confirmed = None
            raise

    async def _publish(self, tx: Tx) -> int:
        served = await self._store.lock_published(tx)
        head = await self._store.head(tx)
        current = head.checkpoint(self._signer.key.name)
        newest = await asyncio.to_thread(self._file.read)
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

    async def _rest(self) -> None:
        await asyncio.sleep(self._interval)
        try:
            async with asyncio.timeout(POLL):
                await self._poked.wait()
        except TimeoutError:
            return
        self._poked.clear()
