import base64
import json
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import witness_log
from hypothesis import given
from hypothesis import strategies as st

from parley_crypto.tlog import merkle
from parley_crypto.tlog.errors import ProofInvalid
from tests.unit.tlog.makers import flips, leaves, slow_root

# The leaf inputs and roots that certificate transparency implementations share.
INPUTS = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
ROOTS = [
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


@pytest.mark.parametrize("size", range(9))
def test_known_roots_are_reproduced_directly_and_by_appending(size: int) -> None:
    hashes = [merkle.leaf_hash(bytes.fromhex(each)) for each in INPUTS[:size]]
    frontier = merkle.Frontier()
    for each in hashes:
        frontier.append(each)
    assert ROOTS[size] == merkle.root(hashes).hex() == frontier.root().hex()


@pytest.mark.parametrize("size", [*range(70), 255, 256, 257, 1000])
def test_roots_follow_the_definition(size: int) -> None:
    assert slow_root(leaves(size)) == merkle.root(leaves(size))


@pytest.mark.parametrize("size", [*range(1, 34), 63, 64, 65, 100])
def test_every_leaf_of_a_tree_proves_its_inclusion(size: int) -> None:
    hashes = leaves(size)
    for index, proof in enumerate(merkle.inclusion_proofs(hashes)):
        assert merkle.inclusion_proof(hashes, index) == proof
        merkle.verify_inclusion(hashes[index], index, size, proof, merkle.root(hashes))


@pytest.mark.parametrize("size", range(1, 40))
def test_every_prefix_of_a_tree_proves_its_consistency(size: int) -> None:
    hashes = leaves(size)
    for first in range(1, size + 1):
        proof = merkle.consistency_proof(hashes, first)
        merkle.verify_consistency(first, size, merkle.root(hashes[:first]), merkle.root(hashes), proof)


def test_another_verifier_accepts_our_inclusion_proofs_and_refuses_altered_ones() -> None:
    for size in [1, 2, 3, 7, 8, 9, 31, 64, 100, 129, 200, 255, 256, 257, 299, 300]:
        hashes, root = leaves(size), merkle.root(leaves(size)).hex()
        for index in {*range(0, size, max(1, size // 9)), size - 1}:
            proof = [each.hex() for each in merkle.inclusion_proof(hashes, index)]
            assert witness_log.verify_inclusion(hashes[index].hex(), index, size, proof, root)
            assert not witness_log.verify_inclusion(hashes[index].hex(), index, size, [*proof, root], root)


@given(size=st.integers(1, 300), data=st.data())
def test_one_turned_bit_of_an_inclusion_proof_is_refused(size: int, data: st.DataObject) -> None:
    hashes = leaves(size)
    index = data.draw(st.integers(0, size - 1))
    good = [hashes[index], merkle.root(hashes), *merkle.inclusion_proof(hashes, index)]
    place = data.draw(st.integers(0, len(good) - 1))
    for bad in flips(good[place]):
        parts = [*good[:place], bad, *good[place + 1 :]]
        with pytest.raises(ProofInvalid):
            merkle.verify_inclusion(parts[0], index, size, parts[2:], parts[1])


@given(size=st.integers(2, 300), data=st.data())
def test_one_turned_bit_of_a_consistency_proof_is_refused(size: int, data: st.DataObject) -> None:
    hashes = leaves(size)
    first = data.draw(st.integers(1, size))
    good = [merkle.root(hashes[:first]), merkle.root(hashes), *merkle.consistency_proof(hashes, first)]
    place = data.draw(st.integers(0, len(good) - 1))
    for bad in flips(good[place]):
        parts = [*good[:place], bad, *good[place + 1 :]]
        with pytest.raises(ProofInvalid):
            merkle.verify_consistency(first, size, parts[0], parts[1], parts[2:])


@given(size=st.integers(2, 200), data=st.data())
def test_an_inclusion_proof_serves_one_index_and_no_longer_or_shorter_path(size: int, data: st.DataObject) -> None:
    hashes, root = leaves(size), merkle.root(leaves(size))
    index, other = data.draw(st.lists(st.integers(0, size - 1), min_size=2, max_size=2, unique=True))
    proof = merkle.inclusion_proof(hashes, index)
    bad = [(other, proof), (index, proof[:-1]), (index, [*proof, root]), (size, proof), (-1, proof)]
    for claimed, path in bad:
        with pytest.raises(ProofInvalid):
            merkle.verify_inclusion(hashes[index], claimed, size, path, root)


@given(size=st.integers(2, 200), data=st.data())
def test_a_consistency_proof_is_neither_longer_nor_shorter(size: int, data: st.DataObject) -> None:
    hashes, root = leaves(size), merkle.root(leaves(size))
    first = data.draw(st.integers(1, size - 1))
    proof = merkle.consistency_proof(hashes, first)
    for path in [[], proof[:-1], [*proof, root]]:
        with pytest.raises(ProofInvalid):
            merkle.verify_consistency(first, size, merkle.root(hashes[:first]), root, path)


def test_nothing_is_consistent_with_the_empty_tree_or_a_smaller_one() -> None:
    root = merkle.root(leaves(3))
    for size1, size2, root1 in [(0, 3, merkle.EMPTY_ROOT), (0, 0, merkle.EMPTY_ROOT), (4, 3, root), (-1, 3, root)]:
        with pytest.raises(ProofInvalid):
            merkle.verify_consistency(size1, size2, root1, root, [])


def test_hashes_of_another_length_are_refused() -> None:
    with pytest.raises(ProofInvalid):
        merkle.verify_inclusion(b"\x00" * 31, 0, 1, [], b"\x00" * 31)
    with pytest.raises(ProofInvalid):
        merkle.verify_consistency(1, 2, b"\x00" * 33, b"\x00" * 32, [b"\x00" * 32])
    with pytest.raises(ValueError, match="32 bytes"):
        merkle.Frontier().append(b"\x00" * 31)


def test_a_root_and_its_sibling_cut_elsewhere_are_refused() -> None:
    left, right = leaves(2)
    root = merkle.node_hash(left, right)
    joined = left + right
    with pytest.raises(ProofInvalid):
        merkle.verify_consistency(1, 2, joined[:33], root, [joined[33:]])
    with pytest.raises(ProofInvalid):
        merkle.verify_inclusion(joined[:33], 0, 2, [joined[33:]], root)


def test_proofs_about_what_is_not_in_the_tree_are_not_made() -> None:
    for index in (-1, 3):
        with pytest.raises(ValueError, match="no such leaf"):
            merkle.inclusion_proof(leaves(3), index)
    for first in (0, 4):
        with pytest.raises(ValueError, match="no such earlier tree"):
            merkle.consistency_proof(leaves(3), first)
    assert merkle.inclusion_proofs([]) == []


@given(cuts=st.lists(st.integers(0, 60), max_size=5))
def test_frontier_survives_being_stored_anywhere(cuts: list[int]) -> None:
    hashes = leaves(sum(cuts))
    frontier = merkle.Frontier()
    starts = [sum(cuts[:n]) for n in range(len(cuts) + 1)]
    for start, end in pairwise(starts):
        frontier = merkle.Frontier.from_bytes(frontier.to_bytes())
        for each in hashes[start:end]:
            frontier.append(each)
        assert (end, merkle.root(hashes[:end])) == (frontier.size, frontier.root())


def test_stored_frontiers_that_fit_no_size_are_refused() -> None:
    frontier = merkle.Frontier()
    for each in leaves(5):
        frontier.append(each)
    raw = frontier.to_bytes()
    for bad in [b"", raw[:-1], raw + b"\x00", raw[:-32], raw + raw[-32:], b"\x00" * 7 + b"\x07" + raw[8:]]:
        with pytest.raises(ValueError, match="frontier"):
            merkle.Frontier.from_bytes(bad)


def vectors(name: str) -> list[dict[str, Any]]:
    if not (folder := os.environ.get("PARLEY_VECTORS")):
        pytest.skip("PARLEY_VECTORS is not set")
    lines = (Path(folder) / "merkle" / f"{name}.jsonl").read_text().splitlines()
    cases = [json.loads(line) for line in lines]
    assert len(cases) == 98
    return cases


def refused(verify: Any, *arguments: Any) -> bool:
    try:
        verify(*arguments)
    except ProofInvalid:
        return True
    return False


def unpack(case: dict[str, Any], *names: str) -> list[bytes]:
    return [base64.b64decode(case[name]) for name in names]


def test_published_inclusion_vectors_are_answered() -> None:
    for case in vectors("inclusion"):
        leaf, root = unpack(case, "leafHash", "root")
        proof = [base64.b64decode(each) for each in case["proof"] or []]
        answer = refused(merkle.verify_inclusion, leaf, case["leafIdx"], case["treeSize"], proof, root)
        assert case["wantErr"] == answer, case["case"]


def test_published_consistency_vectors_are_answered() -> None:
    for case in vectors("consistency"):
        root1, root2 = unpack(case, "root1", "root2")
        proof = [base64.b64decode(each) for each in case["proof"] or []]
        answer = refused(merkle.verify_consistency, case["size1"], case["size2"], root1, root2, proof)
        assert case["wantErr"] == answer, case["case"]
