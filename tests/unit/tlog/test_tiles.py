from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parley_crypto.tlog import merkle
from parley_crypto.tlog.errors import TileInvalid
from parley_crypto.tlog.tiles import (
    ENTRIES,
    MAX_ENTRY_SIZE,
    Tile,
    TileReader,
    changed_bundles,
    changed_tiles,
    decode_bundle,
    encode_bundle,
    new_tiles,
    parse_path,
    partial_width,
    tiles_for_consistency,
    tiles_for_inclusion,
)
from tests.unit.tlog.makers import leaves

BIG = 70_000
BIG_LEAVES = leaves(BIG)


def never(path: str) -> bytes:
    raise AssertionError(path)


def published(hashes: list[bytes], *sizes: int) -> dict[str, bytes]:
    """What a log holds that published at each of these sizes."""
    tiles: dict[str, bytes] = {}
    for old, new in pairwise([0, *sizes]):
        tiles.update({tile.path: raw for tile, raw in new_tiles(old, hashes[old:new], tiles.__getitem__)})
    return tiles


BIG_TILES = published(BIG_LEAVES, BIG)


@pytest.mark.parametrize(
    ("tile", "path"),
    [
        (Tile(0, 0), "tile/0/000"),
        (Tile(0, 1234067), "tile/0/x001/x234/067"),
        (Tile(1, 1000, 17), "tile/1/x001/000.p/17"),
        (Tile(63, 999, 255), "tile/63/999.p/255"),
        (Tile(ENTRIES, 273, 112), "tile/entries/273.p/112"),
        (Tile(ENTRIES, 5), "tile/entries/005"),
    ],
)
def test_paths_are_the_specifications(tile: Tile, path: str) -> None:
    assert path == tile.path
    assert tile == parse_path(path)


@pytest.mark.parametrize(
    "path",
    [
        "", "tile/0/0", "tile/0/00", "tile/00/000", "tile/64/000", "tile/0/x000/001", "tile/0/001/002", "tile/0/x001",
        "tile/0/000.p/0", "tile/0/000.p/256", "tile/0/000.p/01", "tile/0/000.p/", "tile/-1/000", "tile/data/000",
        "/tile/0/000", "tile/0/000/", "tile/0/000\n", "tile/0/../000", "tile/0/\u0660\u0660\u0660", "tile/0/X001/000",
        "tile/0/" + "x001/" * 7 + "001",
    ],
)  # fmt: skip
def test_other_spellings_of_paths_are_refused(path: str) -> None:
    with pytest.raises(TileInvalid):
        parse_path(path)


@pytest.mark.parametrize(("level", "index", "width"), [(-2, 0, 1), (64, 0, 1), (0, -1, 1), (0, 0, 0), (0, 0, 257)])
def test_tiles_without_a_path_are_not_built(level: int, index: int, width: int) -> None:
    with pytest.raises(TileInvalid):
        Tile(level, index, width)


def test_the_layout_of_70000_leaves_is_the_specifications() -> None:
    expected = {
        *(Tile(0, n) for n in range(273)), Tile(0, 273, 112), Tile(1, 0), Tile(1, 1, 17), Tile(2, 0, 1),
    }  # fmt: skip
    assert expected == set(changed_tiles(0, BIG)) == {parse_path(path) for path in BIG_TILES}
    assert [partial_width(level, BIG) for level in range(4)] == [112, 17, 1, 0]
    assert partial_width(ENTRIES, BIG) == 112


def test_256_leaves_make_a_full_tile_and_one_hash_above_it() -> None:
    assert [Tile(0, 0), Tile(1, 0, 1)] == list(changed_tiles(0, 256))


def test_tiles_hold_the_roots_that_the_specification_names() -> None:
    for path, raw in BIG_TILES.items():
        tile = parse_path(path)
        span = 256**tile.level
        first = tile.index * 256
        expected = [merkle.root(BIG_LEAVES[n * span : (n + 1) * span]) for n in range(first, first + tile.width)]
        assert b"".join(expected) == raw


@pytest.mark.parametrize(
    "sizes", [(1, 2, 3), (255, 256, 257), (100, 300, 600, 65_535, 65_536, 65_537, BIG), (256, 512)]
)
def test_growing_step_by_step_changes_exactly_the_tiles_that_grew(sizes: tuple[int, ...]) -> None:
    tiles = published(BIG_LEAVES[: sizes[-1]], *sizes[:-1])
    grown = dict(new_tiles(sizes[-2], BIG_LEAVES[sizes[-2] : sizes[-1]], tiles.__getitem__))
    assert list(changed_tiles(sizes[-2], sizes[-1])) == list(grown)
    at_once = published(BIG_LEAVES[: sizes[-1]], sizes[-1])
    tiles.update({tile.path: raw for tile, raw in grown.items()})
    assert at_once == {path: tiles[path] for path in at_once}


