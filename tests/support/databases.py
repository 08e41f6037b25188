"""
Databases for tests: each a clone of its service's migrated template, which is made once a run.

A clone is a thousand files made and removed, so a test's is emptied and given to the next that asks for the same.
"""

import asyncio
import itertools
import secrets
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import asyncpg

from parley_node.embedded.databases import ensure_databases, owned_name
from parley_node.embedded.passwords import ensure_pgpass
from tests.support.servers import Pair

Migrate = Callable[[str], Awaitable[object]]


class FreshDatabase(Protocol):
    """The fixture ``fresh_database``."""

    async def __call__(self, service: str, migrate: Migrate | None = None) -> str:
        """Make a database of the test's own, as the migration leaves it, and answer its URL for the service."""


_TABLES = """
SELECT oid::regclass::text FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND relname <> 'schema_migrations'
"""
_SEQUENCES = "SELECT oid::regclass::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'S'"
_SHAPE = """
SELECT array_agg(part ORDER BY part) FROM (
    SELECT concat_ws(' ', attrelid::regclass, attname, atttypid::regtype, attnotnull) AS part
    FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
    WHERE relnamespace = 'public'::regnamespace AND NOT attisdropped
    UNION ALL SELECT pg_get_functiondef(oid) FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND prokind <> 'a'
    UNION ALL SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal
    UNION ALL SELECT conname || ' ' || pg_get_constraintdef(oid) FROM pg_constraint WHERE connamespace = 'public'::regnamespace
    UNION ALL SELECT indexdef FROM pg_indexes WHERE schemaname = 'public'
)
"""
"""Tables, functions, triggers, constraints and indexes."""
_HANG_UP = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""


@dataclass(frozen=True)
class _Template:
    """A migrated database: its shape, and the statements that make any of that shape what it is again."""

    name: str
    shape: list[str] | None = None
    renew: str = ""


class Databases:
    """The databases of a run."""

    def __init__(self, pair: Pair, passwords: Path) -> None:
        self._pair = pair
        self._passwords = passwords
        self._run = secrets.token_hex(4)
        self._numbers = itertools.count(1)
        self._templates: dict[tuple[str, Migrate], _Template] = {}
        self._of: dict[str, _Template] = {}
        self._free: dict[str, list[str]] = defaultdict(list)
        self._making = asyncio.Lock()

    async def create(self, service: str, migrate: Migrate | None) -> str:
        """Make a database owned by the service's role, empty without ``migrate``, and answer its name."""
        template = await self._template(service, migrate)
        if free := self._free[template.name]:
            return free.pop()
        name = await self._clone(template.name, service)
        self._of[name] = template
        return name

    async def give_back(self, *names: str) -> None:
        """Have databases serve again, or drop those whose shape was changed; whoever is still connected is hung up on."""
        for name in names:
            template = self._of[name]
            if template.renew and await self._renewed(name, template):
                self._free[template.name].append(name)
            else:
                await self._drop(name)

    async def close(self) -> None:
        """Drop the templates, and what nobody has."""
        templates = [template.name for template in self._templates.values()]
        await self._drop(*templates, *itertools.chain.from_iterable(self._free.values()))

    def dsn(self, name: str, service: str) -> str:
        """URL of a database for the service's role."""
        return self._pair.postgres_dsn(name, owned_name(service), self._password(service))

    def _password(self, service: str) -> Path:
        path = self._passwords / f"{service}.pass"
        ensure_pgpass(path, owned_name(service))
        return path

    async def _template(self, service: str, migrate: Migrate | None) -> _Template:
        if migrate is None:
            return _Template("template1")
        async with self._making:
            if (service, migrate) not in self._templates:
                name = await self._clone("template1", service)
                await migrate(self.dsn(name, service))
                async with self._connected(name) as database:
                    self._templates[service, migrate] = _Template(
                        name, await _shape(database), await _renewal(database)
                    )
        return self._templates[service, migrate]

    async def _clone(self, template: str, service: str) -> str:
        await ensure_databases(self._pair.admin_dsn, {service: self._password(service)})
        owner = owned_name(service)
        name = f"{owner}_{self._run}_{next(self._numbers)}"
        async with self._connected() as admin:
            await admin.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" OWNER "{owner}"')
            await admin.execute(f'REVOKE ALL ON DATABASE "{name}" FROM PUBLIC')
        return name

    async def _renewed(self, name: str, template: _Template) -> bool:
        async with self._connected(name) as database:
            await database.execute(_HANG_UP)
            if await _shape(database) != template.shape:
                return False
            await database.execute(template.renew)
            return True

    async def _drop(self, *names: str) -> None:
        async with self._connected() as admin:
            for name in names:
                await admin.execute(f'DROP DATABASE "{name}" WITH (FORCE)')

    @asynccontextmanager
    async def _connected(self, name: str | None = None) -> AsyncIterator[asyncpg.Connection]:
        """Be the administrator, of one database if it is named."""
        admin = await asyncpg.connect(self._pair.database_dsn(name) if name else self._pair.admin_dsn)
        try:
            yield admin
        finally:
            await admin.close()


async def _shape(database: asyncpg.Connection) -> list[str]:
    shape: list[str] = await database.fetchval(_SHAPE)
    return shape


async def _renewal(database: asyncpg.Connection) -> str:
    """
    Statements that leave every table with the rows that it has now.

    Rows are deleted: to truncate a table makes new files for it and all its indexes. Nobody's foreign keys or triggers object.
    """
    tables = [row[0] for row in await database.fetch(_TABLES)]
    rows = {table: await database.fetchval(f"SELECT json_agg(one.*) FROM {table} AS one") for table in tables}
    return ";\n".join(
        [
            "SET session_replication_role = replica",
            *(f"DELETE FROM {table}" for table in tables),
            *(_inserted(table, kept) for table, kept in rows.items() if kept),
            *(f"SELECT setval('{row[0]}', 1, false)" for row in await database.fetch(_SEQUENCES)),
        ]
    )


def _inserted(table: str, rows: str) -> str:
    quoted = rows.replace("'", "''")
    return (
        f"INSERT INTO {table} OVERRIDING SYSTEM VALUE SELECT * FROM json_populate_recordset(NULL::{table}, '{quoted}')"
    )
