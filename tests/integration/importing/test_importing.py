"""Importing customers into a running Parley: again and again, half-way, and beside the accounts' owners."""

import csv
import secrets
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from parley.common.v1 import terms_pb2 as termspb
from parley.vault.v1 import vault_pb2 as vaultpb
from parley_client.connection import Connection
from parley_client.errors import InvalidRequest, ParleyError
from parley_crypto.signing import Signer
from parley_crypto.statements import Token, issue_token
from parley_node import people
from parley_node.cli import importing
from parley_node.cli.stop import Stop
from parley_node.importing import run
from parley_node.importing.mapping import Cell, Row
from parley_node.importing.run import import_customers
from parley_node.provision import key_file
from tests.support.calls import request_id
from tests.support.dumps import database_url
from tests.support.waiting import until
from tests.support.world import Customer, World, between, by_criteria, terms

MAPPING = """
key = "id"
[columns.city]
attribute = "profile.city"
[columns.age]
attribute = "profile.age"
"""


class Interrupted(Exception):
    """The importer's machine went down."""


@pytest.fixture
async def importer(world: World) -> AsyncIterator[Connection]:
    async with people.staff(world.node.running.address, world.home, "importer") as connection:
        yield connection


@pytest.fixture
def name() -> str:
    """An import of the test's own."""
    return f"test-{secrets.token_hex(4)}"


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "_BATCH", 3)


def rows(count: int, city: str = "Rome") -> list[Row]:
    return [Row(f"r{n}", (Cell("profile.city", city), Cell("profile.age", str(20 + n)))) for n in range(count)]


async def fetch(world: World, service: str, sql: str, *values: object) -> list[tuple[object, ...]]:
    connection = await asyncpg.connect(database_url(world, service))
    try:
        return [tuple(row) for row in await connection.fetch(sql, *values)]
    finally:
        await connection.close()


async def counts(world: World) -> tuple[int, int, int, int]:
    """Accounts, complete ones, open claim codes, and versions of items."""
    ((accounts, complete, codes),) = await fetch(
        world,
        "identity",
        "SELECT count(*), count(*) FILTER (WHERE complete), (SELECT count(*) FROM claim_codes) FROM customers",
    )
    ((versions,),) = await fetch(world, "vault", "SELECT count(*) FROM items")
    return int(str(accounts)), int(str(complete)), int(str(codes)), int(str(versions))


async def growth(world: World, before: Sequence[int]) -> tuple[int, ...]:
    return tuple(after - old for after, old in zip(await counts(world), before, strict=True))


async def claim(world: World, code: str) -> Customer:
    """The owner of an imported account, signed in."""
    signer = Signer(secrets.token_bytes(32))
    async with Connection(world.node.running.address) as connection:
        customer = Customer(world.stubs, await people.claim(connection, code, signer), signer)
    await customer.sign_in()
    return customer


async def items(customer: Customer) -> dict[str, vaultpb.Item]:
    answer = await customer.call("vault", "ListItems", vaultpb.ListItemsRequest())
    return {item.attribute: item for item in answer.items}


async def test_imported_customer_claims_their_account_with_all_that_was_imported(
    world: World, importer: Connection, name: str
) -> None:
    observed = Row("r2", (Cell("interest.hiking", "true", "observed"),))
    codes = await import_customers(importer, name, [*rows(2), observed, Row("r3", ())])

    assert ["r0", "r1", "r2", "r3"] == [*codes]
    owned = await items(await claim(world, codes["r1"]))
    assert {"profile.city": "Rome", "profile.age": "21"} == {key: item.value for key, item in owned.items()}
    assert {vaultpb.PROVENANCE_IMPORTED} == {item.provenance for item in owned.values()}
    seen = (await items(await claim(world, codes["r2"])))["interest.hiking"]
    assert ("true", vaultpb.PROVENANCE_OBSERVED) == (seen.value, seen.provenance)
    assert {} == await items(await claim(world, codes["r3"]))


