"""
What Parley's log entries hold, and how a party opens one.

- detail: a JSON object as canonical bytes (RFC 8785); it never leaves its parties.
- commitment: ``SHA256(salt32 || detail)``. The random salt keeps a guessable detail from being guessed.
- entry: ``0x01 || inner root``, 33 bytes, public. The inner root is RFC 6962's over commitments, each the *entry data* of
  an inner leaf (``SHA256(0x00 || commitment)``), so one leaf of the log serves many and each party proves its own.
- opening: salt, detail, and the path from the commitment to the inner root; as a file, canonical JSON.

An entry tells the world nothing of how many commitments it holds, and neither does an opening tell its party: they are
scattered at random over a tree of one size, and where there is none, a node is random bytes, which nobody can tell from a
hash. What is in an entry may be of many parties, of one, or of nobody.

The entry commits to no inner size either. But an inner path alone fits several sizes (leaf 0 proves alike in trees of 3 and
4), so an opening states the *smallest* tree that its path fits, and any other is refused: no byte of the file is free.
"""

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import rfc8785

from parley_crypto.tlog import merkle
from parley_crypto.tlog.checkpoint import Checkpoint
from parley_crypto.tlog.encoding import MAX_SIZE, from_base64_sized, to_base64
from parley_crypto.tlog.errors import EntryInvalid, OpeningInvalid, ProofInvalid
from parley_crypto.tlog.merkle import HASH_SIZE
from parley_crypto.tlog.policy import Policy
from parley_crypto.tlog.proof import TlogProof, parse_proof

VERSION = 1
SALT_SIZE = 32
ROOM = 8191
"""Commitments in an entry, less than half as many as it has places. Of one with more, paths are longer, which its parties see."""

_random = secrets.SystemRandom()
_ENTRY_PREFIX = bytes([VERSION])
_DEPTH = 14
"""Hashes in a path, to one of 16,384 places."""
_EXACT = 2**53
_KEYS = {"version", "salt", "detail", "index", "size", "proof"}


@dataclass(frozen=True, slots=True)
class Way:
    """The way from one commitment to its entry: a place in a tree of ``size``, and the hashes from there to the root."""

    index: int
    size: int
    path: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Opening:
    """The way from one detail to the entry that commits to it. ``proof`` runs from the inner leaf to the inner root."""

    salt: bytes = field(repr=False)
    detail: bytes = field(repr=False)
    index: int
    size: int
    proof: tuple[bytes, ...]

    def to_bytes(self) -> bytes:
        """Write the opening file: canonical JSON, no newline at its end. Raises ValueError if the detail isn't so."""
        detail = _read_json(self.detail)
        if canonical(detail) != self.detail:
            raise ValueError("the detail is not in canonical form, so a reader would compute another commitment")
        return canonical(
            {
                "version": VERSION,
                "salt": to_base64(self.salt),
                "detail": detail,
                "index": self.index,
                "size": self.size,
                "proof": [to_base64(each) for each in self.proof],
            },
        )

    def verify(self, entry: bytes) -> None:
        """Check that the entry commits to the detail. Raises EntryInvalid or OpeningInvalid."""
        if len(entry) != 1 + HASH_SIZE or not entry.startswith(_ENTRY_PREFIX):
            raise EntryInvalid("the entry is not of this version")
        if self.size != _smallest_size(self.index, self.size):
            raise OpeningInvalid("the opening's index and size don't fit")
        leaf = merkle.leaf_hash(commit(self.salt, self.detail))
        try:
            merkle.verify_inclusion(leaf, self.index, self.size, self.proof, entry[1:])
        except ProofInvalid as error:
            raise OpeningInvalid("the opening doesn't open this entry") from error


@dataclass(frozen=True, slots=True)
class Receipt:
    """What four files prove: the log of ``checkpoint`` holds, at ``index``, an entry that commits to ``detail``."""

    index: int
    checkpoint: Checkpoint
    detail: dict[str, Any] = field(repr=False)


def canonical(value: dict[str, Any]) -> bytes:
    """Write a JSON object in its one canonical form (RFC 8785). Raises ValueError for what has none."""
    try:
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeEncodeError, RecursionError) as error:
        raise ValueError("this object has no canonical form") from error


def commit(salt: bytes, detail: bytes) -> bytes:
    """Commit to a detail's canonical bytes under a random salt of 32 bytes. Raises ValueError for another length."""
    if len(salt) != SALT_SIZE:
        raise ValueError("a salt has 32 bytes")
    return sha256(salt + detail).digest()


