"""
G7, with a process for each service: what if Valkey is wiped or away, and PostgreSQL is restarted?

Postgres is the truth, and Valkey a transport that it can rebuild: a wiped one loses nothing, and while it is away whoever asks
for a release in the answer gets it. While PostgreSQL is away, callers are told to come back soon, in words a client can act on.
"""

import asyncio
import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from random import Random
from typing import Any

import asyncpg
import grpc
import pytest
from redis.asyncio import Redis

from parley.audit.v1 import audit_pb2 as auditpb
from parley.broker.v1 import broker_pb2 as brokerpb
from parley.consent.v1 import consent_pb2 as consentpb
from parley.vault.v1 import vault_pb2 as vaultpb
from parley_kit.faults import Unavailable
from parley_node.embedded.paths import try_lock
from parley_node.services import SERVICES
from parley_rpc.channels import RoutedChannel, at
from tests.support.calls import request_id
from tests.support.chaos import each, frozen, listener, rows
from tests.support.city import City, kill_another
from tests.support.history import History
from tests.support.load import Backend, checked, streams_are_read
from tests.support.probing import Probe, kind, served
from tests.support.seeds import seeded
from tests.support.waiting import beside, until
from tests.support.world import Caller, Stubs

pytestmark = pytest.mark.slow

AT_ONCE, BACK_S = 4, 2.0


@asynccontextmanager
async def acquainted(city: City, history: History) -> AsyncIterator[Backend]:
    """A backend at work that knows everybody."""
    backend = await city.backend(history)
    async with backend.working():
        await backend.ask()
        await backend.finish(city.world)
        yield backend


async def _all_read(city: City) -> float:
    """Wait until all events are read; the seconds it took."""
    since = time.monotonic()
    await until(lambda: streams_are_read(city.world), 60)
    return time.monotonic() - since


# --- Valkey is wiped -------------------------------------------------------------------------------------------------------


async def flush(city: City) -> None:
    """Wipe everything that it holds."""
    async with Redis.from_url(city.world.servers.valkey_url) as client:
        await client.flushall()


async def lose_file(city: City) -> None:
    """Kill it, and let it come back without what it had written to its files; its users are kept elsewhere."""
    shutil.rmtree(city.where.valkey_data / "appendonlydir")
    before = await kill_another(city.sockets["valkey"])

    async def back() -> bool:
        with suppress(OSError):
            return listener(city.sockets["valkey"]) != before
        return False

    await until(back)


_LOGGED = "SELECT service, logged_seq FROM stream_progress"
CAUGHT_UP_S = 10
"""Within which all that was published before a wipe is read by all, and in the log."""


async def _published(city: City) -> Mapping[str, int]:
    """How far each service has published."""
    heads = {name: await rows(city.world, name, "SELECT last_seq FROM stream_head") for name in SERVICES}
    return {name: head[0]["last_seq"] for name, head in heads.items()}


async def _is_read(city: City, seqs: Mapping[str, int]) -> bool:
    """Whether all readers have read so far, and it is in the log; consent knows of its own."""
    logged = {row["service"]: row["logged_seq"] for row in await rows(city.world, "audit", _LOGGED)}
    ((known,),) = await rows(city.world, "consent", "SELECT logged_seq FROM audit_progress")
    heads = {name: await rows(city.world, name, "SELECT acked_seq FROM stream_head") for name in SERVICES}
    acked = all(heads[name][0]["acked_seq"] >= seq for name, seq in seqs.items())
    in_log = all(logged.get(name, 0) >= seq for name, seq in seqs.items() if name != "audit")
    return bool(acked and in_log and known >= seqs["consent"])


async def _caught_up(city: City, seqs: Mapping[str, int]) -> float:
    """Wait until that is so; the seconds it took."""
    since = time.monotonic()
    await until(lambda: _is_read(city, seqs), 60)
    return time.monotonic() - since


def _rebuilt(city: City) -> Counter[str]:
    """How often each service has said that it makes its stream anew."""
    return Counter({name: city.world.home.log(name).read_text().count('"rebuilding"') for name in SERVICES})


async def test_nothing_is_lost_when_valkey_is_wiped_three_times_in_a_campaign(city: City, history: History) -> None:
    rng, backend, before = seeded(), await city.backend(history, objecting=False), _rebuilt(city)
    catching = list[asyncio.Task[float]]()
    wipes = [flush, lose_file, rng.choice([flush, lose_file])]
    rng.shuffle(wipes)
    async with backend.working():
        await backend.ask()
        for wipe, least in zip(wipes, (0.05, 0.3, 0.55), strict=True):
            share = rng.uniform(least, least + 0.2)

            async def far_enough(share: float = share) -> bool:
                return len(backend.kept) >= share * backend.expected

            await until(far_enough, 60)
            assert not backend.has_all()  # or it came too late to disturb anything
            seqs = await _published(city)
            await wipe(city)
            catching.append(asyncio.create_task(_caught_up(city, seqs)))
        took = await asyncio.gather(*catching)
        seconds = await backend.finish(city.world)  # since the last release was kept
        seconds += await _all_read(city)
    print(f"all read {max(took):.1f} s after a wipe at most, and {seconds:.1f} s after the last release")
    assert max(*took, seconds) <= CAUGHT_UP_S
    made_anew = _rebuilt(city) - before
    assert made_anew.total() >= len(wipes), made_anew  # each wipe took something away
    assert [] == await checked(city.world, backend.history)


# --- Valkey is away --------------------------------------------------------------------------------------------------------


@contextmanager
def stands_still(city: City) -> Iterator[None]:
    """It takes connections and answers nothing."""
    with frozen(city.sockets["valkey"]):
        yield


