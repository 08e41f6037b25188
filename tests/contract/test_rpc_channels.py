"""What a client of ours does when servers are slow, silent, gone or wrong, against real ones."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from typing import Any

import grpc
import pytest

from parley_client.connection import AT_ONCE, Connection
from parley_kit.faults import Code, DeadlineTooShort
from parley_rpc import deadlines
from parley_rpc.channels import client_options
from tests.support import echo, echo_pb2, hostile
from tests.support import echo_pb2_grpc as echogrpc
from tests.support.calls import fault_of
from tests.support.echo import World
from tests.support.echo_process import EchoProcess
from tests.support.waiting import until

BROKER = echo.token("service", "broker")


async def ask(channel: grpc.aio.Channel, text: str = "x", *, timeout: float = 30.0, count: int = 0) -> str:  # noqa: ASYNC109 - it goes out on the wire
    stub: Any = echogrpc.EchoServiceStub(channel)
    request = echo_pb2.EchoRequest(text=text, count=count)
    return str((await stub.Echo(request, timeout=timeout, metadata=BROKER)).text)


def shipped(name: str, *, faster: int) -> tuple[str, int]:
    """A client's own setting of a time in milliseconds, so many times shorter."""
    return name, int(dict(client_options())[name]) // faster


# --- Servers that go and come back ---------------------------------------------------------------------------------------


async def test_a_server_that_is_killed_and_comes_back_costs_no_call() -> None:
    async with EchoProcess() as server, echo.connection(f"127.0.0.1:{server.port}") as channel:
        answered, going = 0, True

        async def work() -> None:
            nonlocal answered
            while going:
                await ask(channel)
                answered += 1

        async def has_answered(count: int) -> bool:
            return answered >= count or any(worker.done() for worker in workers)

        workers = [asyncio.create_task(work()) for _ in range(64)]  # all of them under way when it dies
        for _ in range(3):
            goal = answered + 500
            await until(lambda goal=goal: has_answered(goal))  # type: ignore[misc] # bound now
            await server.kill()
            await server.start()
        goal = answered + 500
        await until(lambda: has_answered(goal))
        going = False
        await asyncio.gather(*workers)  # would raise what a call raised


