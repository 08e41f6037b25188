"""
G7, with a process for each service: what if one of them, PostgreSQL or Valkey stands still?

It takes calls and statements, and never answers. Every call ends by its deadline all the same, where it was made and where it is
answered: whoever waits for what stands still lets go of its caller's place, its customer's turn and its connection.
"""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any

import grpc
import pytest

from parley.audit.v1 import audit_pb2 as auditpb
from parley.broker.v1 import broker_pb2 as brokerpb
from parley.consent.v1 import consent_pb2 as consentpb
from parley.identity.v1 import identity_pb2 as identitypb
from parley.vault.v1 import vault_pb2 as vaultpb
from parley_node.doctor.metrics import ask
from parley_node.embedded.pair import ServerPair
from parley_node.services import SERVICES
from parley_node.split import ApartNode
from tests.support.chaos import listener, rows
from tests.support.city import City
from tests.support.deaths import children, pid_of
from tests.support.history import History
from tests.support.load import Backend, checked, streams_are_read
from tests.support.mutations import MUTATIONS, Cast, effects, effects_of
from tests.support.questions import QUESTIONS, Company
from tests.support.seeds import seeded
from tests.support.servers import scratch_directory
from tests.support.waiting import until
from tests.support.world import Caller, Customer, World, living_world, quick

pytestmark = pytest.mark.slow

GRACE_S = 0.25
DEADLINES_S = (0.25, 0.75)
"""Together with their grace, bounds of the histogram in which services count: so they tell how many calls ended in time."""
ENDS = {grpc.StatusCode.OK, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE}
COMES_BACK = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED, grpc.StatusCode.DEADLINE_EXCEEDED}

Make = Callable[[float], Awaitable[Any]]
"""Makes a call that has so many seconds."""


