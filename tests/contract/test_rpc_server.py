"""What a server refuses to be, and how it ends."""

import asyncio
import io
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry

from parley_client.connection import Connection
from parley_kit.clock import SystemClock
from parley_kit.faults import Unavailable
from parley_rpc import deadlines, logs
from parley_rpc.channels import PlaintextRefused, dial
from parley_rpc.health import Health, follow
from parley_rpc.inproc import InprocessHub
from parley_rpc.metrics import Metrics
from parley_rpc.server import Registration, Server, build_server
from parley_rpc.status import fault_from
from tests.support import echo, echo_pb2, hostile
from tests.support import echo_pb2_grpc as echogrpc
from tests.support.waiting import until

ECHO = Registration(echogrpc.add_EchoServiceServicer_to_server, echo.EchoServicer())


def built(*registrations: Registration) -> Server:
    return build_server(
        registrations,
        authenticate=echo.authenticate,
        clock=SystemClock(),
        zones=echo.ZONES,
        metrics=Metrics(CollectorRegistry()),
        log=logs.logger("echo", io.StringIO()),
    )


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "consent:9090", "10.0.0.1:0", "localhost.example:0", ":0"])
async def test_plaintext_never_leaves_the_machine(address: str) -> None:
    with pytest.raises(PlaintextRefused, match="plaintext"):
        built().add_insecure_port(address)
    with pytest.raises(PlaintextRefused, match="plaintext"):
        dial(f"dns:///{address}")


@pytest.mark.parametrize("address", ["127.0.0.1:0", "[::1]:0", "localhost:0"])
async def test_loopback_may_be_plaintext(address: str) -> None:
    assert built().add_insecure_port(address) > 0


async def test_nothing_joins_a_server_behind_its_guards() -> None:
    with pytest.raises(TypeError, match="skip the allow list"):
        echogrpc.add_EchoServiceServicer_to_server(echo.EchoServicer(), built())


async def test_service_is_registered_once() -> None:
    hub = InprocessHub()
    guards = {
        "authenticate": echo.authenticate,
        "clock": SystemClock(),
        "zones": echo.ZONES,
        "metrics": Metrics(CollectorRegistry()),
        "log": logs.logger("echo", io.StringIO()),
    }
    hub.register([ECHO], **guards)  # type: ignore[arg-type]

    with pytest.raises(ValueError, match="registered twice"):
        built(ECHO, ECHO)
    with pytest.raises(ValueError, match="registered twice"):
        hub.register([ECHO], **guards)  # type: ignore[arg-type]


async def test_stream_of_requests_is_no_method_to_serve() -> None:
    handler: Any = grpc.stream_unary_rpc_method_handler(lambda *_: None)
    registration = Registration(lambda _, s: s.add_registered_method_handlers("a.B", {"C": handler}), None)

    with pytest.raises(TypeError, match="stream of requests"):
        built(registration)


async def test_draining_server_says_so_before_it_stops(tmp_path: Path) -> None:
    served = built(ECHO)
    served.add_insecure_port(f"unix:{tmp_path}/s")
    await served.start()
    async with dial(f"unix:{tmp_path}/s") as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=echo.SERVICE))
        first = await watch.read()
        drained = asyncio.create_task(served.drain(announce=0.2, grace=0.1))
        second = await watch.read()

        assert not drained.done()
        assert [
            first.status,
            second.status,
        ] == [health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING]
        await drained
        assert not await served.wait_for_termination(1)


async def test_one_who_watches_and_reads_nothing_keeps_no_server_from_draining() -> None:
    async with echo.tcp() as world, hostile.Wire(world.port) as wire:
        await wire.take_nothing()
        stream = wire.open("Watch", service="grpc.health.v1.Health", timeout="60S")
        await wire.send(stream, health_pb2.HealthCheckRequest().SerializeToString())
        await wire.until(lambda: wire.answers[stream].headers)
        await asyncio.wait_for(world.server.drain(announce=0.0, grace=0.1), 10)


async def test_health_follows_what_a_service_needs_until_the_server_drains() -> None:
    health, away = Health(), asyncio.Event()

    async def ping() -> None:
        if away.is_set():
            raise Unavailable

    async def status(service: str = "parley.vault.v1.VaultService") -> int:
        return int((await health.Check(health_pb2.HealthCheckRequest(service=service), None)).status)

    health.tell("parley.vault.v1.VaultService", serves=False)
    following = asyncio.create_task(follow([health], "vault", {"postgres": ping}))
    await until(lambda: is_(status(), health_pb2.HealthCheckResponse.SERVING))
    away.set()
    await until(lambda: is_(status(), health_pb2.HealthCheckResponse.NOT_SERVING))
    assert health_pb2.HealthCheckResponse.SERVING == await status("")  # the process itself is alive
    away.clear()
    await until(lambda: is_(status(), health_pb2.HealthCheckResponse.SERVING))
    health.end()
    health.tell("parley.vault.v1.VaultService", serves=True)
    following.cancel()

    assert [health_pb2.HealthCheckResponse.NOT_SERVING] * 2 == [await status(), await status("")]


async def is_(found: Awaitable[int], wanted: int) -> bool:
    return wanted == await found


