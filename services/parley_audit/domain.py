"""What becomes of events: entries, gapless prefixes of streams, pages of history. Pure, but for where chance puts commitments."""

import struct
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
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
    """Something that happened, as audit logs it: to whom, when, and what opens its commitment."""

    subject: str
    occurred_at: datetime
    opening: Opening
    commitment: bytes = field(init=False, repr=False, compare=False)
    """32 bytes: the event's name in all that follows."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "commitment", self.opening.commitment)  # once: it is asked for again and again


@dataclass(frozen=True, slots=True)
class Waiting:
    """An event that was taken in and waits for the log's next tick: its place in its stream, and what it commits to."""

    service: str
    seq: int
    commitments: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Leaf:
    """One entry of the log, its exact bytes, and of each commitment in it the way there."""

    entry: bytes
    ways: Mapping[bytes, receipt.Way]


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


def leaf_of(commitments: AbstractSet[bytes]) -> Leaf:
    """Make the entry of one tick, of whatever it takes in: it looks the same, be it much or nothing."""
    ordered = sorted(commitments)
    entry, ways = receipt.make_entry(ordered)
    return Leaf(entry, dict(zip(ordered, ways, strict=True)))


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
