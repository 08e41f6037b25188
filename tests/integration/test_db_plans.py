"""Whatever a service asks its database is asked by key: no statement reads a table whole, however many customers there are."""

import re
from collections.abc import AsyncIterator, Mapping
from functools import partial
from importlib.resources import files
from typing import Any

import pytest

from parley_db.database import Database
from parley_db.migrate import migrate
from parley_db.queries import load, parse
from tests.support.servers import FreshDatabase

SERVICES = ("identity", "vault", "consent", "broker", "audit")
WHOLE = re.compile(r"Seq Scan on (\w+)")
CUSTOMERS = 2000
MEANT = {
    ("inbox_purge", "inbox"),  # by age, once a minute: an index would cost every event more than that
    ("audit_progress_set", "audit_progress"),  # one row
}


def statements(package: str) -> Mapping[str, str]:
    """A package's statements that the services run while they serve."""
    found = parse(files(package).joinpath("queries.sql").read_text("utf-8"), package)
    return {name: text for name, text in found.items() if not name.startswith("migration_")}


@pytest.fixture(params=SERVICES)
async def service(request: pytest.FixtureRequest, fresh_database: FreshDatabase) -> AsyncIterator[tuple[str, Database]]:
    """A service's name, and its database."""
    name: str = request.param
    dsn = await fresh_database(name, partial(migrate, package=f"parley_{name}"))
    async with Database.open(dsn, application_name="test") as db:
        yield name, db


async def plan(db: Database, statement: Any) -> list[str]:
    """The tables that a statement's plan reads whole, in a session of the pool's."""
    places = max(map(int, re.findall(r"\$(\d+)", statement)), default=0)
    async with db.tx("test.plan") as tx:
        await tx.execute(f"PREPARE asked AS {statement}")
        values = f"({', '.join(['NULL'] * places)})" if places else ""
        explain: Any = f"EXPLAIN EXECUTE asked{values}"
        lines = [row[0] for row in await tx.fetch(explain)]
        await tx.execute("DEALLOCATE asked")
    return WHOLE.findall("\n".join(lines))


async def test_every_statement_finds_its_rows_by_a_key(service: tuple[str, Database]) -> None:
    name, db = service
    whole = {
        (statement, table)
        for package in ("parley_db", f"parley_{name}")
        for statement, text in statements(package).items()
        for table in await plan(db, text)
    }
    assert set() == whole - MEANT


async def test_what_is_asked_about_few_costs_what_few_cost_however_many_there_are(
    fresh_database: FreshDatabase,
) -> None:
    dsn = await fresh_database("vault", partial(migrate, package="parley_vault"))
    async with Database.open(dsn, application_name="test") as db:
        await db.execute(
            "INSERT INTO subjects (subject, dek, owned, created_at) "
            f"SELECT 's' || n, '', false, now() FROM generate_series(1, {CUSTOMERS}) AS n"
        )
        await db.execute("ANALYZE subjects")
        assert [] == await plan(db, load("parley_vault").items_latest)
