"""Receipts: that what was delivered is in the audit log, checked against the pinned policy and kept as four files."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from parley.audit.v1 import audit_pb2 as auditpb
from parley_client.deliveries import Delivery, mismatches
from parley_client.errors import ReceiptInvalid
from parley_crypto.tlog import receipt
from parley_crypto.tlog.checkpoint import Checkpoint
from parley_crypto.tlog.errors import TlogInvalid
from parley_crypto.tlog.policy import parse_sealed_policy

FILES = ("policy.txt", "receipt.tlog-proof", "entry.bin", "opening.json")
"""Names of a receipt's files, in the order in which `parley verify` takes them."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """
    Proof that the log of ``checkpoint`` holds, at ``log_index``, an entry that commits to ``detail``.

    ``files`` are the bytes that prove it to anyone who believes the policy, in the order of :data:`FILES`.
    """

    log_index: int
    checkpoint: Checkpoint
    detail: Mapping[str, Any] = field(repr=False)
    files: tuple[bytes, bytes, bytes, bytes] = field(repr=False)

    def save(self, directory: Path) -> tuple[Path, ...]:
        """
        Write the four files into a directory, made if need be, and return their paths for `parley verify`.

        They are for this user alone: what opens the entry tells what happened. Raises FileExistsError where another receipt is.
        """
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        paths = tuple(directory / name for name in FILES)
        if paths[-1].exists() and not _opens_the_same(paths[-1].read_bytes(), self.files[-1]):
            raise FileExistsError(f"{directory} holds another receipt: give each a directory of its own")
        for path, content in zip(paths, self.files, strict=True):
            path.touch(mode=0o600)
            path.chmod(0o600)
            path.write_bytes(content)
        return paths


def _opens_the_same(one: bytes, other: bytes) -> bool:
    try:
        kept, new = receipt.parse_opening(one), receipt.parse_opening(other)
    except TlogInvalid:
        return False
    return (kept.salt, kept.detail) == (new.salt, new.detail)


class Verifier:
    """Checks receipts against one sealed policy. Raises PolicyInvalid."""

    def __init__(self, sealed_policy: bytes) -> None:
        self._text = sealed_policy
        self._policy = parse_sealed_policy(sealed_policy)

    def check(self, delivery: Delivery, proof: auditpb.GetProofResponse) -> Receipt:
        """Check that the log holds what was delivered. Raises ReceiptInvalid, and DeliveryInvalid as opening it does."""
        expected = delivery.said()
        opening = _opening_file(delivery, proof)
        try:
            found = receipt.verify_receipt(self._policy, proof.proof, proof.entry, opening)
        except TlogInvalid as error:
            raise ReceiptInvalid(f"not a valid receipt: {error}") from error
        if wrong := mismatches(found.detail, expected):
            raise ReceiptInvalid(f"the log says otherwise than what was delivered: {', '.join(wrong)}")
        return Receipt(found.index, found.checkpoint, found.detail, (self._text, proof.proof, proof.entry, opening))


def _opening_file(delivery: Delivery, proof: auditpb.GetProofResponse) -> bytes:
    opening = delivery.opening
    try:
        return receipt.Opening(opening.salt, opening.detail, proof.index, proof.size, tuple(proof.path)).to_bytes()
    except (ValueError, AttributeError, RecursionError) as error:
        raise ReceiptInvalid("the delivery's opening is malformed") from error
