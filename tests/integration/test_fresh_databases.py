"""What each test may count on: a database as its migration leaves it, whoever had it before."""

from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from tests.support.databases import Databases, FreshDatabase
from tests.support.servers import Pair

SCHEMA = """
CREATE TABLE kept (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, word text);
CREATE TABLE first (id bigint GENERATED ALWAYS AS IDENTITY, at timestamptz, raw bytea, kept bigint REFERENCES kept);
CREATE TABLE schema_migrations (name text);
INSERT INTO first (at, raw) VALUES ('2026-01-02 03:04:05.678901Z', '\\x000127');
INSERT INTO schema_migrations VALUES ('all');
"""
ALL = "SELECT (SELECT count(*) FROM kept), (SELECT array_agg(first::text) FROM first), (SELECT count(*) FROM schema_migrations)"


async def schema(dsn: str) -> None:
    """A migration."""
    await told(dsn, SCHEMA)


async def told(dsn: str, *statements: str) -> None:
    """Run statements, and hang up."""
    connection = await asyncpg.connect(dsn)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def found(dsn: str, query: str = ALL) -> list[Any]:
    """The one row of a query."""
    connection = await asyncpg.connect(dsn)
    try:
        return list(await connection.fetchrow(query))
    finally:
        await connection.close()


@pytest.fixture
async def own(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Databases]:
    """Databases that nobody else has had."""
    databases = Databases(pair, tmp_path_factory.mktemp("passwords"))
    yield databases
    await databases.close()


async def test_two_share_nothing_and_are_migrated_once(fresh_database: FreshDatabase) -> None:
    migrated: list[str] = []

    async def migrate(dsn: str) -> None:
        migrated.append(dsn)
        await told(dsn, SCHEMA)

    first, second = await fresh_database("consent", migrate), await fresh_database("consent", migrate)
    await told(first, "INSERT INTO kept (word) VALUES ('here')")
    assert ((await found(first))[0], (await found(second))[0]) == (1, 0)
    assert len(migrated) == 1


async def test_one_without_migration_is_empty(fresh_database: FreshDatabase) -> None:
    dsn = await fresh_database("consent")
    assert await found(dsn, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [0]


async def test_one_that_serves_again_is_what_the_migration_left(own: Databases) -> None:
    name = await own.create("consent", schema)
    dsn = own.dsn(name, "consent")
    fresh = await found(dsn)
    await told(
        dsn,
        "INSERT INTO kept (word) VALUES ('gone'), ('too')",
        "INSERT INTO first (kept) VALUES (1), (2)",
        "UPDATE first SET raw = NULL WHERE id = 1",
    )
    left_behind = await asyncpg.connect(dsn)
    await left_behind.execute("BEGIN; LOCK TABLE kept")

    await own.give_back(name)
    assert await own.create("consent", schema) == name
    assert await found(dsn) == fresh
    assert fresh[1] == ['(1,"2026-01-02 03:04:05.678901+00","\\\\x000127",)']
    assert await found(dsn, "INSERT INTO kept (word) VALUES ('first') RETURNING id") == [1]
    with pytest.raises((asyncpg.PostgresConnectionError, asyncpg.InterfaceError)):
        await left_behind.execute("COMMIT")
    await own.give_back(name)


@pytest.mark.parametrize(
    "change",
    [
        "CREATE TABLE more ()",
        "ALTER TABLE kept DROP COLUMN word",
        "ALTER TABLE kept RENAME TO mislaid",
        "DROP INDEX by_word",
        "CREATE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "ALTER TABLE kept ADD CHECK (word <> '')",
    ],
)
async def test_one_whose_shape_was_changed_serves_nobody_again(own: Databases, change: str) -> None:
    async def indexed(dsn: str) -> None:
        await told(dsn, SCHEMA, "CREATE INDEX by_word ON kept (word)")

    name = await own.create("consent", indexed)
    await told(own.dsn(name, "consent"), change)
    await own.give_back(name)
    another = await own.create("consent", indexed)
    assert another != name
    await own.give_back(another)