async def test_nothing_imported_is_discoverable(world: World, importer: Connection, name: str) -> None:
    codes = await import_customers(importer, name, rows(1))
    owned = await items(await claim(world, codes["r0"]))

    assert {termspb.VERIFICATION_LEVEL_UNSPECIFIED} == {item.discoverable_to for item in owned.values()}


async def test_row_that_is_imported_twice_is_one_account(world: World, importer: Connection, name: str) -> None:
    before = await counts(world)
    first = await import_customers(importer, name, rows(3))
    second = await import_customers(importer, name, rows(3))

    assert (3, 3, 3, 6) == await growth(world, before)
    assert first.keys() == second.keys()
    assert set() == {*first.values()} & {*second.values()}


async def test_same_key_in_another_import_is_another_account(world: World, importer: Connection, name: str) -> None:
    before = await counts(world)
    for each in (name, f"{name}-other"):
        await import_customers(importer, each, rows(1))

    assert (2, 2, 2, 4) == await growth(world, before)


@pytest.mark.usefixtures("small_batches")
async def test_import_that_was_interrupted_between_batches_goes_on(
    world: World, importer: Connection, name: str
) -> None:
    before = await counts(world)
    through: list[int] = []

    def interrupt(count: int) -> None:
        through.append(count)
        if len(through) == 2:
            raise Interrupted

    with pytest.raises(Interrupted):
        await import_customers(importer, name, rows(8), interrupt)
    assert (6, 6, 6, 12) == await growth(world, before)
    heard: list[int] = []
    codes = await import_customers(importer, name, rows(8), heard.append)

    assert (8, 8, 8, 16) == await growth(world, before)
    assert ([3, 3, 2], 8) == (heard, len(codes))
    assert "21" == (await items(await claim(world, codes["r1"])))["profile.age"].value


async def test_import_that_was_interrupted_within_a_batch_goes_on(
    world: World, importer: Connection, name: str
) -> None:
    before = await counts(world)
    await run._put(importer, name, rows(2))
    assert (2, 0, 0, 4) == await growth(world, before)
    codes = await import_customers(importer, name, rows(3))

    assert (3, 3, 3, 6) == await growth(world, before)
    assert {"profile.city", "profile.age"} == (await items(await claim(world, codes["r0"]))).keys()


async def test_accounts_that_were_opened_and_not_filled_are_filled(
    world: World, importer: Connection, name: str
) -> None:
    await run._put(importer, name, [Row(row.key, ()) for row in rows(2)])
    codes = await import_customers(importer, name, rows(2))

    assert "Rome" == (await items(await claim(world, codes["r1"])))["profile.city"].value


async def test_codes_of_a_repeat_replace_the_old(world: World, importer: Connection, name: str) -> None:
    old = await import_customers(importer, name, rows(1))
    new = await import_customers(importer, name, rows(1))

    with pytest.raises(ParleyError, match="code"):
        await claim(world, old["r0"])
    assert "Rome" == (await items(await claim(world, new["r0"])))["profile.city"].value
    with pytest.raises(ParleyError, match="code"):
        await claim(world, new["r0"])


async def test_import_never_touches_an_account_that_was_claimed(world: World, importer: Connection, name: str) -> None:
    owner = await claim(world, (await import_customers(importer, name, rows(2)))["r0"])
    await owner.put(profile_city="Lisbon")
    await owner.discoverable("profile.city")
    kept = await items(owner)
    before = await counts(world)
    codes = await import_customers(importer, name, rows(2, city="Oslo"))

    assert ["r1"] == [*codes]
    assert (0, 0, 0, 0) == await growth(world, before)
    assert kept == await items(owner)


