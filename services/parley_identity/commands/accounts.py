"""Opening, importing and claiming accounts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from parley_crypto.signing import KeyInvalid, check_signing_key
from parley_db.database import Tx
from parley_db.outbox import append
from parley_identity.domain.accounts import Account, Blinder, make_code, print_code, read_code
from parley_identity.events import Publishing
from parley_identity.faults import ClaimCodeInvalid, ImportNotFound, PublicKeyInvalid
from parley_identity.keys import Seeds
from parley_identity.store import Store
from parley_kit.clock import Clock
from parley_kit.offload import each


@dataclass(frozen=True)
class Accounts:
    """What customers and importers do with accounts. ``claim_life`` is how long a claim code is good for."""

    store: Store
    seeds: Seeds
    blinder: Blinder
    publishing: Publishing
    clock: Clock
    claim_life: timedelta

    async def register(self, tx: Tx, public_key: bytes) -> Account:
        """Open an account for the owner of a key. Raises PublicKeyInvalid."""
        _check_key(public_key)
        account = self.seeds.account(public_key=public_key)
        await self.store.open_accounts(tx, [account], self.clock.now())
        await append(tx, [self.publishing.opened(account)])
        return account

    async def claim(self, tx: Tx, typed_code: str, public_key: bytes) -> Account:
        """
        Bind an imported account to its owner's key.

        Raises PublicKeyInvalid, and ClaimCodeInvalid whatever is wrong with the code.
        """
        _check_key(public_key)
        code = read_code(typed_code)
        account = code and await self.store.claim(tx, self.blinder.code(code), public_key, self.clock.now())
        if not account:
            raise ClaimCodeInvalid
        await append(tx, [self.publishing.claimed(account)])
        return account

    async def open_imported(self, importer: str, import_name: str, row_keys: Sequence[str]) -> list[Account]:
        """The accounts of rows of an import, in the order asked; opened where there is none yet."""
        rows = self._rows(importer, import_name, row_keys)

        async def body(tx: Tx) -> Mapping[bytes, Account]:
            known = await self.store.imported(tx, rows)
            missing = [self.seeds.account(import_row=row) for row in dict.fromkeys(rows) if row not in known]
            if not missing:
                return known
            await self.store.open_accounts(tx, missing, self.clock.now())
            return await self.store.imported(tx, rows)

        accounts = await self.store.db.run("identity.OpenImportedAccounts", body)
        return [accounts[row] for row in rows]

    async def complete_imported(self, importer: str, import_name: str, row_keys: Sequence[str]) -> list[str]:
        """
        Complete accounts and make new claim codes: one for each row, in the order asked, empty where it is claimed.

        Raises ImportNotFound where a row was never opened; then nothing is changed.
        """
        rows = self._rows(importer, import_name, row_keys)
        made = {row: make_code() for row in rows}

        async def body(tx: Tx) -> Mapping[bytes, Account]:
            accounts = await self.store.lock_imported(tx, rows)
            if accounts.keys() != set(rows):
                raise ImportNotFound
            hashes = {a.customer: self.blinder.code(made[row]) for row, a in accounts.items() if not a.claimed}
            await self.store.put_codes(tx, hashes, self.clock.now() + self.claim_life)
            await self._complete(tx, [account for account in accounts.values() if not account.complete])
            return accounts

        accounts = await self.store.db.run("identity.CompleteImportedAccounts", body)
        return ["" if accounts[row].claimed else print_code(made[row]) for row in rows]

    async def _complete(self, tx: Tx, accounts: Sequence[Account]) -> None:
        await self.store.complete(tx, accounts)
        await append(tx, await each(self.publishing.opened, accounts))

    def _rows(self, importer: str, import_name: str, row_keys: Sequence[str]) -> list[bytes]:
        return [self.blinder.row(importer, import_name, row_key) for row_key in row_keys]


def _check_key(public_key: bytes) -> None:
    try:
        check_signing_key(public_key)
    except KeyInvalid:
        raise PublicKeyInvalid from None
