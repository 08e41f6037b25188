"""
Importing: accounts opened, items put, accounts completed, claim codes written; in batches, and again where it stopped.

A row is known by its key: importing a file twice, or a file that was interrupted, makes nobody twice. A customer can be matched
only once complete, and only on what they themselves make discoverable.
"""

import csv
import io
import os
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

from parley.identity.v1 import identity_pb2 as identitypb
from parley.identity.v1.identity_pb2_grpc import IdentityServiceStub
from parley.vault.v1 import vault_pb2 as vaultpb
from parley.vault.v1.vault_pb2_grpc import VaultServiceStub
from parley_client.connection import Connection
from parley_kit.files import sync_directory
from parley_node.importing.mapping import Row

_BATCH = 250
_HEADER = ("row", "claim code")
_PROVENANCE = {"imported": vaultpb.PROVENANCE_IMPORTED, "observed": vaultpb.PROVENANCE_OBSERVED}


@dataclass(frozen=True, slots=True)
class Codes:
    """Claim codes by row key; how many of them are of accounts that were complete before, whose earlier codes are void now."""

    made: Mapping[str, str]
    renewed: int


async def import_customers(
    connection: Connection,
    name: str,
    rows: Sequence[Row],
    done: Callable[[int], None] = lambda _count: None,
    *,
    known: Container[str] = (),
    keep: Callable[[Codes], None] = lambda _codes: None,
) -> dict[str, str]:
    """
    Import rows as the importer ``connection`` is signed in as; returns claim codes by row key.

    Whoever has claimed their account since has no code, nor has a complete account whose code is ``known``: it stays good.
    ``done`` hears how many rows of each batch are through; ``keep`` is given each batch's codes as they come, which exist nowhere
    else.
    """
    codes: dict[str, str] = {}
    for batch in _batches(rows):
        complete = await _put(connection, name, batch)
        keys = [row.key for row in batch if row.key not in complete or row.key not in known]
        made = {key: code for key, code in zip(keys, await _complete(connection, name, keys), strict=True) if code}
        keep(Codes(made, len(complete & made.keys())))
        codes |= made
        done(len(batch))
    return codes


class CodesFile:
    """
    Claim codes by row key, in a CSV file that only its owner may read: they are as good as the accounts.

    Codes are added as they come. One that takes another's place is added, too, and the other is gone once the file is closed.
    """

    def __init__(self, path: Path) -> None:
        """Open it, or make it: before anything is imported. Raises OSError, and ValueError where it is another kind of file."""
        self._path, self._codes = path, _read_codes(path)
        self._rewrite()  # without what was cut short

    @property
    def known(self) -> AbstractSet[str]:
        """The keys of those who have a code in the file."""
        return self._codes.keys()

    def keep(self, codes: Codes) -> None:
        """Add codes, and be sure of them."""
        self._codes |= codes.made
        self._lines += len(codes.made)
        _append(self._path, codes.made.items())

    def close(self) -> None:
        """Leave one code for each."""
        if self._lines > len(self._codes):
            self._rewrite()

    def _rewrite(self) -> None:
        aside = self._path.with_name(f".{self._path.name}.new")
        aside.unlink(missing_ok=True)
        _append(aside, [_HEADER, *self._codes.items()])
        aside.replace(self._path)
        sync_directory(self._path.parent)
        self._lines = len(self._codes)


def _append(path: Path, rows: Iterable[tuple[str, str]]) -> None:
    is_new = not path.exists()
    path.touch(0o600)
    with path.open("a", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
        file.flush()
        os.fsync(file.fileno())
    if is_new:
        sync_directory(path.parent)


def _read_codes(path: Path) -> dict[str, str]:
    """The codes of a file, but for a last line that was cut short; none where there is nothing. Raises ValueError."""
    text = path.read_text("utf-8") if path.exists() else ""
    if not text:
        return {}
    try:
        header, *rows = csv.reader(io.StringIO(text[: text.rfind("\n") + 1], newline=""))
        if tuple(header) == _HEADER:
            return {key: code for key, code in rows}  # noqa: C416 - of two columns each
    except (csv.Error, ValueError):
        pass
    raise ValueError(f"{path} holds no claim codes")


async def _put(connection: Connection, name: str, batch: Sequence[Row]) -> AbstractSet[str]:
    """Open accounts and put what is imported; answers the keys of those that were complete before."""
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
    return {row.key for row, account in zip(batch, opened.accounts, strict=True) if account.complete}


async def _complete(connection: Connection, name: str, keys: Sequence[str]) -> Sequence[str]:
    if not keys:
        return []
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
