"""
Tiles and entry bundles (c2sp.org/tlog-tiles v0.1): a log as static resources, and proofs from them alone.

A full tile is 256 hashes, 8,192 bytes; level 0 holds leaf hashes, each level above the roots of *full* tiles below.
"""

import re
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from parley_crypto.tlog import merkle
from parley_crypto.tlog.errors import TileInvalid
from parley_crypto.tlog.merkle import HASH_SIZE

WIDTH = 256
HEIGHT = 8
ENTRIES = -1  # the level under which entry bundles go, as in Go's sumdb/tlog
MAX_LEVEL = 63
MAX_ENTRY_SIZE = 2**16 - 1

Read = Callable[[str], bytes]

_PATH = re.compile(
    r"tile/(?P<level>entries|0|[1-9][0-9]?)/(?P<index>(?:x[0-9]{3}/){0,6}[0-9]{3})(?:\.p/(?P<width>[1-9][0-9]{0,2}))?",
    re.ASCII,
)
_LENGTH = struct.Struct(">H")


@dataclass(frozen=True, slots=True, order=True)
class Tile:
    """
    The name of a tile, or of an entry bundle where ``level`` is ``ENTRIES``. ``width`` is 1..256, 256 being full.

    Raises TileInvalid for coordinates no path can have.
    """

    level: int
    index: int
    width: int = WIDTH

    def __post_init__(self) -> None:
        if not (ENTRIES <= self.level <= MAX_LEVEL and self.index >= 0 and 1 <= self.width <= WIDTH):
            raise TileInvalid("no tile has these coordinates")

    @property
    def path(self) -> str:
        """Its path under the log's prefix, such as ``tile/0/x001/x234/067.p/5``."""
        level = "entries" if self.level == ENTRIES else str(self.level)
        partial = "" if self.width == WIDTH else f".p/{self.width}"
        return f"tile/{level}/{_index_path(self.index)}{partial}"

    @property
    def full(self) -> "Tile":
        """The full tile in the same place."""
        return Tile(self.level, self.index)


def parse_path(path: str) -> Tile:
    """Read a path, requiring its one spelling. Raises TileInvalid."""
    if not (match := _PATH.fullmatch(path)):
        raise TileInvalid("not the path of a tile")
    level = ENTRIES if match["level"] == "entries" else int(match["level"])
    tile = Tile(level, int(re.sub("[x/]", "", match["index"])), int(match["width"] or WIDTH))
    if tile.path != path:
        raise TileInvalid("not the path of a tile")
    return tile


def partial_width(level: int, size: int) -> int:
    """How many hashes the last, partial tile of a level has in a tree of ``size``; 0 where there is none."""
    return (size >> HEIGHT * max(level, 0)) % WIDTH


def changed_tiles(old: int, new: int) -> Iterator[Tile]:
    """The tiles, lowest level first, that a tree of ``new`` entries has and one of ``old`` had not (or narrower)."""
    for level in range(MAX_LEVEL + 1):
        before, after = old >> HEIGHT * level, new >> HEIGHT * level
        if before >= after:
            return
        yield from _tiles_between(level, before, after)


def changed_bundles(old: int, new: int) -> Iterator[Tile]:
    """The entry bundles that a tree of ``new`` entries has and one of ``old`` had not (or narrower)."""
    if old < new:
        yield from _tiles_between(ENTRIES, old, new)


def new_tiles(old: int, leaf_hashes: Sequence[bytes], read: Read) -> Iterator[tuple[Tile, bytes]]:
    """
    Append leaves to a tree of ``old`` entries: every changed tile with its bytes, in :func:`changed_tiles`' order.

    ``read`` is asked for the partial tiles of the old tree, at most one per level. Raises TileInvalid if one is short.
    """
    level, hashes = 0, list(leaf_hashes)
    while hashes:
        before = old >> HEIGHT * level
        index, width = divmod(before, WIDTH)
        if width:
            hashes = _read_hashes(read, Tile(level, index, width)) + hashes
        chunks = [hashes[at : at + WIDTH] for at in range(0, len(hashes), WIDTH)]
        for at, chunk in enumerate(chunks):
            yield Tile(level, index + at, len(chunk)), b"".join(chunk)
        level, hashes = level + 1, [merkle.root(chunk) for chunk in chunks if len(chunk) == WIDTH]


def encode_bundle(entries: Sequence[bytes]) -> bytes:
    """Write up to 256 entries, each behind its u16 length. Raises TileInvalid for too many, or one too long."""
    if len(entries) > WIDTH or any(len(entry) > MAX_ENTRY_SIZE for entry in entries):
        raise TileInvalid("a bundle holds 256 entries of 65,535 bytes at most")
    return b"".join(_LENGTH.pack(len(entry)) + entry for entry in entries)


