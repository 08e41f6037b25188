"""A customer's receipts, as four files."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

from parley.audit.v1 import audit_pb2 as auditpb
from parley.audit.v1.audit_pb2_grpc import AuditServiceStub
from parley_client.receipts import FILES, Receipt
from parley_crypto.tlog.errors import TlogInvalid
from parley_crypto.tlog.policy import parse_sealed_policy
from parley_crypto.tlog.receipt import Opening, verify_receipt
from parley_node.cli.stop import Stop
from parley_node.people import Customer

_LEAST_LETTERS = 4


async def customer_receipt(customer: Customer, given: str, policy: Path, directory: Path) -> None:
    """Fetch, check and save the receipt of an entry of the customer's history. Raises Stop."""
    entry = choose(await customer.history(), given)
    stub = AuditServiceStub(customer.connection.channel)
    proof = await customer.connection.call(stub.GetProof, auditpb.GetProofRequest(commitment=entry.commitment))
    opening = Opening(entry.salt, entry.detail, proof.index, proof.size, tuple(proof.path)).to_bytes()
    files = (await asyncio.to_thread(policy.read_bytes), proof.proof, proof.entry, opening)
    try:
        found = verify_receipt(parse_sealed_policy(files[0]), *files[1:])
    except TlogInvalid as error:
        raise Stop(f"the log's proof doesn't hold: {error}", "`parley doctor` looks at the log.") from error
    await asyncio.to_thread(Receipt(found.index, found.checkpoint, found.detail, files).save, directory)


def choose(entries: Sequence[auditpb.HistoryEntry], given: str) -> auditpb.HistoryEntry:
    """Find an entry by its number or its commitment's first letters. Raises Stop."""
    if given.isdigit() and 1 <= int(given) <= len(entries):
        return entries[int(given) - 1]
    found = [
        entry for entry in entries if len(given) >= _LEAST_LETTERS and entry.commitment.hex().startswith(given.lower())
    ]
    if len(found) != 1:
        raise Stop(f"your history has no one entry {given!r}", "`parley customer history` lists them.")
    return found[0]


def refuse_taken(directory: Path) -> None:
    """Raise Stop where a receipt would be written over another one."""
    if any((directory / name).exists() for name in FILES):
        raise Stop(f"{directory} holds a receipt already", "Choose another folder with --out.")
