"""Whatever a service asks its database is asked by key: no statement reads a table whole, however many customers there are."""

import re
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from functools import partial
from importlib.resources import files
from typing import Any

import pytest

from parley_bus.relay import MOST_BYTES
from parley_db.database import Database
from parley_db.migrate import migrate
from parley_db.queries import load, parse
from tests.support.databases import FreshDatabase

SERVICES = ("identity", "vault", "consent", "broker", "audit")
WHOLE = re.compile(r"(?:Seq Scan|Scan (?:Backward )?using \w+) on (\w+).*(?!\n *Index Cond)$", re.MULTILINE)
"""A table that is read from one end to the other, be it along an index."""
EMPTIED = ["outbox", "dead_letters", "deliveries", "notices", "claim_codes", "discoverable", "waiting"]
"""Tables that are empty again and again: the planner may have last seen them so."""
CUSTOMERS = 2000
CUSTOMER = "INSERT INTO customers (customer, audit_ref) SELECT 'c' || n, '' FROM generate_series(1, $1::int) AS n"
RULE = """
INSERT INTO rules (customer, rule_id, effect, scope_marketer, scope_level, terms, created_at)
SELECT 'c' || n, 'rule', 1, '', 0, '', now() FROM generate_series(1, $1::int) AS n
"""
SETTLE = """
SELECT refusal FROM settle(
    ARRAY[ROW('exchange', 'm', '', '', '', 1, '', false, now() + interval '1 h', gen_random_uuid(), '', gen_random_uuid(), '')
        ::settle_batch],
    ARRAY(SELECT ROW(1, 'c' || n, 'release', 'consent', 'rule', 0, '', '', '', '', '', '', '', '')::settle_release
        FROM generate_series($1::int, $2) AS n),
    interval '1 h')
"""
EXCHANGE = """
INSERT INTO exchanges (marketer, exchange_id, terms, audience, offer_text, decision_deadline, created_at, matched)
VALUES ('m', 'exchange', '', '', '', now() + interval '1 h', now(), true)
"""
INTRODUCTION = """
INSERT INTO introductions (marketer, pseudonym, consent_ref, vault_ref, audit_ref, identity_ref)
SELECT 'm', 'p' || n, '', '', '', '' FROM generate_series(1, $1::int) AS n
"""
PARTICIPANT = """
INSERT INTO participants (marketer, exchange_id, pseudonym, state, leased_until)
SELECT 'm', 'exchange', 'p' || n, 1, now() FROM generate_series(1, $1::int) AS n
"""
EVENT = """
INSERT INTO outbox (event_id, type, envelope) SELECT gen_random_uuid(), '', '' FROM generate_series(1, $1::int)
"""
READ = "SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0))::int FROM pg_stat_xact_user_tables"
MEANT = {
    ("audit_progress_find", "audit_progress"),  # one row
    ("audit_progress_set", "audit_progress"),  # as above
    ("pulse_dead", "dead_letters"),  # counts them: hardly any
    ("pulse_oldest", "outbox"),  # the first in an index's order
    ("exchange_lease", "exchanges"),  # as above
    ("exchanges_to_sweep", "exchanges"),  # as above, of those that are over and have offers open
    ("discoverable_page", "subjects"),  # what vault reads when it starts is everything
    ("participants_lease", "participants"),  # as above
    ("waiting_take", "waiting"),  # the first in an index's order
    ("waiting_length", "waiting"),  # as above
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


@pytest.mark.parametrize("seen", ["never", "empty"])
async def test_every_statement_finds_its_rows_by_a_key(service: tuple[str, Database], seen: str) -> None:
    name, db = service
    if seen == "empty":
        for table in await db.fetch("SELECT relname FROM pg_class WHERE relname = ANY ($1)", EMPTIED):
            vacuum: Any = f"VACUUM ANALYZE {table['relname']}"
            await db.execute(vacuum)
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
        for query in (load("parley_vault").items_latest, load("parley_vault").items_sealed):
            assert [] == await plan(db, query)


async def test_settling_goes_through_no_table_for_each_release_though_its_plans_were_made_when_there_was_none(
    fresh_database: FreshDatabase,
) -> None:
    dsn = await fresh_database("consent", partial(migrate, package="parley_consent"))
    async with Database.open(dsn, application_name="test", max_size=1) as db:
        await db.execute(CUSTOMER, CUSTOMERS)
        await db.execute(RULE, CUSTOMERS)
        await db.execute("ANALYZE")
        for first in range(1, CUSTOMERS, 100):
            async with db.tx("test.settle") as tx:
                before = await tx.fetchval(READ)
                assert {0} == {row["refusal"] for row in await tx.fetch(SETTLE, first, first + 99)}
                read = await tx.fetchval(READ) - before
            assert read < 100 * 20


async def test_relay_goes_through_what_waits_once_though_its_plans_were_made_when_nothing_did(
    fresh_database: FreshDatabase,
) -> None:
    sql, dsn = load("parley_bus"), await fresh_database("consent", partial(migrate, package="parley_consent"))
    async with Database.open(dsn, application_name="test", max_size=1) as db:
        await db.execute("VACUUM ANALYZE")
        async with db.tx("test.relay") as tx:
            await tx.fetch(sql.relay_step, 100, MOST_BYTES)
        await db.execute(EVENT, CUSTOMERS)
        for _ in range(5):
            async with db.tx("test.relay") as tx:
                before = await tx.fetchval(READ)
                rows = await tx.fetch(sql.relay_step, 100, MOST_BYTES)
                read = await tx.fetchval(READ) - before
                assert 100 == rows[0]["numbered"]
                await tx.execute(sql.relay_advance, rows[-1]["stream_seq"] or 0, 0)
            assert read < 100 * 10


async def test_what_a_campaign_asks_of_a_hundred_reads_a_hundred_however_many_have_been_and_are_to_come(
    fresh_database: FreshDatabase,
) -> None:
    sql, dsn = load("parley_broker"), await fresh_database("broker", partial(migrate, package="parley_broker"))
    async with Database.open(dsn, application_name="test", max_size=1) as db:
        await db.execute(EXCHANGE)
        await db.execute(INTRODUCTION, CUSTOMERS)
        await db.execute(PARTICIPANT, CUSTOMERS)
        await db.execute("ANALYZE")
        assert [] == await plan(db, statements("parley_broker")["participants_finish"])
        for first in range(1, CUSTOMERS, 100):
            names = [f"p{number}" for number in range(first, first + 100)]
            async with db.tx("test.carry") as tx:
                before = await tx.fetchval(READ)
                assert 100 == len(await tx.fetch(sql.participants_states, "m", "exchange", names, None))
                done = [["m"] * 100, ["exchange"] * 100, names, names]
                assert 100 == len(await tx.fetch(sql.participants_finish, *done, datetime.now(UTC)))
                read = await tx.fetchval(READ) - before
            assert read < 100 * 10
