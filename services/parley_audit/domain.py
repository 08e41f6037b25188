"""What becomes of events: leaves, gapless prefixes of streams, pages of history. Pure."""

import struct
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from parley_crypto.commitment import Opening
from parley_crypto.tlog import receipt
from parley_kit import pages

SYSTEM = "system"
"""Whose history an event is that concerns no customer. No customer's id, which has 26 characters."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TOKEN = struct.Struct(">q32s")


@dataclass(frozen=True, slots=True)
class Noted:
    """
    Something that happened, as audit logs it: to whom, when, and what opens its commitment.

    What has the same ``together`` comes in numbers, from many customers, and shares a leaf; empty, it has its own.
    """

    subject: str
    occurred_at: datetime
    opening: Opening
    together: str = ""
    commitment: bytes = field(init=False, repr=False, compare=False)
    """32 bytes: the event's name in all that follows."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "commitment", self.opening.commitment)  # once: it is asked for again and again


@dataclass(frozen=True, slots=True)
class Member:
    """One commitment of a leaf, and its way to the leaf's inner root."""

    noted: Noted
    way: receipt.Opening


@dataclass(frozen=True, slots=True)
class Leaf:
    """One entry of the log, its exact bytes, and what it commits to."""

    entry: bytes
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a stream is in the log: all up to ``logged``, and of what follows the places in ``ahead``."""

    logged: int
    ahead: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Page:
    """A page of history, newest first: at most ``size`` entries that come after (time, commitment), if given."""

    size: int
    after: tuple[datetime, bytes] | None = None


def leaves_of(noted: Iterable[Noted]) -> list[Leaf]:
    """
    Make the leaves of events handled together: one for each kind that comes in numbers, one for each other event.

    Commitments in a leaf, and leaves, are sorted, which for hashes means shuffled: two parties who compare their receipts
    learn nothing from the order. An opening that comes twice is one.
    """
    unique = {each.commitment: each for each in noted}
    ordered = [unique[commitment] for commitment in sorted(unique)]
    shared: dict[str, list[Noted]] = defaultdict(list)
    for each in ordered:
        shared[each.together].append(each)
    alone = [[each] for each in shared.pop("", [])]
    return sorted(map(_leaf, alone + list(shared.values())), key=lambda leaf: leaf.entry)


def _leaf(batch: Sequence[Noted]) -> Leaf:
    entry, ways = receipt.make_leaf([(each.opening.salt, each.opening.detail) for each in batch])
    return Leaf(entry, tuple(map(Member, batch, ways)))


def advance(progress: Progress, seqs: Iterable[int]) -> Progress:
    """Add places that are in the log now; only an unbroken run from the beginning counts as logged."""
    waiting = {seq for seq in progress.ahead.union(seqs) if seq > progress.logged}
    logged = progress.logged
    while logged + 1 in waiting:
        logged += 1
    return Progress(logged, frozenset(seq for seq in waiting if seq > logged))


def page_of(size: int, token: str) -> Page:
    """Read what a caller asks for. Raises InvalidRequest for a token nobody was given."""
    return Page(pages.size(size), _read_token(token) if token else None)


def page_token(occurred_at: datetime, commitment: bytes) -> str:
    """Write down where a page ends."""
    return pages.encode(_TOKEN.pack((occurred_at - _EPOCH) // timedelta(microseconds=1), commitment))


def _read_token(token: str) -> tuple[datetime, bytes]:
    try:
        micros, commitment = _TOKEN.unpack(pages.decode(token))
        return _EPOCH + timedelta(microseconds=micros), commitment
    except (OverflowError, struct.error):
        raise pages.not_ours() from None
