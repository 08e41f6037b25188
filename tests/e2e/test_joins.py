"""
G4 and G5: nothing that Parley adds joins a customer's pseudonyms, and copies of databases name nobody without identity's.

Two marketers ask the same 200 customers at the same time, and pool everything they got but the values.
"""

import asyncio
import base64
import hashlib
import secrets
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import asyncpg
import grpc
import pytest

from parley.audit.v1 import audit_pb2 as auditpb
from parley.broker.v1 import broker_pb2 as brokerpb
from parley.identity.v1 import identity_pb2 as identitypb
from parley_crypto.tlog.proof import parse_proof
from tests.support.canaries import hits
from tests.support.chaos import each, population
from tests.support.dumps import Dump, Piece, database_url, dump_databases, dump_valkey, pieces_of, quiet
from tests.support.joins import Known, Pairs, by_bytes, by_number, renamed, right, texts
from tests.support.world import Customer, Marketer, World, between, by_criteria, terms

PEOPLE = 200
CHANCE = 10
"""Right guesses that chance explains: one is to be expected, and more than ten come once in 10^8 attacks (Poisson)."""

CITIES = ("Lisbon", "Porto", "Faro", "Braga")
SIZES = ("place", "time", "size", "artefact size", "log index", "inner index", "path")


@dataclass(frozen=True)
class Got:
    """One delivery, when and where in the feed it came, and its proof from the log."""

    place: int
    time: float
    delivery: brokerpb.Delivery
    proof: auditpb.GetProofResponse


@dataclass(frozen=True)
class Crowd:
    """Two marketers who asked everyone, what each got, and who is who."""

    people: Sequence[Customer]
    marketers: tuple[Marketer, Marketer]
    got: tuple[Sequence[Got], Sequence[Got]]
    truth: Pairs
    dump: Dump
    streams: Sequence[Piece]
    claim_codes: Sequence[str]


@pytest.fixture(scope="module")
async def crowd(world: World) -> Crowd:
    """The population, and both campaigns over it. Nothing is acknowledged, so that all copies are as full as they get."""
    items = [{"profile.age": str(111 + n % 4), "profile.city": CITIES[n % 3]} for n in range(PEOPLE)]
    people = await population(world, items, "profile.age")
    marketers = (await world.marketer(), await world.marketer())
    request = by_criteria(terms("profile.city"), between("profile.age", "111", "114"))
    await asyncio.gather(*(one.ask(_again(request)) for one in marketers))
    got = await asyncio.gather(*(_receive(world, one) for one in marketers))
    codes = await _imported(world)
    await quiet(world)
    return Crowd(
        people=people,
        marketers=marketers,
        got=(got[0], got[1]),
        truth=await _truth(world, marketers),
        dump=await dump_databases(world),
        streams=await dump_valkey(world),
        claim_codes=codes,
    )


def _again(request: brokerpb.CreateExchangeRequest) -> brokerpb.CreateExchangeRequest:
    copy = brokerpb.CreateExchangeRequest()
    copy.CopyFrom(request)
    copy.request_id = f"{secrets.token_hex(4)}-0000-4000-8000-{secrets.token_hex(6)}"
    return copy


async def _receive(world: World, marketer: Marketer) -> list[Got]:
    seen: list[tuple[float, brokerpb.Delivery]] = []
    async with asyncio.timeout(60), marketer.feed() as feed:
        async for delivery in feed:
            seen.append((time.monotonic(), delivery))
            if len(seen) == PEOPLE:
                break
    proofs = await each(lambda one: _proof(world, one[1]), seen)
    return [Got(place, *one, proof) for place, (one, proof) in enumerate(zip(seen, proofs, strict=True))]


async def _proof(world: World, delivery: brokerpb.Delivery) -> auditpb.GetProofResponse:
    opening = delivery.release.opening
    request = auditpb.GetProofRequest(commitment=hashlib.sha256(opening.salt + opening.detail).digest())
    async with asyncio.timeout(30):
        while True:
            with suppress(grpc.aio.AioRpcError):  # it is in the log within seconds
                answer: auditpb.GetProofResponse = await world.stubs.audit.GetProof(request)
                return answer
            await asyncio.sleep(0.1)


