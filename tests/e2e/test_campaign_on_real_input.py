"""The campaign on real input: it reaches exactly the people that a plain script names, less those whose rules refuse."""

import csv
import os
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import asyncpg
import pytest

from parley_node import people
from parley_node.demo.crowd import Crowd, Member, Temper, standing_terms, together
from parley_node.importing.mapping import Row, read_mapping, read_rows
from parley_node.importing.run import import_customers
from parley_terms.values import Catalogue
from tests.support.canaries import LEAST, none_in_clear
from tests.support.dumps import database_url
from tests.support.servers import scratch_directory
from tests.support.waiting import until
from tests.support.world import MARKETING, World, all_of, between, by_criteria, living_world, one_of, terms

MAPPING = Path(__file__).parents[2] / "examples" / "bank-marketing.toml"
SEED = 363
DATA = os.environ.get("PARLEY_DATA")

pytestmark = [
    pytest.mark.skipif(not DATA, reason="PARLEY_DATA is not set"),
    pytest.mark.timeout(400),
]


def _contacts() -> Path:
    return Path(DATA or "") / "bank-marketing" / "bank-additional.csv"


def _named_by_a_plain_script() -> set[str]:
    with _contacts().open(newline="") as file:
        return {
            str(number)
            for number, row in enumerate(csv.DictReader(file), start=1)
            if 30 <= int(row["age"]) <= 45 and row["job"] == "technician" and row["loan"] == "no"
        }


@pytest.fixture
async def bank() -> AsyncIterator[World]:
    with scratch_directory() as root:
        async with living_world(root / "home") as living:
            yield living
            await none_in_clear(living, _telling(await _catalogue(living)))


def _telling(names: Catalogue) -> set[str]:
    """Values of the contacts that nobody's question names, and that are long enough to be found by no accident."""
    values = {cell.value for row in _rows(names) for cell in row.cells if len(cell.value) >= LEAST}
    assert {"university-degree", "blue-collar"} < values
    return values - {"technician"}


async def _import(world: World, wanted: Callable[[str], bool]) -> dict[str, str]:
    async with people.staff(world.node.running.address, world.home, "importer") as importer:
        mapping = read_mapping(MAPPING)
        rows, problems = read_rows(_contacts(), mapping, await people.catalogue(importer))
        assert [] == problems
        assert 4119 == len(rows)
        some = [row for row in rows if wanted(row.key)]
        interrupted = some[: len(some) // 2]
        await import_customers(importer, mapping.name, interrupted)  # the rest comes with the second run
        codes = await import_customers(importer, mapping.name, some)
        assert {row.key for row in some} == codes.keys()
        return codes


@pytest.mark.parametrize(
    ("of_named", "of_others", "of_all"), [(4, 48, 12), pytest.param(1, 1, 1, marks=pytest.mark.slow)]
)
async def test_campaign_reaches_exactly_the_people_a_plain_script_names(
    bank: World, of_named: int, of_others: int, of_all: int
) -> None:
    """Whom the script doesn't name is there, too: of each kind one in so many claims their account, of all that are imported."""
    named = _named_by_a_plain_script()
    assert 363 == len(named)

    def claims(row: str) -> bool:
        return 0 == int(row) % (of_named if row in named else of_others)

    codes = await _import(bank, lambda row: claims(row) or 0 == int(row) % of_all)
    there = {row: code for row, code in codes.items() if claims(row)}
    named &= there.keys()
    crowd = Crowd(bank.node.running.address, bank.stubs.channel)
    members = await crowd.claim(there, SEED, lambda: None)
    asked = ["profile.age", "profile.job", "finance.personal_loan"]
    allowed = standing_terms([MARKETING], ["profile.education", "profile.marital_status", *asked])
    members = [_with(member, _temper(member.row)) for member in members]
    await crowd.settle_in(members, asked, allowed, lambda: None)
    marketer = await bank.marketer()
    request = by_criteria(
        terms("profile.education", "profile.marital_status"),
        all_of(
            between("profile.age", "30", "45"),
            one_of("profile.job", "technician"),
            one_of("finance.personal_loan", "false"),
        ),
    )
    made = await marketer.ask(request)
    await until(lambda: _is_quiet(bank, made.exchange.name), seconds=60)

    reached = await _reached(crowd, members)
    refusing = {member.row for member in members if member.temper is Temper.REFUSES}
    assert named - refusing == set(reached)
    assert refusing & named  # the difference is not empty: the comparison could fail

    accepting = [member for member in members if member.row in reached][:40]
    pseudonyms = await together(_accept(crowd, member, reached[member.row]) for member in accepting)
    deliveries = await marketer.collect(len(accepting))
    released = {one.release.pseudonym: bank.opened(marketer, one)["fields"] for one in deliveries}
    rows = {row.key: row for row in _rows(await _catalogue(bank))}
    for member, pseudonym in zip(accepting, pseudonyms, strict=True):
        assert _expected(rows[member.row]) == {
            one["attribute"]: one["value"] for one in released[pseudonym] if "value" in one
        }


def _temper(row: str) -> Temper:
    return Temper.REFUSES if random.Random(f"{SEED}:{row}").random() < 0.12 else Temper.LEAVES


def _with(member: Member, temper: Temper) -> Member:
    return Member(member.row, member.name, member.signer, temper)


async def _is_quiet(world: World, exchange: str) -> bool:
    """Everybody was found and decided: read where the broker keeps it, since nobody is told how many there are."""
    connection = await asyncpg.connect(database_url(world, "broker"))
    try:
        return bool(
            await connection.fetchval(
                "SELECT matched AND NOT EXISTS (SELECT 1 FROM participants AS p WHERE p.exchange_id = e.exchange_id"
                " AND p.state IN (1, 3, 4)) FROM exchanges AS e WHERE exchange_id = $1",
                exchange.rpartition("/")[2],
            )
        )
    finally:
        await connection.close()


async def _reached(crowd: Crowd, members: list[Member]) -> dict[str, str]:
    """Who found an offer in their inbox, by row."""
    found: dict[str, str] = {}

    async def look(member: Member) -> None:
        async with people.customer(crowd.address, member.name, member.signer, crowd.channel) as customer:
            for offer in await customer.offers():
                found[member.row] = offer.name

    await together(look(member) for member in members)
    return found


async def _accept(crowd: Crowd, member: Member, offer: str) -> str:
    async with people.customer(crowd.address, member.name, member.signer, crowd.channel) as customer:
        return (await customer.accept(offer)).consent.pseudonym


async def _catalogue(world: World) -> Catalogue:
    async with people.staff(world.node.running.address, world.home, "importer") as importer:
        return await people.catalogue(importer)


def _rows(names: Catalogue) -> list[Row]:
    return read_rows(_contacts(), read_mapping(MAPPING), names)[0]


def _expected(row: Row) -> dict[str, str]:
    wanted = {"profile.education", "profile.marital_status"}
    return {cell.attribute: cell.value for cell in row.cells if cell.attribute in wanted}