def make_entry(commitments: Sequence[bytes]) -> tuple[bytes, list[Way]]:
    """
    Make a log entry for any number of different commitments, and each one's way to it, in their order.

    With none it is an entry that looks like any other and that nobody can open. Raises ValueError for one that isn't 32 bytes.
    """
    if any(len(each) != HASH_SIZE for each in commitments):
        raise ValueError("a commitment has 32 bytes")
    depth = max(_DEPTH, (2 * len(commitments)).bit_length())
    places = _random.sample(range(1 << depth), len(commitments))
    levels = _scattered(dict(zip(places, map(merkle.leaf_hash, commitments), strict=True)), depth)
    (top,) = levels.pop().values()
    return _ENTRY_PREFIX + top, [_way(levels, place) for place in places]


def _scattered(leaves: dict[int, bytes], depth: int) -> list[dict[int, bytes]]:
    """The levels of a tree, from these leaves to the root: of each the nodes above a leaf, and beside one."""
    levels = [leaves]
    for _ in range(depth):
        nodes = levels[-1]
        beside = [index ^ 1 for index in nodes if index ^ 1 not in nodes]
        noise = secrets.token_bytes(HASH_SIZE * len(beside))
        nodes.update((index, noise[at * HASH_SIZE : (at + 1) * HASH_SIZE]) for at, index in enumerate(beside))
        levels.append({at >> 1: merkle.node_hash(nodes[at], nodes[at + 1]) for at in nodes if not at & 1})
    levels[-1] = levels[-1] or {0: secrets.token_bytes(HASH_SIZE)}
    return levels


def _way(levels: Sequence[dict[int, bytes]], place: int) -> Way:
    path = tuple(nodes[place >> level ^ 1] for level, nodes in enumerate(levels))
    return Way(place, _smallest_size(place, 1 << len(levels)), path)


def parse_opening(raw: bytes) -> Opening:
    """
    Read an opening file, refusing all but the canonical spelling of exactly its keys and types.

    Canonical means that writing what was read gives the same bytes, so nothing in the file goes unread: no duplicate or
    unknown key, no white space, no other spelling of a number, a string or base64. Raises OpeningInvalid.
    """
    try:
        return _opening_of(_canonical_object(raw))
    except (ValueError, RecursionError) as error:
        raise OpeningInvalid("the opening file is malformed") from error


def verify_receipt(policy: Policy, proof: bytes, entry: bytes, opening: bytes) -> Receipt:
    """
    Check a receipt whole: the log holds the entry, and the entry commits to the opening's detail.

    Stricter than the formats ask, so that no changed byte passes: a proof with ``extra`` data, which nothing
    authenticates, or with a signature by a key the policy doesn't name is refused. Raises TlogInvalid.
    """
    logged = _parse_bare_proof(proof)
    checkpoint = policy.check_every_line(logged.checkpoint)
    logged.verify_under(checkpoint, entry)
    opened = parse_opening(opening)
    opened.verify(entry)
    return Receipt(logged.index, checkpoint, _read_json(opened.detail))


def _parse_bare_proof(raw: bytes) -> TlogProof:
    proof = parse_proof(raw)
    if proof.extra is not None:
        raise ProofInvalid("a receipt's proof file carries no extra data")
    return proof


def _canonical_object(raw: bytes) -> dict[str, Any]:
    value = _read_json(raw)
    if type(value) is not dict or canonical(value) != raw:
        raise ValueError("not a canonical JSON object")
    return value


def _read_json(raw: bytes) -> Any:
    return json.loads(raw, parse_int=_number)


def _number(digits: str) -> float:
    # RFC 8785 knows doubles alone and writes even large ones without a point: read back as int they would be refused.
    number = float(digits)
    return int(number) if abs(number) < _EXACT else number


def _opening_of(fields: dict[str, Any]) -> Opening:
    if fields.keys() != _KEYS or type(fields["version"]) is not int or fields["version"] != VERSION:
        raise ValueError("not an opening of this version")
    if type(fields["detail"]) is not dict or type(fields["proof"]) is not list:
        raise ValueError("a field is of another type")
    return Opening(
        salt=_hash(fields["salt"]),
        detail=canonical(fields["detail"]),
        index=_count(fields["index"]),
        size=_count(fields["size"]),
        proof=tuple(_hash(each) for each in fields["proof"]),
    )


def _hash(value: object) -> bytes:
    if type(value) is not str:
        raise ValueError("a field is of another type")
    return from_base64_sized(value, HASH_SIZE)


def _count(value: object) -> int:
    if type(value) is not int or not 0 <= value <= MAX_SIZE:
        raise ValueError("a field is of another type")
    return value


def _smallest_size(index: int, size: int) -> int:
    """The smallest tree in which the leaf's path turns as it does in the tree of ``size``."""
    # Paths part at the highest bit in which the leaf and the last leaf differ; the bits below it in the last leaf only
    # say how full the right-hand subtree is, which no path to the left of it shows.
    inner = (index ^ (size - 1)).bit_length()
    return (size - 1 >> inner - 1 << inner - 1) + 1 if inner else size