async def test_a_client_knocks_again_soon_and_never_gets_slow() -> None:
    knocks: list[float] = []

    async def slam(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        knocks.append(time.monotonic())

    async def is_patient() -> bool:
        return len(knocks) >= 11

    quick = shipped("grpc.max_reconnect_backoff_ms", faster=2)
    async with hostile.listening(slam) as port, echo.connection(f"127.0.0.1:{port}", quick) as channel:
        call = asyncio.create_task(ask(channel))
        await until(is_patient, 10)  # by gRPC's own setting the eleventh comes after some twenty seconds
        call.cancel()
    # By gRPC's own setting it begins with a second, or with the longest.
    assert min(after - before for before, after in pairwise(knocks)) < 0.3


async def test_a_client_far_away_gets_through_the_first_time() -> None:
    async with (
        echo.tcp() as world,
        hostile.far_away(world.port, way_s=0.2) as far,
        echo.connection(f"127.0.0.1:{far.port}") as channel,
    ):
        assert "x" == await ask(channel)
        assert 1 == far.connections


async def test_a_server_that_takes_connections_and_never_speaks_is_not_waited_for() -> None:
    connections = 0

    async def listen(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.read()

    async def came_again() -> bool:
        return connections >= 3

    quick = shipped("grpc.min_reconnect_backoff_ms", faster=10)
    async with hostile.listening(listen) as port, echo.connection(f"127.0.0.1:{port}", quick) as channel:
        call = asyncio.create_task(ask(channel))
        await until(came_again, 15)  # by gRPC's own setting the third comes after forty seconds
        call.cancel()


@pytest.mark.parametrize("text", ["fault", "crash", "abort", "set_code"])
async def test_what_trying_again_does_not_mend_is_not_tried_again(text: str) -> None:
    async with echo.tcp() as world:
        assert Code.UNAVAILABLE is not (await fault_of(ask(world.channel, text))).code
        assert [text] == world.servicer.reached


async def test_trying_again_stops_when_it_never_helps() -> None:
    async with echo.tcp() as world:
        results = await asyncio.gather(*(ask(world.channel, "unavailable") for _ in range(300)), return_exceptions=True)

        assert 300 == sum(isinstance(result, grpc.aio.AioRpcError) for result in results)
        assert len(world.servicer.reached) < 300 + 400  # without the throttle, 1,200


async def test_calls_spread_over_all_servers() -> None:
    async with echo.tcp() as one, echo.tcp() as other, echo.connection(echo.both(one, other)) as channel:

        async def have_both_been_asked() -> bool:
            await ask(channel)
            return bool(one.servicer.reached and other.servicer.reached)

        await until(have_both_been_asked)


# --- Servers that say nothing, or too much -------------------------------------------------------------------------------


async def test_a_server_that_falls_silent_is_missed_long_before_the_deadline() -> None:
    quick = shipped("grpc.keepalive_time_ms", faster=100), shipped("grpc.http2.ping_timeout_ms", faster=20)
    async with hostile.mute() as mute, echo.connection(mute.target, *quick) as channel:
        fault = await fault_of(asyncio.wait_for(ask(channel, timeout=120), 20))

        assert Code.UNAVAILABLE is fault.code
        assert mute.connections > 1  # it was tried again


async def test_a_quiet_call_is_kept_alive_for_as_long_as_it_takes() -> None:
    quick = shipped("grpc.keepalive_time_ms", faster=100)
    async with hostile.mute(answers_pings=True) as mute, echo.connection(mute.target, quick) as channel:
        call = asyncio.create_task(ask(channel, timeout=120))
        await until(mute.was_pinged(4), 20)  # by gRPC's own settings the third comes after a minute

        assert not call.done()
        call.cancel()


@pytest.mark.parametrize("text", ["large", "much metadata"])
async def test_an_answer_beyond_bounds_is_not_taken(text: str) -> None:
    async with echo.tcp() as world:
        assert Code.RESOURCE_EXHAUSTED is (await fault_of(ask(world.channel, text))).code


async def test_an_answer_within_bounds_is_always_taken() -> None:
    async with echo.tcp() as world:
        for _ in range(20):  # by gRPC's own settings, about every other is refused
            assert "" == await ask(world.channel, "metadata just within")


# --- Deadlines -----------------------------------------------------------------------------------------------------------


@asynccontextmanager
async def two_servers() -> AsyncIterator[tuple[World, World]]:
    """Each of them hands a request on to the other."""
    async with AsyncExitStack() as stack:
        one, other = [await stack.enter_async_context(echo.tcp(zones=echo.OPEN)) for _ in range(2)]
        one.servicer.onward = echogrpc.EchoServiceStub(other.channel).Echo
        other.servicer.onward = echogrpc.EchoServiceStub(one.channel).Echo
        yield one, other


async def test_a_deadline_goes_along_from_server_to_server_and_each_keeps_some_to_answer_in() -> None:
    async with two_servers() as (one, other):
        assert "onward" == await ask(one.channel, "onward", count=3, timeout=0.9)
        (first, third), (second,) = one.servicer.left, other.servicer.left

        assert first < 0.902  # the wire rounds up to milliseconds
        for before, after in ((first, second), (second, third)):
            assert 0 < after < before - 0.015


async def test_a_server_far_down_the_chain_refuses_what_has_too_little_time_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(deadlines, "SHORTEST_SECONDS", 0.9)  # so that a slow machine has time to refuse
    async with two_servers() as (one, other):
        fault = await fault_of(ask(one.channel, "onward", count=9, timeout=0.99))

        assert DeadlineTooShort is type(fault)
        assert 1 <= len(one.servicer.reached) + len(other.servicer.reached) <= 5


async def test_many_calls_at_once_wait_for_their_turn_and_none_is_refused() -> None:
    async with echo.tcp(zones=echo.OPEN) as world, echo.connection(world.target, ("grpc.enable_retries", 0)) as channel:
        method: Any = echogrpc.EchoServiceStub(channel).Echo
        request = echo_pb2.EchoRequest(text="slow")

        async def work() -> None:
            for _ in range(4):
                await deadlines.call(method, request, timeout=30)

        await asyncio.gather(*(work() for _ in range(500)))

        assert 2000 == len(world.servicer.reached)
        assert 0 < world.servicer.most_at_once <= deadlines.AT_ONCE


async def test_whoever_waits_for_a_turn_gives_up_in_time() -> None:
    async with echo.tcp(zones=echo.OPEN) as world:
        method: Any = echogrpc.EchoServiceStub(world.channel).Echo
        waiting = [
            asyncio.create_task(deadlines.call(method, echo_pb2.EchoRequest(text="hold"), timeout=30))
            for _ in range(deadlines.AT_ONCE)
        ]
        await asyncio.wait_for(world.servicer.waiting.wait(), 5)
        with pytest.raises(DeadlineTooShort):
            await deadlines.call(method, echo_pb2.EchoRequest(text="x"), timeout=0.2)
        world.servicer.held.set()

        assert ["held"] * deadlines.AT_ONCE == [answer.text for answer in await asyncio.gather(*waiting)]
        assert "x" == (await deadlines.call(method, echo_pb2.EchoRequest(text="x"))).text


async def test_a_marketer_with_many_calls_at_once_is_never_refused() -> None:
    async with echo.tcp(zones=echo.OPEN) as world, Connection(world.target) as connection:
        method: Any = echogrpc.EchoServiceStub(connection.channel).Echo
        request = echo_pb2.EchoRequest(text="slow")
        await asyncio.gather(*(connection.call(method, request) for _ in range(1000)))

        assert 1000 == len(world.servicer.reached)
        assert 0 < world.servicer.most_at_once <= AT_ONCE
