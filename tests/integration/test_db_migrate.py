import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest

from parley_db.database import Database
from parley_db.migrate import MigrationChanged, SchemaAhead, SchemaBehind, check, migrate, plan, read
from tests.support.databases import FreshDatabase

SHARED = [migration.title for migration in read("parley_db")]


class Package:
    """A package made for one test, whose migrations it can change."""

    def __init__(self, root: Path) -> None:
        self.name = f"parley_test{uuid4().hex}"
        self.migrations = root / self.name / "migrations"
        self.migrations.mkdir(parents=True)
        (root / self.name / "__init__.py").touch()
        self.write("0001_first.pre", "CREATE TABLE a (id int);")
        self.write("0001_first.post", "ALTER TABLE a ADD COLUMN n int NOT NULL;")

    def write(self, title: str, sql: str) -> None:
        (self.migrations / f"{title}.sql").write_text(sql)

    def titles(self, *titles: str) -> list[str]:
        return [f"{self.name}/{title}" for title in titles]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Package]:
    monkeypatch.syspath_prepend(tmp_path)
    made = Package(tmp_path)
    yield made
    sys.modules.pop(made.name, None)


@pytest.fixture
async def dsn(fresh_database: FreshDatabase) -> str:
    return await fresh_database("consent")


async def test_the_shared_tables_come_first_and_each_file_once(dsn: str, package: Package) -> None:
    everything = [*SHARED, *package.titles("0001_first.pre", "0001_first.post")]
    assert await plan(dsn, package.name) == everything
    assert await migrate(dsn, package.name) == everything
    assert await plan(dsn, package.name) == []
    assert await migrate(dsn, package.name) == []


async def test_a_phase_applies_its_own_files_only(dsn: str, package: Package) -> None:
    before = [title for title in SHARED if title.endswith(".pre")]
    after = [title for title in SHARED if title.endswith(".post")]
    assert await migrate(dsn, package.name, phase="pre") == [*before, *package.titles("0001_first.pre")]
    assert await plan(dsn, package.name) == [*after, *package.titles("0001_first.post")]
    assert await migrate(dsn, package.name, phase="post") == [*after, *package.titles("0001_first.post")]


async def test_many_at_once_apply_each_file_once(dsn: str, package: Package) -> None:
    answers = await asyncio.gather(*(migrate(dsn, package.name) for _ in range(5)))
    applied = [title for answer in answers for title in answer]
    assert sorted(applied) == sorted([*SHARED, *package.titles("0001_first.pre", "0001_first.post")])


async def test_an_edited_file_is_refused_before_anything_else_is_applied(dsn: str, package: Package) -> None:
    await migrate(dsn, package.name)
    package.write("0001_first.pre", "CREATE TABLE a (id bigint);")
    package.write("0002_second.pre", "CREATE TABLE b (id int);")
    with pytest.raises(MigrationChanged, match=r"0001_first\.pre"):
        await migrate(dsn, package.name)
    with pytest.raises(MigrationChanged, match=r"0001_first\.pre"):
        await plan(dsn, package.name)


async def test_a_failing_file_leaves_nothing_and_is_named(dsn: str, package: Package) -> None:
    package.write("0002_second.pre", "CREATE TABLE b (id int); SELECT 1 / 0;")
    with pytest.raises(asyncpg.DivisionByZeroError) as failure:
        await migrate(dsn, package.name)
    assert failure.value.__notes__ == [f"while applying {package.name}/0002_second.pre"]
    package.write("0002_second.pre", "CREATE TABLE b (id int);")
    assert await migrate(dsn, package.name) == package.titles("0002_second.pre")


async def test_a_service_starts_between_pre_and_post_and_not_before(dsn: str, package: Package) -> None:
    async with Database.open(dsn, application_name="test") as db:
        with pytest.raises(
            SchemaBehind, match=f"run `parley migrate {package.name.removeprefix('parley_')} --phase pre`"
        ):
            await check(db, package.name)
        await migrate(dsn, package.name, phase="pre")
        await check(db, package.name)
        package.write("0002_second.pre", "CREATE TABLE b (id int);")
        with pytest.raises(SchemaBehind, match=r"0002_second\.pre"):
            await check(db, package.name)


async def test_an_older_release_runs_until_the_newer_one_ends_its_support(dsn: str, package: Package) -> None:
    async with Database.open(dsn, application_name="test") as db:
        package.write("0002_second.pre", "CREATE TABLE b (id int);")
        await migrate(dsn, package.name)
        (package.migrations / "0002_second.pre.sql").unlink()
        await check(db, package.name)
        package.write("0002_second.post", "DROP TABLE a;")
        await migrate(dsn, package.name)
        (package.migrations / "0002_second.post.sql").unlink()
        with pytest.raises(SchemaAhead, match=r"0002\.post"):
            await check(db, package.name)


async def test_a_migration_gives_up_on_a_lock_after_five_seconds(dsn: str, package: Package) -> None:
    await migrate(dsn, package.name)
    package.write("0002_second.pre", "DROP TABLE a;")
    async with Database.open(dsn, application_name="test") as db, db.tx("test.hold") as tx:
        await tx.execute("LOCK TABLE a IN ACCESS SHARE MODE")
        with pytest.raises(asyncpg.LockNotAvailableError):
            await migrate(dsn, package.name)


async def test_every_column_of_the_shared_tables_is_commented(dsn: str) -> None:
    await migrate(dsn, "parley_db")
    async with Database.open(dsn, application_name="test") as db:
        bare = await db.fetch(
            "SELECT attrelid::regclass::text, attname FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid "
            "WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND attnum > 0 "
            "AND relname <> 'schema_migrations' AND col_description(attrelid, attnum) IS NULL"
        )
    assert bare == []
