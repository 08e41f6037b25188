"""Identity's one store, on Postgres."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from parley_db.database import Database, Tx
from parley_db.queries import load
from parley_identity.domain.accounts import Account
from parley_identity.domain.marketers import KeyUse, Marketer, MarketerKey, Profile
from parley_kit.faultpoints import reach
from parley_terms.terms import Level

_SQL = load("parley_identity")


@dataclass(frozen=True)
class Store:
    """
    Accounts, marketers and introductions.

    Methods that take a ``tx`` are part of it; the others are single statements. Absent rows are None or left out.
    """

    db: Database

    async def open_accounts(self, tx: Tx, accounts: Sequence[Account], at: datetime) -> None:
        """Open accounts; the row of an import that has one already keeps it, and the new one is dropped."""
        columns = zip(*(_account_row(account) for account in accounts), strict=True)
        await tx.execute(_SQL.customers_insert, *map(list, columns), at)

    async def account(self, customer: str) -> Account | None:
        """An account by identity's own id."""
        row = await self.db.fetchrow(_SQL.customer_find, customer)
        return _account(row) if row else None

    async def any_account(self) -> Account | None:
        """Any account, if there is one."""
        row = await self.db.fetchrow(_SQL.customer_any)
        return _account(row) if row else None

    async def imported(self, tx: Tx, rows: Sequence[bytes]) -> Mapping[bytes, Account]:
        """The accounts of rows of an import, by row."""
        return _by_row(await tx.fetch(_SQL.customers_imported, list(rows)))

    async def lock_imported(self, tx: Tx, rows: Sequence[bytes]) -> Mapping[bytes, Account]:
        """The same, locked until the transaction ends: nobody claims or completes them meanwhile."""
        return _by_row(await tx.fetch(_SQL.customers_imported_lock, list(rows)))

    async def complete(self, tx: Tx, accounts: Sequence[Account]) -> None:
        """Mark accounts as complete."""
        await tx.execute(_SQL.customers_complete, [account.customer for account in accounts])

    async def found(self, subjects: Sequence[str], sector: str) -> Mapping[str, tuple[Account, int]]:
        """Complete accounts and their epochs in a sector, by vault's ids for them."""
        rows = await self.db.fetch(_SQL.customers_found, list(subjects), sector)
        return {row["vault_subject"]: (_account(row), row["epoch"]) for row in rows}

    async def put_codes(self, tx: Tx, hashes: Mapping[str, bytes], expires_at: datetime) -> None:
        """Give accounts (by identity's own id) new claim codes, by their hashes; the old ones end."""
        await tx.execute(_SQL.claim_codes_put, list(hashes), list(hashes.values()), expires_at)

    async def claim(self, tx: Tx, code_hash: bytes, public_key: bytes, now: datetime) -> Account | None:
        """
        Give the account that a code opens to the owner of a key, and use up the code. Of any number at once, one succeeds.

        None: the transaction must be undone.
        """
        row = await tx.fetchrow(_SQL.customer_claim, code_hash, public_key, now)
        # The account's lock was waited for: a code that was replaced meanwhile shows only to a later statement.
        used = row and await tx.fetchval(_SQL.claim_code_use, row["customer"], code_hash)
        return _account(row) if used else None

    async def marketer(self, marketer: str) -> Marketer | None:
        """A marketer with all its keys, newest first."""
        return _marketer(await self.db.fetch(_SQL.marketer_find, marketer))

    async def marketer_in(self, tx: Tx, marketer: str) -> Marketer | None:
        """The same, as the transaction sees it."""
        return _marketer(await tx.fetch(_SQL.marketer_find, marketer))

    async def register(self, tx: Tx, marketer: Marketer, at: datetime) -> None:
        """Register a marketer with its keys."""
        about = marketer.profile
        said = (about.display_name, about.legal_entity, marketer.sector, int(about.level), about.contact)
        await tx.execute(_SQL.marketer_insert, marketer.marketer, *said, at)
        for key in marketer.keys:
            await self._add_key(tx, marketer.marketer, key)

    async def update(self, tx: Tx, marketer: str, level: Level | None, suspended: bool | None) -> bool:
        """Change what is given, and lock the marketer; answers whether anything is different now."""
        return bool(await tx.fetchval(_SQL.marketer_update, marketer, level and int(level), suspended))

    async def rotate(self, tx: Tx, marketer: str, key: MarketerKey, older_until: datetime) -> bool:
        """Add a key, and let the older one of its use expire. False: the marketer had it before; undo the transaction."""
        await tx.fetchval(_SQL.marketer_lock, marketer)
        await tx.execute(_SQL.marketer_keys_retire, marketer, int(key.use), older_until)
        return await self._add_key(tx, marketer, key)

    async def _add_key(self, tx: Tx, marketer: str, key: MarketerKey) -> bool:
        row = (marketer, int(key.use), key.key_id, key.public_key)
        return bool(await tx.fetchval(_SQL.marketer_key_insert, *row))

    async def introduce(self, pairs: Sequence[tuple[str, str]], marketer: str, at: datetime) -> None:
        """Note (customer, pseudonym) pairs as introduced to a marketer; who was before, stays as noted."""
        customers, aliases = [customer for customer, _ in pairs], [alias for _, alias in pairs]
        await self.db.execute(_SQL.introductions_insert, customers, aliases, marketer, at)
        await reach("identity.after_introduce")

    async def use_assertion(self, assertion: bytes, forget_at: datetime) -> bool:
        """Use up an assertion, by its hash; False if it was used before. Of any number at once, one succeeds."""
        is_new = bool(await self.db.fetchval(_SQL.assertion_use, assertion, forget_at))
        await reach("identity.after_sign_in")
        return is_new

    async def purge(self, now: datetime) -> None:
        """Forget assertions and claim codes that have expired."""
        await self.db.execute(_SQL.assertions_purge, now)
        await self.db.execute(_SQL.claim_codes_purge, now)


def _account_row(account: Account) -> tuple[Any, ...]:
    ids = (account.customer, account.vault_subject, account.consent_subject, account.audit_subject)
    return (*ids, account.wrapped_seed, account.public_key, account.import_row, account.complete)


def _account(row: Any) -> Account:
    return Account(**{name: row[name] for name in Account.__slots__})


def _by_row(rows: Sequence[Any]) -> dict[bytes, Account]:
    return {row["import_row"]: _account(row) for row in rows}


def _marketer(rows: Sequence[Any]) -> Marketer | None:
    if not rows:
        return None
    first = rows[0]
    profile = Profile(first["display_name"], first["legal_entity"], Level(first["level"]), first["contact"])
    keys = tuple(MarketerKey(r["key_id"], KeyUse(r["use"]), r["public_key"], r["expires_at"]) for r in rows)
    return Marketer(first["marketer"], profile, first["sector"], first["suspended"], keys)