async def test_nobody_is_introduced_before_the_import_is_complete(
    world: World, importer: Connection, name: str
) -> None:
    """Though the account's item be discoverable: what no owner can do, who holds no code, is done with identity's key."""
    age = "117"
    row = Row("r0", (Cell("profile.age", age), Cell("profile.city", "Rome")))
    await run._put(importer, name, [row])
    ((subject, customer),) = await fetch(
        world,
        "identity",
        "SELECT vault_subject, customer FROM customers WHERE NOT complete ORDER BY created_at DESC LIMIT 1",
    )
    await _show(world, str(subject), "profile.age")
    other, marketer = await world.customer(), await world.marketer()
    await other.put(profile_age=age, profile_city="Rome")
    await other.discoverable("profile.age")

    async def ask() -> None:
        await marketer.ask(by_criteria(terms("profile.city"), between("profile.age", age, age)))

    async def introduced() -> list[tuple[object, ...]]:
        return await fetch(
            world,
            "identity",
            "SELECT customer FROM introductions WHERE marketer = $1",
            marketer.name.removeprefix("marketers/"),
        )

    await ask()
    await other.offer()
    assert [(other.name.removeprefix("customers/"),)] == await introduced()
    (code,) = await run._complete(importer, name, [row.key])
    await ask()

    async def both() -> bool:
        return {(customer,), (other.name.removeprefix("customers/"),)} == {*await introduced()}

    await until(both)
    assert marketer.name == (await (await claim(world, code)).offer()).marketer


async def _show(world: World, subject: str, attribute: str) -> None:
    signer = Signer.load(key_file(world.home, "identity", "signing"))
    token = issue_token(signer, Token("customer", subject), "vault", datetime.now(UTC))
    request = vaultpb.SetDiscoverableRequest(
        name=f"items/{attribute}", discoverable_to=termspb.VERIFICATION_LEVEL_UNVERIFIED, request_id=request_id()
    )
    await world.stubs.vault.SetDiscoverable(request, metadata=(("authorization", f"Bearer {token}"),))


async def test_wrong_name_of_an_import_makes_nobody(world: World, importer: Connection) -> None:
    before = await counts(world)
    with pytest.raises(InvalidRequest):
        await import_customers(importer, "My Import", rows(1))

    assert (0, 0, 0, 0) == await growth(world, before)


def files(folder: Path, name: str, *lines: str) -> tuple[Path, Path, Path]:
    """What the command takes: customers, their mapping, and where codes go."""
    customers, mapping = folder / "customers.csv", folder / "mapping.toml"
    customers.write_text("\n".join(["id,city,age", *lines]) + "\n")
    mapping.write_text(f'import = "{name}"\n{MAPPING}')
    return customers, mapping, folder / "codes.csv"


async def command(world: World, paths: tuple[Path, Path, Path], *, skip: bool = False) -> int:
    count, _made = await importing._import(world.home, world.node.running.address, *paths, skip_bad_lines=skip)
    return count


async def test_command_imports_a_file_and_writes_codes_that_work(world: World, name: str, tmp_path: Path) -> None:
    before = await counts(world)
    paths = files(tmp_path, name, "c1,Rome,042", "c2,,7")

    assert 2 == await command(world, paths)
    assert (2, 2, 2, 3) == await growth(world, before)
    assert 0o600 == paths[2].stat().st_mode & 0o777
    with paths[2].open(newline="") as file:
        written = {row["row"]: row["claim code"] for row in csv.DictReader(file)}
    assert ["c1", "c2"] == [*written]
    assert "42" == (await items(await claim(world, written["c1"])))["profile.age"].value


