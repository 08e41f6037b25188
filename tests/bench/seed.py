"""Ten thousand customers within seconds: rows as the services themselves would have written them, and with their own keys."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg

from parley.common.v1 import terms_pb2 as termspb
from parley_crypto.keyfiles import read_key
from parley_crypto.keyring import KeyRing
from parley_crypto.signing import Signer
from parley_identity.domain.accounts import Account
from parley_identity.keys import Naming, Seeds
from parley_kit.ids import new_id
from parley_node.home import Home
from parley_node.provision import key_file
from parley_node.stores import Servers
from parley_vault.safe import Place, Safe
from tests.support.world import terms

ATTRIBUTES = ("profile.city", "profile.language", "profile.job", "contact.email", "profile.household_size")
"""What is released: five of each customer's."""

FOUND_BY, FOUND = "profile.age", "34"
_ENTERED, _VERIFIED, _ALLOW = 1, 2, 1
_CITIES, _JOBS = ("Lisbon", "Porto", "Faro", "Braga"), ("technician", "services", "management")


@dataclass(frozen=True)
class Keys:
    """The services' own keys, as they are used to write what they keep."""

    seeds: Seeds
    naming: Naming
    safe: Safe

    @classmethod
    def of(cls, home: Home) -> "Keys":
        """Load them from a home."""

        def ring(zone: str, name: str) -> KeyRing:
            return KeyRing.load(key_file(home, zone, name))

        naming = Naming(
            vault=ring("identity", "ref-vault"),
            consent=ring("identity", "ref-consent"),
            audit=ring("identity", "ref-audit"),
            identity=ring("identity", "ref-identity"),
            candidate=ring("identity", "candidate"),
            host="local",
        )
        seeds = Seeds(ring("identity", "wrap"), read_key(key_file(home, "identity", "pseudonym")))
        return cls(seeds, naming, Safe(ring("vault", "master")))


async def seed(home: Home, pair: Servers, count: int, owner: Signer) -> list[str]:
    """
    Make customers who are found by their age and allow whoever asks for the five attributes, all with one owner's key.

    Answers their names.
    """
    keys = Keys.of(home)
    accounts = [keys.seeds.account(public_key=owner.public_key) for _ in range(count)]
    now = datetime.now(UTC)
    await _write(pair.database_dsn("parley_identity"), {"customers": [_account(each, now) for each in accounts]})
    await _write(pair.database_dsn("parley_vault"), dict(_bank(keys.safe, accounts, now)))
    await _write(pair.database_dsn("parley_consent"), dict(_consent(keys.naming, accounts, now)))
    return [account.name for account in accounts]


def _account(account: Account, now: datetime) -> Mapping[str, Any]:
    row = {name: getattr(account, name) for name in Account.__slots__}
    return {**row, "created_at": now}


def _bank(safe: Safe, accounts: Sequence[Account], now: datetime) -> Iterator[tuple[str, list[Mapping[str, Any]]]]:
    deks = {account.vault_subject: safe.make_dek(account.vault_subject) for account in accounts}
    yield "subjects", [{"subject": name, "dek": dek, "owned": True, "created_at": now} for name, dek in deks.items()]
    yield (
        "items",
        [
            {
                "subject": name,
                "attribute": attribute,
                "version": 1,
                "ciphertext": safe.seal(dek, Place(name, attribute, 1), value),
                "provenance": _ENTERED,
                "created_at": now,
            }
            for number, (name, dek) in enumerate(deks.items())
            for attribute, value in _values(number).items()
        ],
    )
    yield "discoverable", [{"subject": name, "attribute": FOUND_BY, "level": _VERIFIED} for name in deks]


def _values(number: int) -> dict[str, str]:
    return {
        FOUND_BY: FOUND,
        "profile.city": _CITIES[number % len(_CITIES)],
        "profile.language": "pt",
        "profile.job": _JOBS[number % len(_JOBS)],
        "contact.email": f"customer{number}@example.org",
        "profile.household_size": str(number % 5 + 1),
    }


def _consent(
    naming: Naming, accounts: Sequence[Account], now: datetime
) -> Iterator[tuple[str, list[Mapping[str, Any]]]]:
    yield (
        "customers",
        [
            {"customer": account.consent_subject, "revision": 1, "audit_ref": naming.for_audit(account)}
            for account in accounts
        ],
    )
    allowed = rule().SerializeToString(deterministic=True)
    yield (
        "rules",
        [
            {
                "customer": account.consent_subject,
                "rule_id": new_id(),
                "effect": _ALLOW,
                "scope_marketer": "",
                "scope_level": 0,
                "terms": allowed,
                "created_at": now,
            }
            for account in accounts
        ],
    )


def rule() -> termspb.Terms:
    """What each customer allows: the five attributes, and any answer about their age, for a year."""
    return terms(*ATTRIBUTES, FOUND_BY, valid_for=timedelta(days=365), decide_within=None)


async def _write(url: str, tables: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    connection = await asyncpg.connect(url)
    try:
        for table, rows in tables.items():
            columns = list(rows[0])
            records = [tuple(row[column] for column in columns) for row in rows]
            await connection.copy_records_to_table(table, records=records, columns=columns)
            await connection.execute(
                f"ANALYZE {table}"
            )  # and no other: nobody analyses a table that nothing was written to
    finally:
        await connection.close()