@contextmanager
def is_gone(city: City) -> Iterator[None]:
    """It is killed, and what would start it again waits for its lock."""
    os.kill(listener(city.sockets["valkey"]), signal.SIGKILL)
    lock = None
    while lock is None:
        lock = try_lock(city.where.lock("valkey"))
    try:
        yield
    finally:
        os.close(lock)


async def _exchanges_while(backend: Backend, rng: Random, still: Callable[[], bool]) -> list[bool | Exception]:
    """Ask one customer after the other, some at a time, for a release in the answer; what came of each."""

    async def ask(_number: int) -> list[bool | Exception]:
        came: list[bool | Exception] = []
        while still():
            try:
                came.append(await backend.ask_one(rng.choice(pseudonyms)))
            except grpc.aio.AioRpcError as error:
                came.append(error)
        return came

    pseudonyms = backend.pseudonyms()
    return [one for came in await each(ask, range(AT_ONCE)) for one in came]


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("away", "seconds"),
    [
        (stands_still, 3.0),
        pytest.param(stands_still, 30.0, marks=pytest.mark.slow),
        pytest.param(is_gone, 30.0, marks=pytest.mark.slow),
    ],
)
async def test_every_release_in_an_answer_comes_while_valkey_is_away(
    city: City, history: History, away: Callable[[City], Any], seconds: float
) -> None:
    rng = seeded()
    async with acquainted(city, history) as backend:
        with away(city):
            end = time.monotonic() + seconds
            came = await _exchanges_while(backend, rng, lambda: time.monotonic() < end)
        print(f"{len(came)} exchanges in {seconds} s")
        assert {True} == set(came)
        since = time.monotonic()
        await backend.finish(city.world)
        await _all_read(city)
        print(f"all read {time.monotonic() - since:.1f} s after it was back")
        assert time.monotonic() - since <= 15
    assert [] == await checked(city.world, backend.history)


# --- PostgreSQL is restarted -----------------------------------------------------------------------------------------------


_NO_RETRIES = [("grpc.enable_retries", 0)]


@asynccontextmanager
async def _probes(city: City, backend: Backend, rng: Random) -> AsyncIterator[dict[str, Probe]]:
    """Calls of services with databases, while they last."""
    address = city.node.running.address

    def one(service: str) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(at(address, service), options=_NO_RETRIES)

    pseudonyms = backend.pseudonyms()
    async with RoutedChannel(one) as channel:
        marketer = replace(backend.marketer, stubs=Stubs(channel))
        customer = replace(await city.world.customer(), stubs=Stubs(channel))
        kept = brokerpb.AcknowledgeDeliveriesRequest(names=[next(iter(backend.kept))])

        def probe(caller: Caller, service: str, method: str, request: Callable[[], Any]) -> Probe:
            return Probe(lambda: caller.call(service, method, request(), timeout=5))

        probes = {
            "vault": probe(customer, "vault", "ListItems", vaultpb.ListItemsRequest),
            "put": probe(customer, "vault", "PutItems", _put),
            "consent": probe(customer, "consent", "ListConsents", consentpb.ListConsentsRequest),
            "act": probe(customer, "consent", "LiftObjection", _lift),
            "history": probe(customer, "audit", "ListHistory", auditpb.ListHistoryRequest),
            "release": Probe(lambda: backend.ask_one(rng.choice(pseudonyms), marketer)),
            "read": probe(marketer, "broker", "ListExchanges", brokerpb.ListExchangesRequest),
            "acknowledge": probe(marketer, "broker", "AcknowledgeDeliveries", lambda: kept),
            "sign in": Probe(marketer.sign_in),
        }
        # With all of them coming back too soon, these are what keeps two cores from serving.
        probes |= {f"hasty {name}": replace(probes[name], is_hasty=True, refused=[]) for name in ("act", "history")}
        async with beside(*(probe.run() for probe in probes.values())):
            yield probes


def _put() -> vaultpb.PutItemsRequest:
    items = [vaultpb.ItemValue(attribute="profile.city", value="Faro")]
    return vaultpb.PutItemsRequest(items=items, request_id=request_id())


def _lift() -> consentpb.LiftObjectionRequest:
    return consentpb.LiftObjectionRequest(request_id=request_id())


async def _answers(city: City) -> bool:
    with suppress(asyncpg.PostgresError, OSError):
        connection = await asyncpg.connect(city.world.servers.admin_dsn, timeout=1)
        await connection.close()
        return True
    return False


@pytest.mark.timeout(300)
@pytest.mark.parametrize("rounds", [1, pytest.param(17, marks=pytest.mark.slow)])
async def test_callers_are_told_to_come_back_while_postgres_restarts_and_then_served(
    city: City, history: History, rounds: int
) -> None:
    rng, took = seeded(), list[float]()
    async with acquainted(city, history) as backend:
        async with _probes(city, backend, rng) as probes:
            for number in [signal.SIGKILL, signal.SIGQUIT, signal.SIGINT] * rounds:  # a crash, at once, and in order
                await served(probes, time.monotonic())
                os.kill(listener(city.sockets["postgres"]), number)
                await until(lambda: _not(_answers(city)))
                await until(lambda: _answers(city), 30)
                took.append(await served(probes, time.monotonic()))
        refused = [*backend.broke, *(error for probe in probes.values() for error in probe.refused)]
        assert backend.broke
        assert all(probe.refused for probe in probes.values())
        print(f"{len(refused)} refused; served again after {max(took):.2f} s at most")
        await backend.finish(city.world)
    assert {(grpc.StatusCode.UNAVAILABLE, Unavailable, True)} == {kind(error) for error in refused}
    assert max(took) <= BACK_S
    assert [] == await checked(city.world, backend.history)


async def _not(answer: Awaitable[bool]) -> bool:
    return not await answer
