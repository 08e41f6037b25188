"""
Migrations: ordered SQL files inside a package, ``migrations/NNNN_name.{pre,post}.sql``.

``pre`` runs before new code and must suit the old code too; ``post`` runs once no old code is left. Each file runs in one
transaction. The tables every service has (outbox and its kin) come first, as the set ``parley_db``.
"""

import hashlib
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Literal, LiteralString, cast

import asyncpg

from parley_db.database import Database, Tx
from parley_db.queries import load

Phase = Literal["pre", "post"]
Checksums = Mapping[tuple[int, Phase], str]
"""What a database remembers of one set: SHA-256, in hex, of each applied file by version and phase."""

SHARED = "parley_db"

_SQL = load("parley_db")
_FILE = re.compile(r"(?P<version>\d{4})_(?P<name>[a-z0-9_]+)\.(?P<phase>pre|post)\.sql")


class MigrationError(Exception):
    """The schema and this code's migrations do not fit together."""


class SchemaBehind(MigrationError):
    """The schema lacks migrations that this code needs; the message names the command that applies them."""


class SchemaAhead(MigrationError):
    """A newer release has ended the schema's support for this code: run that release."""


class MigrationChanged(MigrationError):
    """An applied migration was edited afterwards: restore its file, and put the change in a new one."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file. ``set_name`` is its package."""

    set_name: str
    version: int
    name: str
    phase: Phase
    sql: LiteralString

    @property
    def title(self) -> str:
        """``parley_db/0001_events.pre``."""
        return f"{self.set_name}/{self.version:04}_{self.name}.{self.phase}"

    @property
    def checksum(self) -> str:
        """SHA-256 of the file, in hex."""
        return hashlib.sha256(self.sql.encode()).hexdigest()


async def migrate(dsn: str, package: str, *, phase: Phase | None = None) -> list[str]:
    """
    Apply what is pending, in order, and answer the titles applied.

    ``phase`` limits it to that phase's files. Any number may run at once. Raises MigrationChanged, SchemaAhead, and
    asyncpg's errors with a note that names the file; files applied before that stay.
    """
    async with _connected(dsn) as connection:
        due = [migration for migration in await _pending(connection, package) if phase in {None, migration.phase}]
        return [migration.title for migration in due if await _apply(connection, migration)]


async def plan(dsn: str, package: str) -> list[str]:
    """Answer the titles of what is pending, in order. Raises MigrationChanged and SchemaAhead. Changes nothing."""
    async with _connected(dsn) as connection:
        return [migration.title for migration in await _pending(connection, package)]


def titles(package: str) -> list[str]:
    """The titles of all that there is for a package, in order."""
    return [migration.title for set_name in (SHARED, package) for migration in read(set_name)]


async def check(db: Database, package: str) -> None:
    """
    Refuse a schema that this code can't run on: to be called at start.

    Pending ``post`` files and a newer release's ``pre`` files are fine, so that releases roll over without a stop.
    Raises SchemaBehind, SchemaAhead, MigrationChanged, and Unavailable.
    """
    async with db.tx("migrate.check") as tx:
        behind = [migration.title for migration in await _pending(tx, package) if migration.phase == "pre"]
    if behind:
        command = f"parley migrate {package.removeprefix('parley_')} --phase pre"
        raise SchemaBehind(f"pending: {', '.join(behind)}; run `{command}`")


def read(package: str) -> list[Migration]:
    """A package's migrations in order. Raises ValueError for a misnamed file or a version used twice in a phase."""
    folder = files(package).joinpath("migrations")
    texts = {entry.name: entry.read_text(encoding="utf-8") for entry in folder.iterdir() if entry.is_file()}
    return parse(package, texts)


def parse(package: str, texts: Mapping[str, str]) -> list[Migration]:
    """Order files, given by name, by version and ``pre`` before ``post``. Raises ValueError (see :func:`read`)."""
    found: dict[tuple[int, bool], Migration] = {}
    for filename, text in texts.items():
        migration = _parsed(package, filename, text)
        place = (migration.version, migration.phase == "post")
        if place in found:
            raise ValueError(f"{migration.title} and {found[place].title} share a version")
        found[place] = migration
    return [found[place] for place in sorted(found)]


def pending(wanted: Sequence[Migration], applied: Checksums) -> list[Migration]:
    """Compare one set's files with what its database remembers. Raises MigrationChanged and SchemaAhead."""
    known = {(migration.version, migration.phase) for migration in wanted}
    if ahead := sorted(version for version, phase in applied.keys() - known if phase == "post"):
        raise SchemaAhead(
            f"the schema has version {ahead[-1]:04}.post, which this release does not know: run a newer one"
        )
    for migration in wanted:
        if applied.get((migration.version, migration.phase), migration.checksum) != migration.checksum:
            raise MigrationChanged(f"{migration.title} was edited after it was applied: restore it, and add a new file")
    return [migration for migration in wanted if (migration.version, migration.phase) not in applied]


def _parsed(package: str, filename: str, text: str) -> Migration:
    match = _FILE.fullmatch(filename)
    if not match:
        raise ValueError(f"{package}/migrations/{filename} is not named NNNN_name.pre.sql or NNNN_name.post.sql")
    return Migration(package, int(match["version"]), match["name"], cast("Phase", match["phase"]), text)


@asynccontextmanager
async def _connected(dsn: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(dsn, timeout=10, server_settings={"application_name": "parley migrate"})
    try:
        yield connection
    finally:
        await connection.close(timeout=5)


async def _pending(tx: Tx, package: str) -> list[Migration]:
    sets = dict.fromkeys((SHARED, package))
    return [migration for set_name in sets for migration in pending(read(set_name), await _applied(tx, set_name))]


async def _applied(tx: Tx, set_name: str) -> Checksums:
    if not await tx.fetchval(_SQL.migration_table_exists):
        return {}
    rows = await tx.fetch(_SQL.migration_list, set_name)
    return {(row["version"], row["phase"]): row["checksum"] for row in rows}


async def _apply(connection: Any, migration: Migration) -> bool:
    """Run one file unless somebody else did meanwhile; answer whether this call did."""
    async with connection.transaction():
        # A minute for another migration to end; then five seconds for each table lock, so that a migration that waits
        # behind a long transaction does not make everybody else wait behind it.
        await connection.execute(_SQL.migration_patience, "60s")
        await connection.execute(_SQL.migration_lock)
        await connection.execute(_SQL.migration_patience, "5s")
        await connection.execute(_SQL.migration_table)
        if not pending([migration], await _applied_alone(connection, migration)):
            return False
        await _run(connection, migration)
    return True


async def _applied_alone(tx: Tx, migration: Migration) -> Checksums:
    place = (migration.version, migration.phase)
    return {key: checksum for key, checksum in (await _applied(tx, migration.set_name)).items() if key == place}


async def _run(tx: Tx, migration: Migration) -> None:
    try:
        await tx.execute(migration.sql)
    except asyncpg.PostgresError as error:
        error.add_note(f"while applying {migration.title}")
        raise
    row = (migration.set_name, migration.version, migration.name, migration.phase, migration.checksum)
    await tx.execute(_SQL.migration_insert, *row)
