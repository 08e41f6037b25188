"""Receipts as four files, and a customer's history as rows."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from parley.audit.v1 import audit_pb2 as auditpb
from parley.audit.v1.audit_pb2_grpc import AuditServiceStub
from parley_client.conditions import question_text
from parley_client.receipts import FILES, Receipt
from parley_crypto.tlog.errors import TlogInvalid
from parley_crypto.tlog.policy import parse_sealed_policy
from parley_crypto.tlog.receipt import Opening, verify_receipt
from parley_node.cli import show
from parley_node.cli.stop import Stop
from parley_node.people import Customer
from parley_terms.claims import question_of
from parley_terms.purposes import DPV

_LETTERS = 12
_LEAST_LETTERS = 4


def history_rows(entries: Sequence[auditpb.HistoryEntry], *, whole: bool) -> list[show.Row]:
    """Rows of a history; the numbers count from the newest, 1."""
    return [_row(number, entry, whole=whole) for number, entry in enumerate(entries, start=1)]


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


def _row(number: int, entry: auditpb.HistoryEntry, *, whole: bool) -> show.Row:
    detail = json.loads(entry.detail)
    commitment = entry.commitment.hex()
    return {
        "number": number,
        "time": show.moment(entry.time),
        "what": entry.kind,
        "detail": detail if whole else _detail(detail),
        "log_index": entry.log_index,
        "commitment": commitment if whole else commitment[:_LETTERS],
    }


def _detail(detail: dict[str, Any]) -> str:
    said = {
        name: value for name, value in detail.items() if name not in ("kind", "time") and value not in ("", [], None)
    }
    return "\n".join(f"{name} {detail_text(value)}" for name, value in said.items())


def detail_text(value: Any) -> str:
    """Write a part of a detail for a person."""
    match value:
        case list():
            return ", ".join(map(detail_text, value))
        case {"pii_type": attribute, "form": "answer", "question": dict(asked)}:
            return f"whether {question_text(attribute, question_of(asked))}"
        case {"pii_type": attribute}:
            return str(attribute)
        case dict():
            return " ".join(f"{name} {detail_text(each)}" for name, each in value.items())
    return str(value).removeprefix(DPV)
