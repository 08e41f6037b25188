"""
Merkle trees over SHA-256: RFC 6962 to build, RFC 9162 to verify.

Hashes are 32 bytes. Proofs run from the leaf's end to the root's. Builders recurse over ranges of leaves and verifiers
iterate over bits, so neither can share the other's mistake.
"""

import struct
from collections.abc import Iterable, Sequence
from hashlib import sha256

from parley_crypto.tlog.errors import ProofInvalid

HASH_SIZE = 32
EMPTY_ROOT = sha256(b"").digest()

Range = tuple[int, int]


def leaf_hash(entry: bytes) -> bytes:
    """Hash a leaf from its entry (RFC 6962 section 2.1)."""
    return sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Hash an inner node from its two children (RFC 6962 section 2.1)."""
    return sha256(b"\x01" + left + right).digest()


def root(leaf_hashes: Sequence[bytes]) -> bytes:
    """Compute the tree's root; that of no leaves is the hash of nothing."""
    return _levels(leaf_hashes)[-1][0] if leaf_hashes else EMPTY_ROOT


def inclusion_proof(leaf_hashes: Sequence[bytes], index: int) -> list[bytes]:
    """Prove the leaf at ``index`` (RFC 6962 section 2.1.1). Raises ValueError where there is none."""
    return [root(leaf_hashes[start:end]) for start, end in inclusion_ranges(index, len(leaf_hashes))]


def inclusion_proofs(leaf_hashes: Sequence[bytes]) -> list[list[bytes]]:
    """Prove every leaf at once: n log n work, where one by one is n squared."""
    return root_and_proofs(leaf_hashes)[1]


def root_and_proofs(leaf_hashes: Sequence[bytes]) -> tuple[bytes, list[list[bytes]]]:
    """Compute the root and prove every leaf: the tree is built once for both."""
    levels = _levels(leaf_hashes) if leaf_hashes else []
    proofs = [
        [
            level[index >> height ^ 1]
            for height, level in enumerate(levels)
            if index >> height ^ 1 < len(level)  # the last node of an odd level moves up without a sibling
        ]
        for index in range(len(leaf_hashes))
    ]
    return levels[-1][0] if levels else EMPTY_ROOT, proofs


def consistency_proof(leaf_hashes: Sequence[bytes], first: int) -> list[bytes]:
    """Prove that the first ``first`` leaves are a prefix (RFC 6962 section 2.1.2). Raises ValueError out of 1..n."""
    return [root(leaf_hashes[start:end]) for start, end in consistency_ranges(first, len(leaf_hashes))]


def inclusion_ranges(index: int, size: int) -> list[Range]:
    """
    The ranges [start, end) of leaves whose roots make up an inclusion proof, in the proof's order.

    Raises ValueError unless 0 <= index < size.
    """
    if not 0 <= index < size:
        raise ValueError("no such leaf")
    ranges = []
    start, end = 0, size
    while end - start > 1:
        split = start + _split(end - start)
        if index < split:
            ranges.append((split, end))
            end = split
        else:
            ranges.append((start, split))
            start = split
    return ranges[::-1]


def consistency_ranges(first: int, size: int) -> list[Range]:
    """
    The ranges [start, end) of leaves whose roots make up a consistency proof, in the proof's order.

    Raises ValueError unless 1 <= first <= size.
    """
    if not 1 <= first <= size:
        raise ValueError("no such earlier tree")
    ranges = []
    start, end = 0, size
    while end != first:
        split = start + _split(end - start)
        if first <= split:
            ranges.append((split, end))
            end = split
        else:
            ranges.append((start, split))
            start = split
    if start > 0:  # otherwise the earlier tree is a subtree here, and the verifier has its root
        ranges.append((start, end))
    return ranges[::-1]