def test_nothing_new_changes_nothing() -> None:
    assert [] == list(changed_tiles(300, 300)) == list(changed_bundles(300, 300))
    assert list(new_tiles(300, [], never)) == []


def test_bundles_change_as_the_lowest_tiles_do() -> None:
    assert [Tile(ENTRIES, 1), Tile(ENTRIES, 2, 88)] == list(changed_bundles(300, 600))


@given(entries=st.lists(st.binary(max_size=300), max_size=20))
def test_bundles_survive_a_round_trip_and_no_cut(entries: list[bytes]) -> None:
    raw = encode_bundle(entries)
    assert entries == decode_bundle(raw, len(entries))
    for bad in [raw + b"\x00", raw + b"\x00\x01", raw[:-1] if raw else b"\x00"]:
        with pytest.raises(TileInvalid):
            decode_bundle(bad, len(entries))
    with pytest.raises(TileInvalid):
        decode_bundle(raw, len(entries) + 1)


def test_bundles_have_limits() -> None:
    assert encode_bundle([bytes(MAX_ENTRY_SIZE)])[:2] == b"\xff\xff"
    for entries in ([bytes(MAX_ENTRY_SIZE + 1)], [b""] * 257):
        with pytest.raises(TileInvalid):
            encode_bundle(entries)


@given(size=st.integers(1, 1500), data=st.data())
def test_proofs_from_tiles_are_those_from_leaves(size: int, data: st.DataObject) -> None:
    hashes = BIG_LEAVES[:size]
    index, first = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size))
    reader = TileReader(published(hashes, size).__getitem__, size)
    assert merkle.root(hashes) == reader.root()
    assert hashes[index] == reader.leaf_hash(index)
    assert merkle.inclusion_proof(hashes, index) == reader.inclusion_proof(index)
    assert merkle.consistency_proof(hashes, first) == reader.consistency_proof(first)


@pytest.mark.parametrize("index", [0, 255, 256, 65_535, 65_536, 69_887, 69_888, BIG - 1])
def test_proofs_from_a_tall_logs_tiles_verify(index: int) -> None:
    reader = TileReader(BIG_TILES.__getitem__, BIG)
    root = merkle.root(BIG_LEAVES)
    merkle.verify_inclusion(BIG_LEAVES[index], index, BIG, reader.inclusion_proof(index), root)
    earlier = merkle.root(BIG_LEAVES[: index + 1])
    merkle.verify_consistency(index + 1, BIG, earlier, root, reader.consistency_proof(index + 1))


def asked(act: Callable[[TileReader], object], size: int) -> set[Tile]:
    paths: set[str] = set()
    tiles = published(BIG_LEAVES[:size], size)

    def read(path: str) -> bytes:
        assert path not in paths, "read twice"
        paths.add(path)
        return tiles[path]

    act(TileReader(read, size))
    return {parse_path(path) for path in paths}


@given(size=st.integers(1, 1500), data=st.data())
def test_the_tiles_a_proof_needs_are_known_beforehand(size: int, data: st.DataObject) -> None:
    index, first = data.draw(st.integers(0, size - 1)), data.draw(st.integers(1, size))
    assert asked(lambda reader: reader.inclusion_proof(index), size) == tiles_for_inclusion(index, size)
    assert asked(lambda reader: reader.consistency_proof(first), size) == tiles_for_consistency(first, size)


def test_a_partial_tile_that_is_gone_is_sought_in_the_full_one() -> None:
    tiles = published(BIG_LEAVES[:600], 300, 600)
    del tiles["tile/0/001.p/44"]
    reader = TileReader(tiles.__getitem__, 300)
    assert merkle.root(BIG_LEAVES[:300]) == reader.root()
    assert merkle.inclusion_proof(BIG_LEAVES[:300], 290) == reader.inclusion_proof(290)
    del tiles["tile/0/001"]
    with pytest.raises(LookupError):
        TileReader(tiles.__getitem__, 300).root()


def test_a_cut_tile_is_refused_and_a_false_one_changes_the_root() -> None:
    tiles = published(BIG_LEAVES[:300], 300)
    good = tiles["tile/0/001.p/44"]
    tiles["tile/0/001.p/44"] = good[:-1]
    with pytest.raises(TileInvalid):
        TileReader(tiles.__getitem__, 300).root()
    with pytest.raises(TileInvalid):
        list(new_tiles(300, BIG_LEAVES[300:301], tiles.__getitem__))
    tiles["tile/0/001.p/44"] = bytes([good[0] ^ 1]) + good[1:]
    assert merkle.root(BIG_LEAVES[:300]) != TileReader(tiles.__getitem__, 300).root()


def test_an_empty_log_has_a_root_and_nothing_else() -> None:
    reader = TileReader(never, 0)
    assert reader.root() == merkle.EMPTY_ROOT
    for act in (reader.leaf_hash, reader.inclusion_proof, reader.consistency_proof):
        with pytest.raises(ValueError, match="no such"):
            act(0)
