"""
G3: broker, events, logs, metrics and error texts hold no value in clear, and no database does.

Every value that a test of this folder registers as a canary is searched for, raw and encoded, in everything that the running
node keeps or said. A marketer's own questions and offers are no canaries.
"""

import base64
import gc
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import asyncpg
import grpc
import pytest
from prometheus_client import CollectorRegistry, Counter
from redis.asyncio import Redis

from parley.consent.v1 import consent_pb2 as consentpb
from parley.vault.v1 import vault_pb2 as vaultpb
from parley_node.services import SERVICES
from tests.support import canaries
from tests.support.calls import request_id
from tests.support.dumps import Piece, database_url, quiet
from tests.support.world import Customer, World, between, by_criteria, terms, to_known

ALLOW = 1
ADDRESS = ("profile.city", "contact.email", "contact.phone_number", "finance.income")


@asynccontextmanager
async def refused() -> AsyncIterator[None]:
    """Expect a refusal, and keep all that it says for the search."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        yield
    canaries.said(f"{raised.value.details()} {raised.value.trailing_metadata()} {raised.value.debug_error_string()}")


async def _secretive(world: World) -> Customer:
    """A customer all of whose values are canaries, but for the age that they are asked by."""
    customer = await world.customer()
    await customer.put(
        profile_age="107",
        profile_city=canaries.word(),
        contact_email=canaries.canary(f"z{secrets.token_hex(8)}@canary.example"),
        contact_phone_number=canaries.canary(f"+{secrets.randbelow(10**13) + 10**13}"),
        finance_income=canaries.canary(str(secrets.randbelow(10**8) + 8 * 10**8)),
    )
    await customer.discoverable("profile.age")
    await customer.discoverable("contact.email", to=3)
    return customer


async def _mistakes(customer: Customer, value: str) -> None:
    """Values where they don't belong: what is wrong with them is said, they are not repeated."""

    async def put(attribute: str, wrong: str) -> None:
        items = [vaultpb.ItemValue(attribute=attribute, value=wrong)]
        async with refused():
            await customer.call("vault", "PutItems", vaultpb.PutItemsRequest(items=items, request_id=request_id()))

    await put("contact.email", f"{value} no address")
    await put("finance.income", value)
    await put("profile.gender", value)
    await put("profile.birthdate", value)
    await put("profile.city", value * 200)
    async with refused():
        await customer.call("vault", "PutItems", vaultpb.PutItemsRequest(request_id=value))
    asked = request_id()
    for city, accepted in ((value, True), (f"{value}!", False)):
        request = vaultpb.PutItemsRequest(
            items=[vaultpb.ItemValue(attribute="profile.city", value=city)], request_id=asked
        )
        if accepted:
            await customer.call("vault", "PutItems", request)
        else:
            async with refused():
                await customer.call("vault", "PutItems", request)


async def test_whole_story_leaves_no_value_in_clear(world: World) -> None:
    marketer = await world.marketer()
    asked = terms(*ADDRESS)
    accepting, allowing, refusing = [await _secretive(world) for _ in range(3)]
    await allowing.rule(ALLOW, terms(*ADDRESS, "profile.age", valid_for=timedelta(days=365), decide_within=None))
    await marketer.ask(by_criteria(asked, between("profile.age", "107", "107"), "What do you say?"))
    offer = await refusing.offer()
    request = consentpb.RefuseOfferRequest(name=offer.name, request_id=request_id())
    await refusing.call("consent", "RefuseOffer", request)
    consent = await accepting.accept(await accepting.offer())

    deliveries = await marketer.collect(2)
    opened = [world.opened(marketer, delivery) for delivery in deliveries]
    given = {field["value"] for release in opened for field in release["fields"] if "value" in field}
    assert len(given & canaries.planted()) == 2 * len(ADDRESS)  # the values did flow

    pseudonym = next(one for one in deliveries if world.opened(marketer, one)["consent"] == consent.name)
    again = to_known(terms(*ADDRESS, valid_for=timedelta(days=20)), pseudonym.release.pseudonym, in_answer=True)
    assert (await marketer.ask(again)).HasField("delivery")
    await marketer.acknowledge(deliveries[0])
    await _mistakes(accepting, canaries.word())
    await accepting.withdraw(consent.name)
    await accepting.put(profile_city=canaries.word())
    await accepting.call(
        "vault", "DeleteItem", vaultpb.DeleteItemRequest(name="items/contact.email", request_id=request_id())
    )

    assert [] == canaries.hits(await canaries.everything(world), canaries.planted())  # with events under way
    await quiet(world)
    assert [] == canaries.hits(await canaries.everything(world), canaries.planted())