def decode_bundle(bundle: bytes, width: int) -> list[bytes]:
    """Read exactly ``width`` entries. Raises TileInvalid for a bundle that is short, long or cut."""
    entries: list[bytes] = []
    at = 0
    while at < len(bundle) and len(entries) < width:
        start = at + _LENGTH.size
        length = int.from_bytes(bundle[at:start], "big")
        at = start + length
        entries.append(bundle[start:at])
    if at != len(bundle) or len(entries) != width:
        raise TileInvalid("an entry bundle is cut, or of another width")
    return entries


def tiles_for_inclusion(index: int, size: int) -> set[Tile]:
    """The tiles that an inclusion proof needs, to fetch them together. Raises ValueError unless index < size."""
    return _tiles_for(merkle.inclusion_ranges(index, size), size)


def tiles_for_consistency(first: int, size: int) -> set[Tile]:
    """The tiles that a consistency proof needs, to fetch them together. Raises ValueError unless 1 <= first <= size."""
    return _tiles_for(merkle.consistency_ranges(first, size), size)


class TileReader:
    """
    Proofs about a tree of ``size`` entries from its tiles alone.

    ``read(path)`` gives a tile's bytes and raises LookupError where there is none; a partial tile that is gone is
    sought in the full one. Tiles are kept once read. They are *not trusted*: a false tile makes a proof, or a root,
    that doesn't verify against the signed checkpoint.
    """

    def __init__(self, read: Read, size: int) -> None:
        self._read = read
        self._size = size
        self._tiles: dict[Tile, list[bytes]] = {}

    def root(self) -> bytes:
        """Compute the root of the tree."""
        return self._root((0, self._size)) if self._size else merkle.EMPTY_ROOT

    def leaf_hash(self, index: int) -> bytes:
        """Find the hash of one leaf. Raises ValueError unless 0 <= index < size."""
        if not 0 <= index < self._size:
            raise ValueError("no such leaf")
        return self._root((index, index + 1))

    def inclusion_proof(self, index: int) -> list[bytes]:
        """Prove one leaf. Raises ValueError where there is none, TileInvalid, or what ``read`` raises."""
        return [self._root(each) for each in merkle.inclusion_ranges(index, self._size)]

    def consistency_proof(self, first: int) -> list[bytes]:
        """Prove that the tree of ``first`` entries is a prefix. Raises as :meth:`inclusion_proof`."""
        return [self._root(each) for each in merkle.consistency_ranges(first, self._size)]

    def _root(self, leaves: merkle.Range) -> bytes:
        *lefts, computed = [self._subtree(*each) for each in _subtrees(leaves)]
        for left in reversed(lefts):
            computed = merkle.node_hash(left, computed)
        return computed

    def _subtree(self, height: int, index: int) -> bytes:
        tile, start, count = _place(height, index, self._size)
        if tile not in self._tiles:
            self._tiles[tile] = _read_hashes(self._read, tile)
        return merkle.root(self._tiles[tile][start : start + count])


def _index_path(index: int) -> str:
    groups = [f"{index % 1000:03}"]
    while index := index // 1000:
        groups.append(f"x{index % 1000:03}")
    return "/".join(reversed(groups))


def _tiles_between(level: int, before: int, after: int) -> Iterator[Tile]:
    full, width = divmod(after, WIDTH)
    for index in range(before // WIDTH, full):
        yield Tile(level, index)
    if width:
        yield Tile(level, full, width)


def _subtrees(leaves: merkle.Range) -> Iterator[tuple[int, int]]:
    """Cut a range that a proof uses into complete subtrees (height, index at that height), largest first."""
    start, end = leaves
    while start < end:
        height = (end - start).bit_length() - 1
        yield height, start >> height
        start += 1 << height


def _place(height: int, index: int, size: int) -> tuple[Tile, int, int]:
    """Where a complete subtree's hashes stand: the tile, the first of them, and how many."""
    level, inside = divmod(height, HEIGHT)
    tile_index, start = divmod(index << inside, WIDTH)
    width = min(WIDTH, (size >> HEIGHT * level) - tile_index * WIDTH)
    return Tile(level, tile_index, width), start, 1 << inside


def _tiles_for(ranges: Iterable[merkle.Range], size: int) -> set[Tile]:
    return {_place(height, index, size)[0] for each in ranges for height, index in _subtrees(each)}


def _read_hashes(read: Read, tile: Tile) -> list[bytes]:
    try:
        raw = read(tile.path)
    except LookupError:
        if tile == tile.full:
            raise
        raw = read(tile.full.path)[: tile.width * HASH_SIZE]
    if len(raw) != tile.width * HASH_SIZE:
        raise TileInvalid("a tile is of another width")
    return [raw[at : at + HASH_SIZE] for at in range(0, len(raw), HASH_SIZE)]