def verify_inclusion(leaf_hash: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Check that the leaf is the one at ``index`` under ``root`` (RFC 9162 section 2.1.3.2). Raises ProofInvalid."""
    _require_hashes([leaf_hash, root, *proof])
    if not 0 <= index < size:
        raise ProofInvalid("the index lies outside the tree")
    node, last, computed = index, size - 1, leaf_hash
    for sibling in proof:
        if last == 0:
            raise ProofInvalid("the inclusion proof is too long")
        if node & 1 or node == last:
            computed = node_hash(sibling, computed)
            node, last = _skip_to_right_child(node, last)
        else:
            computed = node_hash(computed, sibling)
        node, last = node >> 1, last >> 1
    if last != 0:
        raise ProofInvalid("the inclusion proof is too short")
    if computed != root:
        raise ProofInvalid("the inclusion proof leads to another root")


def verify_consistency(size1: int, size2: int, root1: bytes, root2: bytes, proof: Sequence[bytes]) -> None:
    """
    Check that the tree of ``size1`` is a prefix of that of ``size2`` (RFC 9162 section 2.1.4.2). Raises ProofInvalid.

    An empty first tree is refused: anything is consistent with it, so whoever asks has nothing to prove from. Two trees
    of one size need the same root and no proof; their roots are compared and not looked into.
    """
    if not 1 <= size1 <= size2:
        raise ProofInvalid("the sizes of the trees are out of order, or the first is empty")
    if size1 == size2:
        if proof or root1 != root2:
            raise ProofInvalid("trees of one size have two roots, or need no proof")
        return
    _require_hashes([root1, root2, *proof])
    _verify_prefix(size1, size2, root1, root2, proof)


def _verify_prefix(size1: int, size2: int, root1: bytes, root2: bytes, proof: Sequence[bytes]) -> None:
    path = [root1, *proof] if size1.bit_count() == 1 else list(proof)
    if len(path) < (2 if size1.bit_count() == 1 else 1):
        raise ProofInvalid("the consistency proof is too short")
    node, last = size1 - 1, size2 - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    computed1 = computed2 = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise ProofInvalid("the consistency proof is too long")
        if node & 1 or node == last:
            computed1, computed2 = node_hash(sibling, computed1), node_hash(sibling, computed2)
            node, last = _skip_to_right_child(node, last)
        else:
            computed2 = node_hash(computed2, sibling)
        node, last = node >> 1, last >> 1
    if last != 0:
        raise ProofInvalid("the consistency proof is too short")
    if (computed1, computed2) != (root1, root2):
        raise ProofInvalid("the consistency proof leads to other roots")


class Frontier:
    """
    The roots of a tree's complete subtrees, largest first: all that appending and the next root need.

    One per size, at most 64 hashes. Not safe to share between threads.
    """

    def __init__(self, size: int = 0, hashes: Iterable[bytes] = ()) -> None:
        """Start from nothing, or from what another frontier had. Raises ValueError where they don't fit."""
        self.size = size
        self._hashes = list(hashes)
        if size < 0 or len(self._hashes) != size.bit_count() or any(len(each) != HASH_SIZE for each in self._hashes):
            raise ValueError("these hashes are not the frontier of a tree of this size")

    def append(self, leaf_hash: bytes) -> None:
        """Add a leaf by its hash; work is constant on average. Raises ValueError unless it is 32 bytes."""
        if len(leaf_hash) != HASH_SIZE:
            raise ValueError("a leaf hash has 32 bytes")
        hashes, size, node = self._hashes, self.size, leaf_hash
        while size & 1:
            node = sha256(b"\x01" + hashes.pop() + node).digest()
            size >>= 1
        hashes.append(node)
        self.size += 1

    def root(self) -> bytes:
        """Compute the root of the tree so far."""
        if not self._hashes:
            return EMPTY_ROOT
        computed = self._hashes[-1]
        for left in self._hashes[-2::-1]:
            computed = node_hash(left, computed)
        return computed

    def to_bytes(self) -> bytes:
        """Serialise as u64 size, big-endian, then the hashes."""
        return struct.pack(">Q", self.size) + b"".join(self._hashes)

    @classmethod
    def from_bytes(cls, raw: bytes) -> "Frontier":
        """Read what :meth:`to_bytes` wrote. Raises ValueError."""
        if len(raw) < 8:
            raise ValueError("too short for a frontier")
        (size,) = struct.unpack_from(">Q", raw)
        return cls(size, [raw[at : at + HASH_SIZE] for at in range(8, len(raw), HASH_SIZE)])


def _levels(leaf_hashes: Sequence[bytes]) -> list[list[bytes]]:
    # Row by row from the leaves: an odd last node moves up unchanged, which is RFC 6962's split at a power of two.
    levels = [list(leaf_hashes)]
    while len(row := levels[-1]) > 1:
        above = [sha256(b"\x01" + row[at] + row[at + 1]).digest() for at in range(0, len(row) - 1, 2)]
        levels.append(above + row[len(row) & ~1 :])
    return levels


def _split(count: int) -> int:
    """The largest power of two below ``count`` (at least 2)."""
    return 1 << (count - 1).bit_length() - 1


def _skip_to_right_child(node: int, last: int) -> Range:
    # On the right edge a node without a sibling moves up until it is a right child.
    while node and not node & 1:
        node, last = node >> 1, last >> 1
    return node, last


def _require_hashes(hashes: Iterable[bytes]) -> None:
    if any(len(each) != HASH_SIZE for each in hashes):
        raise ProofInvalid("a hash is not 32 bytes")
