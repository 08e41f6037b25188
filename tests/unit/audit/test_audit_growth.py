from collections.abc import Mapping, Sequence
from functools import cache

import pytest

from parley_audit.growth import EMPTY, Head, covers, cut, edge, extends, goes_on, grow, proving_tiles, reader
from parley_crypto.tlog import merkle
from parley_crypto.tlog.checkpoint import Checkpoint
from parley_crypto.tlog.tiles import ENTRIES, Tile, changed_tiles

ORIGIN = "log.example"
SIZES = (1, 2, 7, 255, 256, 257, 300, 511, 512, 66_000)


def entries(count: int, mark: bytes = b"") -> list[bytes]:
    return [mark + n.to_bytes(4, "big") for n in range(count)]


@cache
def grown(steps: tuple[int, ...], mark: bytes = b"") -> tuple[Head, Mapping[Tile, bytes]]:
    """A log that grew to each of these sizes; asked only for the tiles that ``edge`` names."""
    head, tiles = EMPTY, dict[Tile, bytes]()
    everything = entries(steps[-1], mark)
    for size in steps:
        needed = {tile: tiles[tile] for tile in edge(head.size, size)}
        growth = grow(head, everything[head.size : size], needed)
        assert 0 not in {tile.level for tile in growth.tiles}
        lowest = {
            tile.full: under(everything[:size], tile) for tile in changed_tiles(head.size, size) if tile.level == 0
        }
        head, tiles = growth.head, {**tiles, **growth.tiles, **lowest}
    return head, tiles


def under(everything: Sequence[bytes], tile: Tile) -> bytes:
    """A tile of the lowest level, which is not kept, from the entries under it."""
    return b"".join(map(merkle.leaf_hash, everything[256 * tile.index : 256 * tile.index + 256]))


@cache
def root(count: int, mark: bytes = b"") -> bytes:
    return merkle.root([merkle.leaf_hash(entry) for entry in entries(count, mark)])


def test_the_root_is_that_of_all_entries_however_they_came() -> None:
    for steps in ((66_000,), SIZES, (*range(1, 600, 37), 66_000)):
        head, tiles = grown(steps)
        assert Checkpoint(ORIGIN, 66_000, root(66_000)) == head.checkpoint(ORIGIN)
        assert head.checkpoint(ORIGIN).root == reader(tiles, 66_000).root()


@pytest.mark.parametrize("size", SIZES)
def test_every_earlier_tree_can_be_read_from_the_widest_tiles(size: int) -> None:
    _, tiles = grown(SIZES)
    assert root(size) == reader(tiles, size).root()
    for tile in changed_tiles(0, size):
        assert covers(size, tile)
        assert 32 * tile.width == len(cut(tile, tiles[tile.full]))


def test_a_tree_covers_what_it_has_and_no_more() -> None:
    assert covers(257, Tile(ENTRIES, 1, 1))
    assert not covers(257, Tile(ENTRIES, 1, 2))
    assert covers(257, Tile(1, 0, 1))
    assert not covers(255, Tile(1, 0, 1))
    assert not covers(0, Tile(0, 0, 1))
    assert not covers(2**62, Tile(63, 0, 1))


@pytest.mark.parametrize("earlier", SIZES[:-1])
def test_a_log_extends_what_it_was_and_nothing_else(earlier: int) -> None:
    head, tiles = grown(SIZES)
    later = head.checkpoint(ORIGIN)
    before = Checkpoint(ORIGIN, earlier, root(earlier))
    needed = {tile: tiles[tile] for tile in proving_tiles(before, later.size)}
    assert extends(before, later, needed)
    assert not extends(Checkpoint(ORIGIN, earlier, root(earlier, b"fork")), later, needed)
    assert not extends(Checkpoint("other.example", earlier, before.root), later, needed)
    assert not extends(later, before, tiles)
    assert not extends(before, later, {})


@pytest.mark.parametrize(("size", "more"), [(0, 0), (0, 3), (255, 1), (255, 300), (300, 0), (300, 1)])
def test_a_head_goes_on_to_what_its_entries_make_of_it_and_to_nothing_else(size: int, more: int) -> None:
    everything = entries(size + more + 1)
    before, after = (grown((n,))[0] if n else EMPTY for n in (size, size + more))
    assert goes_on(before, everything[size:-1], after)
    assert not goes_on(before, everything[size:], after)
    assert not goes_on(before, everything[size:-1], grown((size + more + 1,))[0])
    assert not goes_on(before, everything[size:-1], Head(after.size + 1, after.frontier))
    assert not more or not goes_on(before, entries(size + more, b"fork")[size:], after)
    assert not size or not goes_on(grown((size,), b"fork")[0], everything[size:-1], after)


def test_a_log_of_one_size_extends_itself_alone() -> None:
    head, _ = grown((7,))
    one = head.checkpoint(ORIGIN)
    assert extends(one, one, {})
    assert not extends(Checkpoint(ORIGIN, 7, root(7, b"fork")), one, {})


def test_every_log_extends_the_empty_one() -> None:
    head, _ = grown((7,))
    assert extends(EMPTY.checkpoint(ORIGIN), head.checkpoint(ORIGIN), {})
    assert not extends(Checkpoint(ORIGIN, 0, bytes(32)), head.checkpoint(ORIGIN), {})