@contextmanager
def _stopped(pid: int) -> Iterator[None]:
    """A process stands still, and all that it started: each session of PostgreSQL's is a process."""
    family = [pid, *children(pid)]
    for each_pid in family:
        os.kill(each_pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for each_pid in family:
            with suppress(ProcessLookupError):
                os.kill(each_pid, signal.SIGCONT)


def _processes(world: World) -> Mapping[str, int]:
    """What may stand still."""
    assert isinstance(world.node, ApartNode)
    assert isinstance(world.servers, ServerPair)
    where = world.servers.where
    sockets = {"postgres": where.postgres_sockets / ".s.PGSQL.5432", "valkey": where.valkey_socket}
    found = {name: pid_of(world.node, name) for name in SERVICES}
    return found | {name: listener(socket) for name, socket in sockets.items()}


# --- Whether calls end in time ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answered:
    """How many calls services have answered, by service and method, and how many of those in time; by their own count."""

    calls: Counter[tuple[str, str]] = field(default_factory=Counter)
    in_time: Counter[tuple[str, str]] = field(default_factory=Counter)

    def since(self, before: "Answered") -> "Answered":
        """What has come since."""
        return Answered(self.calls - before.calls, self.in_time - before.in_time)

    def late(self) -> Counter[tuple[str, str]]:
        """Those that took longer."""
        return self.calls - self.in_time


async def _answered(world: World, seconds: float) -> Answered:
    """As of now, of every service."""
    found = Answered()

    async def all_say() -> bool:
        told = (await ask(world.node.running)).samples
        for count in (found.calls, found.in_time):
            count.clear()
        for service, samples in told.items():
            for sample in samples:
                of = (service, sample.labels.get("method", "").rpartition("/")[2])
                if sample.name == "parley_rpc_duration_seconds_count":
                    found.calls[of] += int(sample.value)
                elif sample.name == "parley_rpc_duration_seconds_bucket" and float(sample.labels["le"]) == seconds:
                    found.in_time[of] += int(sample.value)
        return {*SERVICES} == {*told} and all(told.values())

    await until(all_say, 30)
    return found


async def _ended(call: Awaitable[Any]) -> tuple[float, grpc.StatusCode]:
    """How long a call took to end, and how it did."""
    begun = time.monotonic()
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return time.monotonic() - begun, error.code()
    return time.monotonic() - begun, grpc.StatusCode.OK


@asynccontextmanager
async def _in_time(world: World, still: str, seconds: float, calls: Mapping[str, Make]) -> AsyncIterator[None]:
    """
    Make calls, by RPC, while something stands still, and until the block ends; then see that each has ended in time.

    Where it was made; and where it was answered, unless that is what stood still. A call that isn't answered yet is waited for.
    """
    pid, before = _processes(world)[still], await _answered(world, seconds + GRACE_S)
    with _stopped(pid):
        each = [_ended(make(seconds)) for make in calls.values()]
        ends = dict(zip(calls, await asyncio.gather(*each), strict=True))
        yield
        # Whoever waits for what stands still goes on as soon as it does, and is late by then.
        await asyncio.sleep(seconds + GRACE_S)
    made = {(service, method) for service, _, method in (rpc.partition(".") for rpc in calls) if service != still}
    later = Answered()

    async def all_answered() -> bool:
        nonlocal later
        later = (await _answered(world, seconds + GRACE_S)).since(before)
        return made <= later.calls.keys()

    await until(all_answered, 60)
    late = {of: n for of, n in later.late().items() if of in made}
    most, rpc = max((span - seconds, rpc) for rpc, (span, _) in ends.items())
    print(
        f"{still}: {rpc} took {most:.3f} s longer than {seconds} s, {Counter(code.name for _, code in ends.values())}"
    )
    assert ({}, ENDS, True) == (late, ENDS | {code for _, code in ends.values()}, most <= GRACE_S), (still, ends)


async def _tasks(world: World) -> Counter[str]:
    """The fewest tasks that each service has for a while: what comes and goes is left out, and what is left behind is not."""
    await asyncio.sleep(1)  # a feed that was given up is read again by then
    found = Counter[str]()
    for _ in range(20):
        for service, samples in (await ask(world.node.running)).samples.items():
            now = [int(sample.value) for sample in samples if sample.name == "parley_tasks"]
            found[service] = min([*now, *filter(None, [found[service]])], default=0)
    assert {*SERVICES} == {*+found}  # each told of some
    return found


async def _everything_is_back(world: World, before: Counter[str]) -> None:
    """
    Wait until nothing is left of what was under way: no transaction open, no connection lent, no task but those of before.

    Background work has its own for a moment each time.
    """
    open_since = "SELECT FROM pg_stat_activity WHERE usename LIKE 'parley\\_%' AND state LIKE 'idle in%'"
    lending, behind = {*SERVICES}, Counter[str]()

    async def none_open() -> bool:
        return not await rows(world, "broker", open_since)

    async def none_lent() -> bool:
        for service, samples in (await ask(world.node.running)).samples.items():
            if any(sample.name == "parley_pool_connections" and not sample.value for sample in samples):
                lending.discard(service)
        return not lending

    async def none_behind() -> bool:
        nonlocal behind
        behind = await _tasks(world) - before
        return not behind

    await until(none_open)
    await until(none_lent, 30)
    with suppress(TimeoutError):
        await until(none_behind, 30)
    assert Counter() == behind


# --- Every mutation --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
async def cast() -> AsyncIterator[Cast]:
    """A Parley of a few, so that each may do something at the same time."""
    with scratch_directory() as root:
        async with living_world(root / "home", quick(), apart=True) as world:
            yield await Cast.of(world, len(MUTATIONS))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seconds", DEADLINES_S)
async def test_every_mutation_ends_by_its_deadline_whatever_stands_still_and_happens_once(
    cast: Cast, seconds: float
) -> None:
    there, made_in_all, names = await _effects(cast.world), Counter[str](), [*map(str, MUTATIONS)]
    before = await _tasks(cast.world)
    for still in sorted(_processes(cast.world)):
        await cast.sign_in()
        async with AsyncExitStack() as stack:
            entered = [stack.enter_async_context(cast.mutation(name)) for name in names]
            made = dict(zip(names, await asyncio.gather(*entered), strict=True))
            calls = {name: _once(name, each.caller, each.request) for name, each in made.items()}
            async with _in_time(cast.world, still, seconds, calls):
                pass
            await asyncio.gather(*map(_until_answered, calls.values()))
        made_in_all.update(names)
        await _everything_is_back(cast.world, before)
    assert effects_of(made_in_all) == await _effects(cast.world) - there


@pytest.mark.timeout(400)
@pytest.mark.parametrize("seconds", DEADLINES_S)
async def test_every_other_call_ends_by_its_deadline_whatever_stands_still(cast: Cast, seconds: float) -> None:
    company = await Company.of(cast.world)
    calls: Mapping[str, Make] = {name: partial(company.ask, name) for name in QUESTIONS}
    for name, rpc in QUESTIONS.items():  # of what is refused anyway, an end in time would say nothing
        well = grpc.StatusCode.DEADLINE_EXCEEDED if rpc.method.server_streaming else grpc.StatusCode.OK
        assert well is (await _ended(calls[name](3)))[1], name
    before = await _tasks(cast.world)
    for still in sorted(_processes(cast.world)):
        await company.sign_in()
        async with _in_time(cast.world, still, seconds, calls):
            pass
        await _everything_is_back(cast.world, before)


async def _effects(world: World) -> Counter[str]:
    """How often each thing is there that comes of mutations, once all is in the log."""
    await until(lambda: streams_are_read(world), 60)
    return await effects(world)


def _once(rpc: str, caller: Caller, request: Any) -> Make:
    service, _, method = rpc.partition(".")
    return lambda seconds: caller.call(service, method, request, timeout=seconds)


async def _until_answered(make: Make) -> None:
    """Come back for as long as it is said that one should; raises what else is said."""

    async def answered() -> bool:
        try:
            await make(10)
        except grpc.aio.AioRpcError as error:
            if error.code() not in COMES_BACK:
                raise
            return False
        return True

    await until(answered, 60)


# --- Exchanges, and what others read ---------------------------------------------------------------------------------------


def _calls(backend: Backend, customer: Customer, rng: Random) -> Mapping[str, Make]:
    """An exchange, which needs them all, and a read of each service."""
    marketer, pseudonym = backend.marketer, rng.choice(backend.pseudonyms())
    return {
        "broker.CreateExchange": lambda seconds: backend.ask_one(pseudonym, seconds=seconds),
        "broker.ListExchanges": _once("broker.ListExchanges", marketer, brokerpb.ListExchangesRequest()),
        "identity.GetKeySet": _once("identity.GetKeySet", marketer, identitypb.GetKeySetRequest()),
        "audit.GetCheckpoint": _once("audit.GetCheckpoint", customer, auditpb.GetCheckpointRequest()),
        "vault.ListItems": _once("vault.ListItems", customer, vaultpb.ListItemsRequest()),
        "consent.ListConsents": _once("consent.ListConsents", customer, consentpb.ListConsentsRequest()),
    }


@pytest.mark.timeout(400)
@pytest.mark.parametrize("seconds", DEADLINES_S)
async def test_every_exchange_and_read_ends_by_its_deadline_whatever_stands_still(
    city: City, history: History, seconds: float
) -> None:
    """And whoever doesn't need what stands still is answered well."""
    rng, customer = seeded(), await city.world.customer()
    await customer.put(profile_city="Faro")
    backend = await city.backend(history)
    async with backend.working():
        await backend.ask()
        await backend.finish(city.world)
        before = await _tasks(city.world)
        for still in sorted(_processes(city.world)):
            async with _in_time(city.world, still, seconds, _calls(backend, customer, rng)):
                await asyncio.gather(*_of_others(still, backend, customer))  # however slow this machine is
        await backend.finish(city.world)
        await _everything_is_back(city.world, before)
    assert [] == await checked(city.world, backend.history)


def _of_others(name: str, backend: Backend, customer: Customer) -> Iterator[Awaitable[Any]]:
    """A call of each service that is answered well without a process: all do without another's, none without PostgreSQL."""
    if name == "postgres":
        return
    exchange = brokerpb.GetExchangeRequest(name=backend.exchanges[0])
    calls: Mapping[str, tuple[Caller, str, Any]] = {
        "broker": (backend.marketer, "GetExchange", exchange),
        "identity": (customer, "GetMarketer", identitypb.GetMarketerRequest(name=backend.marketer.name)),
        "audit": (customer, "ListHistory", auditpb.ListHistoryRequest()),
        "vault": (customer, "GetItem", vaultpb.GetItemRequest(name="items/profile.city")),
        "consent": (customer, "ListRules", consentpb.ListRulesRequest()),
    }
    for service, (caller, method, request) in calls.items():
        if service != name:
            yield caller.call(service, method, request, timeout=30)