async def _imported(world: World) -> list[str]:
    """Accounts that wait for their owners, so that there are claim codes to look for."""
    importer, rows = await world.staff("importer"), ["row 1", "row 2"]
    name = f"import-{secrets.token_hex(4)}"
    opened = identitypb.OpenImportedAccountsRequest(row_keys=rows, **{"import": name})
    await importer.call("identity", "OpenImportedAccounts", opened)
    complete = identitypb.CompleteImportedAccountsRequest(row_keys=rows, **{"import": name})
    return list((await importer.call("identity", "CompleteImportedAccounts", complete)).claim_codes)


async def _truth(world: World, marketers: Sequence[Marketer]) -> Pairs:
    connection = await asyncpg.connect(database_url(world, "identity"))
    try:
        query = "SELECT customer, pseudonym FROM introductions WHERE marketer = $1"
        names = [dict(map(tuple, await connection.fetch(query, _id(one.name)))) for one in marketers]
    finally:
        await connection.close()
    return {pseudonym: names[1][customer] for customer, pseudonym in names[0].items()}


def _id(name: str) -> str:
    return name.rpartition("/")[2]


# --- G4: what two marketers pool -----------------------------------------------------------------------------------------


def _pooled(got: Sequence[Got], *, proofs: bool = True) -> list[Known]:
    """Everything a marketer has of each pseudonym but the values, which are sealed in ``sealed_release``; or without proofs."""
    return [
        Known(
            one.delivery.release.pseudonym,
            [*_artefacts(one), *([one.proof.SerializeToString()] if proofs else [])],
            {
                "place": one.place,
                "time": one.time,
                "size": len(one.delivery.release.sealed_release),
                "artefact size": one.delivery.ByteSize(),
                "log index": parse_proof(one.proof.proof).index,
                "inner index": one.proof.index,
                "path": len(one.proof.path),
            },
        )
        for one in got
    ]


def _artefacts(got: Got) -> Iterable[bytes]:
    release = got.delivery.release
    yield got.delivery.SerializeToString()
    yield from texts(release.consent_artefact)
    for opening in (release.opening, release.consent_opening):
        yield opening.salt
        yield opening.detail
    yield base64.urlsafe_b64decode(got.delivery.resume_token)


@pytest.mark.parametrize("number", SIZES)
def test_marketers_who_pool_numbers_join_no_better_than_chance(crowd: Crowd, number: str) -> None:
    ours, theirs = (_pooled(got) for got in crowd.got)
    assert right(by_number(number)(ours, theirs), crowd.truth) <= CHANCE


@pytest.mark.parametrize("proofs", [True, False], ids=["with proofs", "without"])
def test_marketers_who_pool_all_bytes_join_no_better_than_chance(crowd: Crowd, proofs: bool) -> None:
    ours, theirs = (_pooled(got, proofs=proofs) for got in crowd.got)
    assert right(by_bytes(ours, theirs, 8), crowd.truth) <= CHANCE


def test_marketers_with_equal_pseudonyms_would_join_nearly_all(crowd: Crowd) -> None:
    # Without proofs: paths of one entry meet in hashes that two have by chance alone, and lead the attack astray.
    ours, theirs = (_pooled(got, proofs=False) for got in crowd.got)
    back = {mine: other for other, mine in crowd.truth.items()}
    assert right(by_bytes(ours, renamed(theirs, back), 8), crowd.truth) >= 0.9 * PEOPLE


@pytest.mark.parametrize("number", ["place", "time"])
def test_marketers_served_in_one_order_would_join_nearly_all(crowd: Crowd, number: str) -> None:
    ours = _pooled(crowd.got[0])
    numbers = {crowd.truth[known.pseudonym]: known.numbers for known in ours}
    theirs = [replace(known, numbers=numbers[known.pseudonym]) for known in _pooled(crowd.got[1])]
    assert right(by_number(number)(ours, theirs), crowd.truth) >= 0.9 * PEOPLE


# --- G5: what copies of databases say --------------------------------------------------------------------------------------


def _ids(dump: Dump, column: int) -> list[str]:
    return [row[column] for row in dump["identity"]["customers"]]


IDENTITY, VAULT, CONSENT, AUDIT = range(4)
"""Columns of identity's table of customers: each service's id for them."""


def _but(dump: Dump, *services: str) -> Dump:
    return {name: tables for name, tables in dump.items() if name not in services}


