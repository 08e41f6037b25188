"""
How the log grows: hashes and tiles, without I/O.

Of each tile only its widest form so far is kept: a partial tile is the beginning of the full one, so every narrower one
that was ever published can still be served from it. Those of the lowest level are not kept at all: they are hashes of entries,
which are no longer than these, and a log that grows at every tick would write each of them 256 times.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from parley_crypto.tlog import merkle
from parley_crypto.tlog.checkpoint import Checkpoint
from parley_crypto.tlog.errors import TlogInvalid
from parley_crypto.tlog.merkle import EMPTY_ROOT, HASH_SIZE, Frontier
from parley_crypto.tlog.tiles import HEIGHT, WIDTH, Tile, TileReader, new_tiles, tiles_for_consistency

Tiles = Mapping[Tile, bytes]
"""Tiles by the name of their full form, each as wide as it was found."""


@dataclass(frozen=True, slots=True)
class Head:
    """How many entries the log has, and the serialised frontier over them."""

    size: int
    frontier: bytes

    def checkpoint(self, origin: str) -> Checkpoint:
        """What is to be signed."""
        return Checkpoint(origin, self.size, Frontier.from_bytes(self.frontier).root())


@dataclass(frozen=True, slots=True)
class Growth:
    """The head after an append, and the tiles above the lowest level that changed."""

    head: Head
    tiles: Tiles


EMPTY = Head(0, Frontier().to_bytes())


def edge(old: int, new: int) -> list[Tile]:
    """The tiles, by full name, that a log of ``old`` entries has begun and one of ``new`` has filled, or written on."""
    if not _fills(old, new):
        return []
    levels = [level for level in range(64 // HEIGHT) if new >> HEIGHT * level > old >> HEIGHT * level]
    return [Tile(level, (old >> HEIGHT * level) // WIDTH) for level in levels if (old >> HEIGHT * level) % WIDTH]


def grow(head: Head, entries: Sequence[bytes], tiles: Tiles) -> Growth:
    """Append entries. ``tiles`` are those of :func:`edge`. Raises KeyError or TileInvalid where one is missing or short."""
    frontier, hashes = _appended(head, entries)
    new = new_tiles(head.size, hashes, _by_path(tiles).__getitem__) if _fills(head.size, frontier.size) else ()
    return Growth(Head(frontier.size, frontier.to_bytes()), {tile.full: raw for tile, raw in new if tile.level})


def goes_on(earlier: Head, entries: Sequence[bytes], later: Head) -> bool:
    """Whether the later head is what the earlier becomes by these entries."""
    frontier, _ = _appended(earlier, entries)
    return (frontier.size, frontier.to_bytes()) == (later.size, later.frontier)


def reader(tiles: Tiles, size: int) -> TileReader:
    """Read proofs about the tree of ``size`` entries out of tiles."""
    return TileReader(_by_path(tiles).__getitem__, size)


def proving_tiles(earlier: Checkpoint, size: int) -> list[Tile]:
    """The tiles, by full name, that show whether a tree of ``size`` entries extends an earlier one."""
    return full_names(tiles_for_consistency(earlier.size, size)) if 0 < earlier.size < size else []


def extends(earlier: Checkpoint, later: Checkpoint, tiles: Tiles) -> bool:
    """Whether the later tree begins with the earlier; ``tiles`` are those of :func:`proving_tiles`."""
    if earlier.size > later.size or earlier.origin != later.origin:
        return False
    if earlier.size == 0:
        return earlier.root == EMPTY_ROOT
    try:
        proof = reader(tiles, later.size).consistency_proof(earlier.size) if earlier.size < later.size else []
        merkle.verify_consistency(earlier.size, later.size, earlier.root, later.root, proof)
    except (TlogInvalid, LookupError):
        return False
    return True


def covers(size: int, tile: Tile) -> bool:
    """Whether a tree of ``size`` entries has the tile, or the entry bundle, as wide as it is asked for."""
    return tile.index * WIDTH + tile.width <= size >> HEIGHT * max(tile.level, 0)


def cut(tile: Tile, widest: bytes) -> bytes:
    """The tile as wide as it is asked for."""
    return widest[: tile.width * HASH_SIZE]


def full_names(tiles: Iterable[Tile]) -> list[Tile]:
    """The names under which tiles are kept."""
    return [tile.full for tile in tiles]


def _appended(head: Head, entries: Sequence[bytes]) -> tuple[Frontier, list[bytes]]:
    """What a head becomes by some entries, and their hashes."""
    frontier, hashes = Frontier.from_bytes(head.frontier), [merkle.leaf_hash(entry) for entry in entries]
    for each in hashes:
        frontier.append(each)
    return frontier, hashes


def _fills(old: int, new: int) -> bool:
    """Whether a tile of the lowest level becomes full, which alone changes those above."""
    return new // WIDTH > old // WIDTH


def _by_path(tiles: Tiles) -> Mapping[str, bytes]:
    return {tile.path: raw for tile, raw in tiles.items()}
