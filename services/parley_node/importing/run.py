"""
Importing: accounts opened, items put, accounts completed, claim codes written; in batches, and again where it stopped.

A row is known by its key: importing a file twice, or a file that was interrupted, makes nobody twice. A customer can be matched
only once complete, and only on what they themselves make discoverable.
"""

import csv
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from parley.identity.v1 import identity_pb2 as identitypb
from parley.identity.v1.identity_pb2_grpc import IdentityServiceStub
from parley.vault.v1 import vault_pb2 as vaultpb
from parley.vault.v1.vault_pb2_grpc import VaultServiceStub
from parley_client.connection import Connection
from parley_node.importing.mapping import Row
from parley_terms.values import Catalogue
from parley_terms.wire import attribute_from

_BATCH = 250
_PROVENANCE = {"imported": vaultpb.PROVENANCE_IMPORTED, "observed": vaultpb.PROVENANCE_OBSERVED}


async def catalogue(connection: Connection) -> Catalogue:
    """The attributes that values are checked against."""
    stub = VaultServiceStub(connection.channel)
    answer = await connection.call(stub.ListAttributes, vaultpb.ListAttributesRequest())
    return {one.name: attribute_from(one) for one in answer.attributes}


async def import_customers(
    connection: Connection, name: str, rows: Sequence[Row], done: Callable[[int], None] = lambda _count: None
) -> dict[str, str]:
    """
    Import rows as the importer ``connection`` is signed in as; returns claim codes by row key.

    Whoever has claimed their account since has no code. ``done`` hears how many rows of each batch are through.
    """
    codes: dict[str, str] = {}
    for batch in _batches(rows):
        keys = [row.key for row in batch]
        await _put(connection, name, batch)
        codes |= {key: code for key, code in zip(keys, await _complete(connection, name, keys), strict=True) if code}
        done(len(batch))
    return codes


def write_codes(path: Path, codes: Mapping[str, str]) -> None:
    """Write claim codes by row key as a CSV file that only its owner may read. They are as good as the accounts."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
        os.fchmod(handle, 0o600)  # the file may have been there, for everyone to read
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("row", "claim code"))
        writer.writerows(codes.items())


async def _put(connection: Connection, name: str, batch: Sequence[Row]) -> None:
    identity, vault = IdentityServiceStub(connection.channel), VaultServiceStub(connection.channel)
    request = identitypb.OpenImportedAccountsRequest(row_keys=[row.key for row in batch])
    setattr(request, "import", name)  # a keyword of Python's
    opened = await connection.call(identity.OpenImportedAccounts, request, service="identity")
    entries = [
        _entry(row, account.vault_ref)
        for row, account in zip(batch, opened.accounts, strict=True)
        if not account.complete
    ]
    if entries:
        await connection.call(vault.ImportItems, vaultpb.ImportItemsRequest(entries=entries), service="vault")


async def _complete(connection: Connection, name: str, keys: Sequence[str]) -> Sequence[str]:
    identity = IdentityServiceStub(connection.channel)
    request = identitypb.CompleteImportedAccountsRequest(row_keys=keys)
    setattr(request, "import", name)
    answer = await connection.call(identity.CompleteImportedAccounts, request, service="identity")
    return answer.claim_codes


def _entry(row: Row, vault_ref: bytes) -> vaultpb.ImportEntry:
    items = [
        vaultpb.ImportedItem(attribute=cell.attribute, value=cell.value, provenance=_PROVENANCE[cell.provenance])
        for cell in row.cells
    ]
    return vaultpb.ImportEntry(vault_ref=vault_ref, items=items)


def _batches(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    for start in range(0, len(rows), _BATCH):
        yield rows[start : start + _BATCH]