def _binary(ids: Iterable[str]) -> list[bytes]:
    return [base64.b32decode(f"{each.upper()}======") for each in ids]


def _found(pieces: Sequence[Piece], ids: Sequence[str]) -> list[str]:
    """Places where an id is found: as text in any form, or as the 16 bytes it stands for."""
    raw = b"\n".join(piece.data for piece in pieces)
    as_bytes = ["bytes"] if any(each in raw for each in _binary(ids)) else []
    return [*hits(pieces, ids), *as_bytes]


def test_copies_without_identitys_name_nobody(crowd: Crowd) -> None:
    pieces = [*pieces_of(_but(crowd.dump, "identity")), *crowd.streams]
    assert [] == _found(pieces, _ids(crowd.dump, IDENTITY))
    assert [] == hits(pieces, crowd.claim_codes)
    keys = [person.signer.public_key for person in crowd.people]
    assert not [key for key in keys for piece in pieces if key in piece.data]
    assert [] == hits(pieces, [base64.b64encode(key).decode().rstrip("=") for key in keys[:20]])


def test_claim_codes_are_in_no_copy_at_all(crowd: Crowd) -> None:
    plain = [code.replace("-", "") for code in crowd.claim_codes]
    assert [] == hits(pieces_of(crowd.dump), [*crowd.claim_codes, *plain])


@pytest.mark.parametrize(("service", "column"), [("vault", VAULT), ("consent", CONSENT), ("audit", AUDIT)])
def test_services_id_for_a_customer_is_in_its_own_copy_and_identitys_alone(
    crowd: Crowd, service: str, column: int
) -> None:
    ids = _ids(crowd.dump, column)
    others = [*pieces_of(_but(crowd.dump, "identity", service)), *crowd.streams]
    own = b"\n".join(piece.data for piece in pieces_of({service: crowd.dump[service]}))
    assert [] == _found(others, ids)
    assert PEOPLE <= sum(each.encode() in own for each in ids)  # or nothing would have been looked for


def _rows_of(dump: Dump, service: str, pseudonyms: Iterable[str]) -> list[Known]:
    """All that a copy has in rows with a pseudonym."""
    found: dict[str, list[bytes]] = {name: [] for name in pseudonyms}
    for table, rows in dump[service].items():
        for row in rows:
            for name in {cell for cell in row if isinstance(cell, str) and cell in found}:
                cells = pieces_of({service: {table: [row]}})
                found[name] += [piece.data for piece in cells]
    return [Known(name, cells) for name, cells in found.items()]


def test_brokers_copy_alone_joins_no_better_than_chance(crowd: Crowd) -> None:
    ours, theirs = (_rows_of(crowd.dump, "broker", names) for names in (crowd.truth, crowd.truth.values()))
    assert min(len(known.artefacts) for known in ours) >= 10  # introduction, participant with its permit, delivery
    assert right(by_bytes(ours, theirs, 12), crowd.truth) <= CHANCE


async def test_order_of_rows_in_brokers_tables_joins_no_better_than_chance(world: World, crowd: Crowd) -> None:
    connection = await asyncpg.connect(database_url(world, "broker"))
    try:
        for table in ("introductions", "participants", "deliveries"):
            query = f"SELECT pseudonym FROM {table} WHERE marketer = $1 AND pseudonym <> '' ORDER BY ctid"
            sides = [
                [
                    Known(row["pseudonym"], [], {"place": place})
                    for place, row in enumerate(await connection.fetch(query, marketer.name))
                ]
                for marketer in crowd.marketers
            ]
            assert [PEOPLE, PEOPLE] == [len(side) for side in sides]
            assert right(by_number("place")(*sides), crowd.truth) <= CHANCE
    finally:
        await connection.close()


def test_identitys_copy_joins_everyone(crowd: Crowd) -> None:
    links: list[tuple[Any, ...]] = list(crowd.dump["identity"]["introductions"])
    by_customer: dict[str, dict[str, str]] = {}
    for customer, marketer, pseudonym, _ in links:
        by_customer.setdefault(customer, {})[f"marketers/{_id(marketer)}"] = pseudonym
    first, second = (marketer.name for marketer in crowd.marketers)
    joined = {names[first]: names[second] for names in by_customer.values() if {first, second} <= names.keys()}
    assert crowd.truth == joined
