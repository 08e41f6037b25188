"""Offline proofs that a log holds an entry (c2sp.org/tlog-proof v1, ``.tlog-proof`` files)."""

from dataclasses import dataclass

from parley_crypto.tlog import merkle
from parley_crypto.tlog.checkpoint import Checkpoint
from parley_crypto.tlog.encoding import from_base64, from_base64_sized, from_decimal, to_base64
from parley_crypto.tlog.errors import ProofInvalid
from parley_crypto.tlog.merkle import HASH_SIZE
from parley_crypto.tlog.policy import Policy

MAX_HASHES = 63  # a tree of fewer than 2**63 leaves has no longer path

_HEADER = "c2sp.org/tlog-proof@v1"
_EXTRA = "extra "
_INDEX = "index "


@dataclass(frozen=True, slots=True)
class TlogProof:
    """
    An entry's index, its path to the root, and the signed checkpoint with cosignatures, verbatim.

    ``extra`` is opaque to everyone and authenticated by nothing.
    """

    index: int
    hashes: tuple[bytes, ...]
    checkpoint: bytes
    extra: bytes | None = None

    def to_bytes(self) -> bytes:
        """Write the file."""
        extra = [] if self.extra is None else [f"{_EXTRA}{to_base64(self.extra)}"]
        lines = [_HEADER, *extra, f"{_INDEX}{self.index}", *(to_base64(each) for each in self.hashes), "", ""]
        return "\n".join(lines).encode() + self.checkpoint

    def verify_under(self, checkpoint: Checkpoint, entry: bytes) -> None:
        """Check that the tree of a *verified* checkpoint holds the entry at the index. Raises ProofInvalid."""
        leaf = merkle.leaf_hash(entry)
        merkle.verify_inclusion(leaf, self.index, checkpoint.size, self.hashes, checkpoint.root)


def parse_proof(raw: bytes) -> TlogProof:
    """Read a proof file in its one canonical spelling. Its checkpoint is not looked into. Raises ProofInvalid."""
    head, _, checkpoint = raw.partition(b"\n\n")
    try:
        proof = _parse_head(head.decode("ascii").split("\n"), checkpoint)
    except ValueError as error:
        raise ProofInvalid("the proof file is malformed") from error
    if proof.to_bytes() != raw:
        raise ProofInvalid("the proof file is malformed")
    return proof


def verify(policy: Policy, proof: TlogProof, entry: bytes) -> int:
    """
    Check that a log the policy believes holds the entry, and give its index.

    There is no way to verify under a bare root: an unsigned root proves nothing. Raises TlogInvalid.
    """
    proof.verify_under(policy.check(proof.checkpoint), entry)
    return proof.index


def _parse_head(lines: list[str], checkpoint: bytes) -> TlogProof:
    if lines.pop(0) != _HEADER or not lines:
        raise ValueError("not a proof file")
    extra = from_base64(lines.pop(0).removeprefix(_EXTRA)) if lines[0].startswith(_EXTRA) else None
    if extra == b"" or not lines or not lines[0].startswith(_INDEX) or len(lines) > 1 + MAX_HASHES:
        raise ValueError("not a proof file")
    index = from_decimal(lines[0].removeprefix(_INDEX))
    return TlogProof(index, tuple(from_base64_sized(line, HASH_SIZE) for line in lines[1:]), checkpoint, extra)
