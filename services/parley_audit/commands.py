"""What audit does: it takes events into the log, proves that they are there, and shows customers their own."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from parley_audit.domain import Noted, Page, Waiting, advance, leaf_of, page_token
from parley_audit.events import stream_logged
from parley_audit.faults import ProofNotFound
from parley_audit.growth import Head, edge, full_names, grow, reader
from parley_audit.notes import NoteReader, notes_of
from parley_audit.store import HistoryRow, Placed, Sealed, Store
from parley_audit.subject_keys import SubjectKey, SubjectKeys
from parley_bus.consumer import Received
from parley_crypto.commitment import Opening
from parley_crypto.tlog import receipt
from parley_crypto.tlog.proof import TlogProof
from parley_crypto.tlog.tiles import tiles_for_inclusion
from parley_db.database import Database, Tx
from parley_db.outbox import append
from parley_kit.clock import Clock
from parley_kit.faults import Unavailable
from parley_kit.offload import each, work

MOST_WAITING = 4096
"""Events: where so many wait, ticks fail or can't keep up, and no more are taken in until they do."""

Require = Callable[[int], None]
"""Refuses a log of a size that nothing may be built on, by raising LogRefused."""


@dataclass(frozen=True)
class Intake:
    """Takes events in: what they note waits for the log's next tick, and stands in its customer's history."""

    notes: NoteReader
    store: Store
    keys: SubjectKeys
    require: Require

    async def take_in(self, tx: Tx, service: str, received: Sequence[Received]) -> None:
        """
        Take in what a stream's new events noted, in one transaction with their places in the inbox.

        Raises NoteRefused, LogRefused and Unavailable; then nothing of the batch may be kept.
        """
        self.require((await self.store.head(tx)).size)
        if await self.store.waiting(tx) >= MOST_WAITING:
            raise Unavailable(retry_after=0.2)
        written = [(one.seq, note) for one in received for note in notes_of(one.envelope)]
        noted = await each(lambda one: (one[0], self.notes.read(one[1])), written)
        await self._remember(tx, [one for _, one in noted])
        commitments = defaultdict[int, list[bytes]](list)
        for seq, one in noted:
            commitments[seq].append(one.commitment)
        await self.store.add_waiting(tx, [Waiting(service, seq, some) for seq, some in commitments.items()])

    async def _remember(self, tx: Tx, noted: Sequence[Noted]) -> None:
        keys = await self.keys.ensure(tx, [one.subject for one in noted])
        await self.store.add_history(tx, await each(lambda one: _sealed(keys[one.subject], one), noted))


@dataclass(frozen=True)
class Growing:
    """Lets the log grow: by one entry a tick, so that nobody learns from its size whether anything happened, or how much."""

    store: Store
    clock: Clock
    require: Require

    async def grow(self, tx: Tx) -> None:
        """
        Append one entry of what waits, be it nothing, and say how far each stream is logged, all in one transaction.

        A commitment that is in the log already stays in the entry that it is in. Raises LogRefused and HeadMoved; then nothing
        may be kept.
        """
        head = await self.store.lock_head(tx)
        self.require(head.size)
        waiting = await self.store.take_waiting(tx, receipt.ROOM)
        await self._append(tx, head, {commitment for one in waiting for commitment in one.commitments})
        for service in sorted({one.service for one in waiting}):
            await self._advance(tx, service, [one.seq for one in waiting if one.service == service])

    async def _append(self, tx: Tx, head: Head, commitments: set[bytes]) -> None:
        known = await self.store.known(tx, list(commitments)) if commitments else set()
        fresh = commitments - known
        leaf = await work(len(fresh), lambda: leaf_of(fresh))
        tiles = await self.store.tiles(tx, edge(head.size, head.size + 1))
        await self.store.append(tx, head, grow(head, [leaf.entry], tiles), leaf)

    async def _advance(self, tx: Tx, service: str, seqs: Sequence[int]) -> None:
        before = await self.store.progress(tx, service)
        after = advance(before, seqs)
        if after != before:
            await self.store.set_progress(tx, service, after)
        if after.logged > before.logged:
            await append(tx, [stream_logged(service, after.logged, self.clock.now())])


@dataclass(frozen=True, slots=True)
class Proof:
    """What shows that a commitment is in the log: a tlog-proof, and the commitment's place in the entry."""

    proof: TlogProof
    placed: Placed


@dataclass(frozen=True, slots=True)
class Happened:
    """One thing that happened to a customer, opened."""

    row: HistoryRow
    opening: Opening


@dataclass(frozen=True)
class Reading:
    """Proofs for anyone, and each customer's history for them."""

    db: Database
    store: Store
    keys: SubjectKeys

    async def proof(self, commitment: bytes) -> Proof:
        """Prove a commitment under the newest checkpoint. Raises ProofNotFound while none covers it."""
        placed = await self.store.placed(commitment)
        published = await self.store.published()
        if placed is None or published.note is None or placed.log_index >= published.size:
            raise ProofNotFound
        wanted = full_names(tiles_for_inclusion(placed.log_index, published.size))
        tiles = reader(await self.store.tiles(self.db, wanted), published.size)
        hashes = tuple(tiles.inclusion_proof(placed.log_index))
        return Proof(TlogProof(placed.log_index, hashes, published.note), placed)

    async def checkpoint(self) -> bytes:
        """The newest signed note. Raises Unavailable while there is none."""
        note = (await self.store.published()).note
        if note is None:
            raise Unavailable(retry_after=0.2)
        return note

    async def history(self, subject: str, page: Page) -> tuple[list[Happened], str]:
        """A page of a customer's own history, newest first, and the token of the next ('' at the end)."""
        key = await self.keys.find(self.db, subject)
        if key is None:
            return [], ""
        # One more than asked for tells whether there is a next page.
        rows = await self.store.history(subject, key.key_id, Page(page.size + 1, page.after))
        shown = rows[: page.size]
        token = page_token(shown[-1].occurred_at, shown[-1].commitment) if len(rows) > page.size else ""
        return [Happened(row, key.open(row.commitment, row.sealed)) for row in shown], token


def _sealed(key: SubjectKey, noted: Noted) -> Sealed:
    """Seal an opening for its subject's history."""
    sealed = key.seal(noted.commitment, noted.opening)
    return Sealed(key.subject, key.key_id, noted.occurred_at, noted.commitment, sealed)