async def test_bad_lines_are_told_and_nothing_is_imported(
    world: World, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = await counts(world)
    paths = files(tmp_path, name, "c1,Rome,42", "c2,Rome,Zürp-4711", "c3,Rome")

    with pytest.raises(Stop, match=r"2 lines are wrong\n.*Nothing was imported"):
        await command(world, paths)
    said = capsys.readouterr()
    assert "line 3, column age: profile.age is a whole number of years" in said.out
    assert "line 4, column age: the line is too short" in said.out
    assert "Zürp-4711" not in said.out + said.err
    assert (0, 0, 0, 0) == await growth(world, before)
    assert not paths[2].exists()


async def test_good_lines_are_imported_where_bad_ones_are_to_be_skipped(
    world: World, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = await counts(world)
    paths = files(tmp_path, name, "c1,Rome,42", "c2,Rome,old", "c3,Oslo,43")

    assert 2 == await command(world, paths, skip=True)
    assert (2, 2, 2, 4) == await growth(world, before)
    assert "line 3, column age" in capsys.readouterr().out


async def test_many_problems_are_told_by_the_first_of_them(
    world: World, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = files(tmp_path, name, *(f"c{number},Rome,old" for number in range(30)))

    with pytest.raises(Stop, match="30 lines are wrong"):
        await command(world, paths)
    told = capsys.readouterr().out
    assert (20, True) == (told.count("column age"), "... and 10 more" in told)


async def test_wrong_mapping_ends_the_command_before_anything_is_imported(
    world: World, name: str, tmp_path: Path
) -> None:
    before = await counts(world)
    paths = files(tmp_path, name, "c1,Rome,42")
    paths[1].write_text(paths[1].read_text().replace("profile.age", "profile.shoe"))

    with pytest.raises(Stop, match=r"profile\.shoe is not in the catalogue.*\n.*Nothing was imported"):
        await command(world, paths)
    assert (0, 0, 0, 0) == await growth(world, before)


async def test_command_that_is_run_again_goes_on_where_it_stopped_and_voids_no_code(
    world: World, name: str, tmp_path: Path
) -> None:
    before = await counts(world)
    await command(world, files(tmp_path, name, "c1,Rome,42"))
    paths = files(tmp_path, name, "c1,Rome,42", "c2,Rome,43")

    assert 2 == await command(world, paths)
    assert (2, 2, 2, 4) == await growth(world, before)
    header, first, second = paths[2].read_text().splitlines()
    assert ["row", "c1", "c2"] == [line.partition(",")[0] for line in (header, first, second)]
    for line in (first, second):
        assert "Rome" == (await items(await claim(world, line.partition(",")[2])))["profile.city"].value


async def test_codes_that_are_made_anew_are_said_to_void_others(world: World, name: str, tmp_path: Path) -> None:
    paths = files(tmp_path, name, "c1,Rome,42", "c2,Rome,43")
    renewed = []
    for _ in range(3):
        _, made = await importing._import(world.home, world.node.running.address, *paths, skip_bad_lines=False)
        renewed.append(made.renewed)
        if len(renewed) == 2:
            paths[2].unlink()

    assert [0, 0, 2] == renewed


async def test_codes_that_have_ended_are_renewed_when_asked_to(world: World, name: str, tmp_path: Path) -> None:
    paths = files(tmp_path, name, "c1,Rome,42")
    await command(world, paths)
    first = paths[2].read_text()
    address = world.node.running.address
    _, made = await importing._import(world.home, address, *paths, skip_bad_lines=False, renew=True)

    assert (1, ["c1"]) == (made.renewed, list(made.made))
    assert first.replace(first.splitlines()[1], f"c1,{made.made['c1']}") == paths[2].read_text() != first
    assert "Rome" == (await items(await claim(world, made.made["c1"])))["profile.city"].value


async def test_nothing_is_imported_where_codes_have_no_place(world: World, name: str, tmp_path: Path) -> None:
    before = await counts(world)
    customers, mapping, _ = files(tmp_path, name, "c1,Rome,42")

    for nowhere in (tmp_path / "nowhere" / "codes.csv", tmp_path, customers):
        with pytest.raises(Stop, match="Nothing was imported"):
            await command(world, (customers, mapping, nowhere))
    assert (0, 0, 0, 0) == await growth(world, before)


async def test_codes_of_an_import_that_was_interrupted_are_kept(
    world: World, name: str, tmp_path: Path, small_batches: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = files(tmp_path, name, *(f"c{number},Rome,42" for number in range(7)))
    put, batches = run._put, list[int]()

    async def interrupted(*arguments: Any) -> Any:
        batches.append(1)
        if len(batches) == 3:
            raise Interrupted
        return await put(*arguments)

    monkeypatch.setattr(run, "_put", interrupted)
    with pytest.raises(Interrupted):
        await command(world, paths)
    before = paths[2].read_text().splitlines()
    assert 1 + 6 == len(before)
    assert 7 == await command(world, paths)
    assert before == paths[2].read_text().splitlines()[:7]