# --- The search finds what is there --------------------------------------------------------------------------------------


def _text(value: str) -> bytes:
    return value.encode()


def _json(value: str) -> bytes:
    return json.dumps({"city": value}).encode()


def _base64(value: str) -> bytes:
    return base64.b64encode(b"." + value.encode() + b".")


def _url_base64(value: str) -> bytes:
    return base64.urlsafe_b64encode(b".." + value.encode())


def _hex(value: str) -> bytes:
    return value.encode().hex().encode()


def _percent(value: str) -> bytes:
    return b"https://x.example/?city=" + "".join(f"%{byte:02X}" for byte in value.encode()).encode()


FORMS = (_text, _json, _base64, _url_base64, _hex, _percent)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__.strip("_"))
async def test_search_knows_every_form(form: Callable[[str], bytes]) -> None:
    value = f"Grünwald {secrets.token_hex(4)}"
    assert ["x"] == canaries.hits([Piece("x", b"<" + form(value) + b">")], [value])
    assert [] == canaries.hits([Piece("x", form(value[::2]))], [value])


async def _into_database(world: World, service: str, planted: bytes, *, binary: bool) -> Callable[[], Awaitable[Any]]:
    connection = await asyncpg.connect(database_url(world, service))
    try:
        await connection.execute(f"CREATE TABLE leak (cell {'bytea' if binary else 'text'})")
        await connection.execute("INSERT INTO leak VALUES ($1)", planted if binary else planted.decode())
    finally:
        await connection.close()
    return lambda: _drop(world, service)


async def _drop(world: World, service: str) -> None:
    connection = await asyncpg.connect(database_url(world, service))
    try:
        await connection.execute("DROP TABLE leak")
    finally:
        await connection.close()


@pytest.mark.parametrize("binary", [False, True], ids=["text", "bytea"])
@pytest.mark.parametrize("service", SERVICES)
async def test_leak_planted_in_a_database_is_found(world: World, service: str, binary: bool) -> None:
    value = f"Grünwald {secrets.token_hex(4)}"
    remove = await _into_database(world, service, _base64(value) if binary else _text(value), binary=binary)
    try:
        assert [f"database {service}.leak"] == canaries.hits(await canaries.everything(world), [value])
    finally:
        await remove()


async def test_leak_planted_in_a_stream_or_key_is_found(world: World) -> None:
    value = f"Grünwald {secrets.token_hex(4)}"
    async with Redis.from_url(world.node.servers.valkey_url) as client:
        await client.xadd("leak:stream", {"envelope": b"\x0a\x14" + _url_base64(value)})
        await client.hset("leak:hash", "field", _hex(value))
        try:
            found = canaries.hits(await canaries.everything(world), [value])
        finally:
            await client.delete("leak:stream", "leak:hash")
    assert {"valkey leak:stream", "valkey leak:hash"} <= set(found)


async def test_leak_planted_in_log_metric_file_or_error_is_found(world: World) -> None:
    value = f"Grünwald {secrets.token_hex(4)}"
    place = world.log.tell()
    world.log.write(json.dumps({"event": value}) + "\n")
    gc.unfreeze()  # a node at work leaves what stays out of what is looked through
    registry = max((each for each in gc.get_objects() if isinstance(each, CollectorRegistry)), key=id)
    counter = Counter("leak", "A leak.", ["city"], registry=registry)
    counter.labels(value).inc()
    file = world.home.root / "leak.txt"
    file.write_bytes(_percent(value))
    try:
        pieces = [*await canaries.everything(world), Piece("error text", _text(value))]
        assert ["error text", "file leak.txt", "log", "metrics"] == canaries.hits(pieces, [value])
    finally:
        registry.unregister(counter)
        file.unlink()
        world.log.seek(place)
        world.log.truncate()


async def test_no_canary_of_the_whole_run_is_anywhere(world: World) -> None:
    assert canaries.planted()
    assert [] == canaries.hits(await canaries.everything(world), canaries.planted())
