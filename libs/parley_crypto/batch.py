"""
One signature over many: a batch of permits is a Merkle tree (RFC 6962) whose root is signed.

Whoever is given one permit of a batch checks it alone, and sees nothing of the others.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from parley_crypto.signing import SignatureInvalid, Signer, verify
from parley_crypto.tlog.errors import ProofInvalid
from parley_crypto.tlog.merkle import leaf_hash, root_and_proofs, verify_inclusion

_CONTEXT = b"parley/permits/v1\n"


class BatchInvalid(ValueError):
    """The batch isn't signed by the key it names, or the statement isn't in it."""


@dataclass(frozen=True, slots=True)
class Batch:
    """A signed root over ``size`` statements."""

    root: bytes
    size: int
    signature: bytes = field(repr=False)


def sign_batch(signer: Signer, statements: Sequence[bytes]) -> tuple[Batch, list[list[bytes]]]:
    """Sign at least one statement; returns the batch, and each statement's inclusion proof, leaf to root."""
    top, proofs = root_and_proofs([leaf_hash(statement) for statement in statements])
    size = len(proofs)
    return Batch(top, size, signer.sign(_message(top, size))), proofs


def verify_in_batch(public_key: bytes, batch: Batch, statement: bytes, index: int, proof: Sequence[bytes]) -> None:
    """Check that a statement stands at an index of a batch the key signed. Raises BatchInvalid."""
    try:
        _verify_root(public_key, batch.root, batch.size, batch.signature)
        verify_inclusion(leaf_hash(statement), index, batch.size, list(proof), batch.root)
    except (SignatureInvalid, ProofInvalid) as error:
        raise BatchInvalid("not a statement of this batch") from error


@lru_cache(maxsize=256)
def _verify_root(public_key: bytes, top: bytes, size: int, signature: bytes) -> None:
    """Only success is remembered: a batch's other statements needn't pay for the signature again."""
    verify(public_key, _message(top, size), signature)


def _message(top: bytes, size: int) -> bytes:
    return _CONTEXT + size.to_bytes(8, "big") + top