async def test_calls_under_way_finish_while_a_server_drains_and_new_connections_are_refused() -> None:
    async with echo.tcp() as world:
        held = asyncio.ensure_future(world.call("hold", timeout=30))
        await asyncio.wait_for(world.servicer.waiting.wait(), 5)
        draining = asyncio.create_task(world.server.drain(announce=0.0, grace=30.0))
        await until(lambda: is_refused(world.port))
        assert not held.done()
        world.servicer.held.set()

        assert "held" == (await held).text
        await asyncio.wait_for(draining, 5)  # and no longer than the calls need


async def is_refused(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return True
    writer.close()
    return False


async def test_what_outlives_the_grace_of_a_drain_is_cut() -> None:
    async with echo.tcp() as world, echo.connection(world.target, ("grpc.enable_retries", 0)) as channel:
        stub: Any = echogrpc.EchoServiceStub(channel)
        call = stub.Echo(echo_pb2.EchoRequest(text="wait"), timeout=60, metadata=world.token)
        await asyncio.wait_for(world.servicer.waiting.wait(), 5)
        await asyncio.wait_for(world.server.drain(announce=0.0, grace=0.1), 5)

        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert grpc.StatusCode.UNAVAILABLE is caught.value.code()
        assert world.servicer.cancelled.is_set()


async def test_streams_end_as_soon_as_a_server_goes_and_no_new_one_begins() -> None:
    async with echo.tcp() as world, echo.connection(world.target, ("grpc.enable_retries", 0)) as channel:
        stub: Any = echogrpc.EchoServiceStub(channel)
        request = echo_pb2.EchoRequest(text="hold", count=1)
        followed = stub.Repeat(request, timeout=60, metadata=world.token)
        await followed.read()
        held = asyncio.ensure_future(world.call("hold", timeout=30))
        await until(lambda: have_reached(world, 1))
        draining = asyncio.create_task(world.server.drain(announce=0.0, grace=30.0))
        with pytest.raises(grpc.aio.AioRpcError) as ended:
            await followed.read()
        await asyncio.wait_for(world.servicer.closed.wait(), 5)
        assert not draining.done()  # as a call is under way
        world.servicer.held.set()
        await held
        await asyncio.wait_for(draining, 5)
    assert (Unavailable, True) == (type(fault := fault_from(ended.value)), fault.retry_after is not None)


async def test_stream_that_comes_when_its_server_goes_is_refused_so_that_it_comes_again() -> None:
    async with echo.tcp() as world, echo.connection(world.target, ("grpc.enable_retries", 0)) as channel:
        world.server._leaving.end()
        stub: Any = echogrpc.EchoServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Repeat(echo_pb2.EchoRequest(text="hold", count=1), timeout=60, metadata=world.token).read()
    fault = fault_from(refused.value)
    assert (Unavailable, True) == (type(fault), fault.retry_after is not None)


Work = Callable[[str], AbstractAsyncContextManager[Callable[[], Awaitable[object]]]]
SLOW = echo_pb2.EchoRequest(text="slow")


@asynccontextmanager
async def a_service(target: str) -> AsyncIterator[Callable[[], Awaitable[object]]]:
    async with echo.connection(target) as channel:
        method: Any = echogrpc.EchoServiceStub(channel).Echo
        yield lambda: deadlines.call(method, SLOW, timeout=30)


@asynccontextmanager
async def a_marketer(target: str) -> AsyncIterator[Callable[[], Awaitable[object]]]:
    async with echo.connection(target, ("grpc.enable_retries", 0)) as channel, Connection("", channel=channel) as sdk:
        method: Any = echogrpc.EchoServiceStub(channel).Echo
        yield lambda: sdk.call(method, SLOW)


@pytest.mark.parametrize("caller", [a_service, a_marketer])
async def test_a_server_that_drains_under_load_costs_no_call_while_there_is_another(caller: Work) -> None:
    async with (
        echo.tcp(zones=echo.OPEN) as leaving,
        echo.tcp(zones=echo.OPEN) as staying,
        caller(echo.both(leaving, staying)) as call,
    ):
        going = True

        async def work() -> None:
            while going:
                await call()

        workers = [asyncio.create_task(work()) for _ in range(64)]
        await until(lambda: have_reached(leaving, 200))
        await asyncio.wait_for(leaving.server.drain(announce=0.1, grace=5.0), 10)
        left, goal = len(leaving.servicer.reached), len(staying.servicer.reached) + 200
        await until(lambda: have_reached(staying, goal))
        going = False

        await asyncio.gather(*workers)  # would raise what a call raised
        assert left == len(leaving.servicer.reached)


async def have_reached(world: echo.World, count: int) -> bool:
    return len(world.servicer.reached) >= count


def test_what_the_sdk_imports_needs_no_server_dependency() -> None:
    program = "import sys, parley_rpc.status, parley_rpc.channels, parley_rpc.deadlines; print(*sys.modules)"
    environment = {"PYTHONPATH": os.pathsep.join(sys.path)}
    answer = subprocess.run(
        [sys.executable, "-c", program], env=environment, check=True, capture_output=True, text=True
    )
    loaded = {name.partition(".")[0] for name in answer.stdout.split()}

    assert set() == loaded & {"structlog", "prometheus_client", "asyncpg", "redis"}
