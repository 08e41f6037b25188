"""What a server bounds, seen from outside: how much a caller may have under way, and what a connection may do."""

import asyncio
import zlib
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from parley_kit.faults import Code, TooManyCalls
from parley_rpc import chain, deadlines
from parley_rpc.channels import CannotListen, client_options
from parley_rpc.interceptors import limits
from parley_rpc.server import MAX_REQUEST_BYTES, OPTIONS
from parley_rpc.status import fault_from
from tests.support import echo, echo_pb2, hostile
from tests.support import echo_pb2_grpc as echogrpc
from tests.support.calls import fault_of
from tests.support.echo import SERVICE, World
from tests.support.echo_process import EchoProcess
from tests.support.waiting import until

WAIT = echo_pb2.EchoRequest(text="wait").SerializeToString()
Token = tuple[tuple[str, str], ...]
ANN, BEN = echo.token("operator", "ann"), echo.token("operator", "ben")
NOBODY: Token = ()
AT_ONCE = OPTIONS["grpc.max_concurrent_streams"]
MUCH = [(f"x-{number}", "v" * 10_000) for number in range(30)]


def shipped(name: str, *, faster: int) -> dict[str, int]:
    """A server's own setting of a time in milliseconds, so many times shorter."""
    return {name: OPTIONS[name] // faster}


async def ask(channel: grpc.aio.Channel, token: Token, text: str = "x") -> str:
    stub: Any = echogrpc.EchoServiceStub(channel)
    answer = await stub.Echo(echo_pb2.EchoRequest(text=text), timeout=30, metadata=token)
    return str(answer.text)


@asynccontextmanager
async def flooded(world: World, token: Token, count: int) -> AsyncIterator[None]:
    """So many calls of one caller are under way and wait, over as many connections as they need."""

    async with AsyncExitStack() as stack:
        calls = []
        for start in range(0, count, AT_ONCE):
            channel = await stack.enter_async_context(echo.connection(world.target))
            stub: Any = echogrpc.EchoServiceStub(channel)
            request = echo_pb2.EchoRequest(text="wait")
            calls += [stub.Echo(request, timeout=60, metadata=token) for _ in range(min(count - start, AT_ONCE))]
        await until(lambda: have_reached(world, count))
        yield


async def have_reached(world: World, count: int) -> bool:
    return count == len(world.servicer.reached)


# --- How much a caller may have under way --------------------------------------------------------------------------------


async def test_a_caller_who_floods_leaves_others_alone() -> None:
    async with echo.tcp() as world, flooded(world, ANN, limits.EACH.calls):
        refused = [await fault_of(ask(world.channel, ANN)) for _ in range(5)]

        assert [(TooManyCalls, Code.RESOURCE_EXHAUSTED, limits.RETRY_SECONDS)] * 5 == [
            (type(fault), fault.code, fault.retry_after) for fault in refused
        ]
        assert limits.EACH.calls == len(world.servicer.reached)
        for other in (BEN, echo.token("customer", "ann"), world.token):  # the same id of another kind is somebody else
            assert ["x"] * 20 == await asyncio.gather(*(ask(world.channel, other) for _ in range(20)))


async def test_a_caller_with_one_connection_is_never_refused() -> None:
    async with echo.tcp() as world, echo.connection(world.target) as connection:

        async def work() -> list[str]:
            return [await ask(connection, ANN, "hold"), *[await ask(connection, ANN) for _ in range(10)]]

        working = [asyncio.create_task(work()) for _ in range(AT_ONCE)]
        await until(lambda: have_reached(world, AT_ONCE))
        world.servicer.held.set()

        assert [["held", *["x"] * 10]] * AT_ONCE == await asyncio.gather(*working)


async def test_services_are_not_limited() -> None:
    async with echo.tcp() as world, flooded(world, world.token, 2 * limits.EACH.calls):
        assert "x" == await ask(world.channel, world.token)


@pytest.mark.parametrize("text", ["hello", "fault", "crash", "abort", "nothing", "cancel yourself", "missing"])
async def test_a_call_that_has_ended_leaves_its_place(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "EACH", limits.Allowance(1, 1))
    async with echo.tcp() as world:
        for _ in range(3):
            with suppress(grpc.aio.AioRpcError):
                await ask(world.channel, ANN, text)
            await until(lambda: is_answered(ask(world.channel, ANN)))


@pytest.mark.parametrize("how", ["cancel", "deadline", "connection"])
async def test_a_call_that_was_left_leaves_its_place(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "EACH", limits.Allowance(1, 1))
    async with echo.tcp() as world, hostile.Wire(world.port) as wire:
        stream = wire.open(metadata=ANN, timeout="2S" if how == "deadline" else "60S")
        await wire.send(stream, WAIT)
        await asyncio.wait_for(world.servicer.waiting.wait(), 5)
        if how != "deadline":
            assert TooManyCalls is type(await fault_of(ask(world.channel, ANN)))
        if how == "cancel":
            wire.reset(stream)
            await wire.flush()
        if how == "connection":
            wire.abort()

        await until(lambda: is_answered(ask(world.channel, ANN)))


async def is_refused(call: Awaitable[object]) -> bool:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        fault = fault_from(error)
        if not isinstance(fault, TooManyCalls):
            raise fault from None
        return True
    return False


async def is_answered(call: Awaitable[object]) -> bool:
    return not await is_refused(call)


async def test_in_one_process_a_call_that_has_ended_leaves_its_place_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "EACH", limits.Allowance(1, 1))
    async with echo.inprocess() as world:
        for text in ("hello", "fault", "crash", "abort", "cancel yourself"):
            with suppress(grpc.aio.AioRpcError):
                await ask(world.open_channel, ANN, text)
            assert "x" == await ask(world.open_channel, ANN)
        waiting = asyncio.create_task(ask(world.open_channel, ANN, "wait"))
        await asyncio.wait_for(world.servicer.waiting.wait(), 5)
        assert TooManyCalls is type(await fault_of(ask(world.open_channel, ANN)))
        waiting.cancel()
        await until(lambda: is_answered(ask(world.open_channel, ANN)))


async def test_an_answer_that_is_not_read_keeps_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "EACH", limits.Allowance(1, 1))
    async with echo.tcp() as world:
        async with hostile.Wire(world.port) as wire:
            stream = wire.open(metadata=ANN)
            await wire.send(stream, echo_pb2.EchoRequest(text="large").SerializeToString())
            await until(lambda: have_reached(world, 1))  # else asking could take the place first
            refused = [await fault_of(ask(world.channel, ANN)) for _ in range(3)]

            assert [TooManyCalls] * 3 == [type(fault) for fault in refused]
        await until(lambda: is_answered(ask(world.channel, ANN)))


async def test_one_who_shows_no_token_and_reads_nothing_keeps_nobody_else_out() -> None:
    async with echo.tcp(zones=echo.OPEN) as world, hostile.Wire(world.port) as wire:
        await wire.take_nothing()
        for _ in range(limits.ALL_UNKNOWN.calls):
            await wire.send(wire.open(), echo_pb2.EchoRequest(text="x").SerializeToString())
        await until(lambda: have_reached(world, limits.ALL_UNKNOWN.calls))

        assert ["x"] * 5 == [await ask(world.channel, NOBODY) for _ in range(5)]


async def test_a_stream_whose_first_answer_is_not_read_keeps_its_place_until_it_can_be_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "EACH", limits.Allowance(1, 1))
    monkeypatch.setattr(chain, "WRITE_SECONDS", 0.1)
    async with echo.tcp() as world, hostile.Wire(world.port) as wire:
        stub: Any = echogrpc.EchoServiceStub(world.channel)
        request = echo_pb2.EchoRequest(text="x", count=1)

        def another() -> Any:
            return stub.Repeat(request, timeout=30, metadata=ANN).read()

        await wire.take_nothing()
        stream = wire.open("Repeat", ANN)
        await wire.send(stream, request.SerializeToString())
        await asyncio.wait_for(world.servicer.closed.wait(), 15)
        refused = [await fault_of(another()) for _ in range(3)]
        wire.take(stream)

        assert [TooManyCalls] * 3 == [type(fault) for fault in refused]
        assert "UNAVAILABLE" == (await wire.answered(stream)).reason()
        await until(lambda: is_answered(another()))


async def test_a_streams_first_answer_waits_no_longer_for_a_socket_that_is_full(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(chain, "WRITE_SECONDS", 0.1)
    async with echo.tcp() as world, hostile.Wire(world.port) as wire:
        await wire.promise_to_take()
        for _ in range(8):
            await wire.send(wire.open(metadata=ANN), echo_pb2.EchoRequest(text="large").SerializeToString())
        await until(lambda: have_reached(world, 8))
        stream = wire.open("Repeat", ANN)
        await wire.send(stream, echo_pb2.EchoRequest(text="x", count=1).SerializeToString())
        await asyncio.wait_for(world.servicer.closed.wait(), 5)


async def test_streams_are_counted_apart_and_are_few() -> None:
    async with echo.tcp() as world, flooded(world, ANN, limits.EACH.calls):
        stub: Any = echogrpc.EchoServiceStub(world.channel)
        request = echo_pb2.EchoRequest(text="wait", count=1)

        def opened(token: Token) -> Any:
            return stub.Repeat(request, timeout=60, metadata=token)

        streams = [opened(ANN) for _ in range(limits.EACH.streams)]
        assert ["wait"] * len(streams) == [(await stream.read()).text for stream in streams]

        assert TooManyCalls is type(await fault_of(opened(ANN).read()))
        assert "wait" == (await opened(BEN).read()).text
        streams[0].cancel()
        await until(lambda: is_answered(opened(ANN).read()))


async def test_callers_without_a_token_share_what_is_theirs_and_take_nothing_of_others() -> None:
    async with echo.tcp(zones=echo.OPEN) as world, flooded(world, NOBODY, limits.ALL_UNKNOWN.calls):
        async with echo.connection(world.target) as somebody_else:
            assert TooManyCalls is type(await fault_of(ask(somebody_else, NOBODY)))
        working = [asyncio.create_task(ask(world.channel, ANN, "hold")) for _ in range(AT_ONCE)]
        await until(lambda: have_reached(world, limits.ALL_UNKNOWN.calls + AT_ONCE))
        world.servicer.held.set()

        assert ["held"] * AT_ONCE == await asyncio.gather(*working)


async def test_a_flood_does_not_make_a_server_look_dead() -> None:
    async with echo.tcp(zones=echo.OPEN) as world, flooded(world, NOBODY, limits.ALL_UNKNOWN.calls):
        stub: Any = health_pb2_grpc.HealthStub(world.channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=5)

        assert health_pb2.HealthCheckResponse.SERVING == answer.status


def test_documents_tell_what_a_caller_may_have_under_way() -> None:
    told = " ".join((Path(__file__).parents[2] / "docs/architecture.md").read_text(encoding="utf-8").split())

    assert f"has up to {limits.EACH.calls} calls and {limits.EACH.streams} streams under way" in told
    assert f"shares {limits.ALL_UNKNOWN.calls} with everybody who doesn't" in told


# --- The order of the guards ---------------------------------------------------------------------------------------------


async def test_a_call_that_breaks_every_guard_meets_them_from_the_outside_in(monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = (("authorization", "operator:ann:parley.vault.v1.VaultService"),)
    breaks_a_rule = echo_pb2.EchoRequest(text="x" * 2000)
    and_is_large = echo_pb2.EchoRequest(text="x" * 2000, padding=bytes(MAX_REQUEST_BYTES + 1))
    async with echo.tcp() as world:

        async def reason(
            method: str, request: echo_pb2.EchoRequest, token: Token, more: Sequence[tuple[str, str]] = ()
        ) -> str:
            while True:
                async with hostile.Wire(world.port) as wire:
                    stream = wire.open(method, [*token, *more])
                    await wire.send(stream, request.SerializeToString())
                    answer = await wire.answered(stream)
                if not answer.is_grpcs_own:  # it comes first where SETTINGS were acknowledged in time
                    return answer.reason()

        async with flooded(world, ANN, limits.EACH.calls):
            monkeypatch.setattr(deadlines, "SHORTEST_SECONDS", 3600.0)
            world.servicer.reached.clear()
            outside_in = [
                await reason("Hidden", and_is_large, elsewhere, MUCH),
                await reason("Hidden", and_is_large, elsewhere),
                await reason("Hidden", and_is_large, ANN),
                await reason("Echo", and_is_large, ANN),
            ]
        await until(lambda: no_more_under_way(world))
        outside_in.append(await reason("Echo", and_is_large, ANN))
        monkeypatch.undo()
        outside_in.append(await reason("Echo", and_is_large, ANN))
        outside_in.append(await reason("Echo", breaks_a_rule, ANN))

        assert [
            "TOO_LARGE",
            "UNAUTHENTICATED",
            "CALLER_NOT_ALLOWED",
            "TOO_MANY_CALLS",
            "DEADLINE_TOO_SHORT",
            "TOO_LARGE",
            "INVALID_REQUEST",
        ] == outside_in
        assert [] == world.servicer.reached
        await until(lambda: are_counted(world, limits.EACH.calls + 6))
        # Outside of what counts stands only the guard of metadata: every other refusal was counted, under its own code.
        assert {
            "Echo CANCELLED": limits.EACH.calls,
            "Hidden UNAUTHENTICATED": 1,
            "Hidden PERMISSION_DENIED": 1,
            "Echo RESOURCE_EXHAUSTED": 2,
            "Echo DEADLINE_EXCEEDED": 1,
            "Echo INVALID_ARGUMENT": 1,
        } == counted(world)


async def no_more_under_way(world: World) -> bool:
    return limits.EACH.calls == counted(world).get("Echo CANCELLED")


async def are_counted(world: World, calls: int) -> bool:
    return calls == sum(counted(world).values())


def counted(world: World) -> dict[str, float]:
    """How many calls ended how, by method and code."""
    return {
        f"{sample.labels['method'].removeprefix(f'{SERVICE}/')} {sample.labels['code']}": sample.value
        for metric in world.registry.collect()
        for sample in metric.samples
        if sample.name == "parley_rpc_calls_total"
    }


# --- Connections that are no client's ------------------------------------------------------------------------------------


async def test_half_open_and_silent_connections_are_closed_and_honest_ones_are_not() -> None:
    async with echo.tcp(tls=grpc.ssl_server_credentials([hostile.self_signed()])) as world:
        said = [
            (world.port, b""),
            (world.port, hostile.PREFACE[:10]),
            (world.port, hostile.PREFACE),
            (world.port, hostile.PREFACE + hostile.NO_SETTINGS),
            (world.tls_port, b""),
            (world.tls_port, hostile.HALF_A_CLIENT_HELLO),
        ]
        honest = await ask(world.channel, ANN, "peer")

        assert [False] * len(said) == await asyncio.gather(*(hostile.outlasts(*each, seconds=8) for each in said))
        assert honest == await ask(world.channel, ANN, "peer")


async def test_metadata_that_no_setting_was_read_for_never_reaches_a_handler() -> None:
    async with echo.tcp() as world:
        while True:
            async with hostile.Wire(world.port) as wire:
                stream = wire.open(metadata=[*ANN, *MUCH])  # before it has read the server's SETTINGS
                await wire.send(stream, echo_pb2.EchoRequest(text="x").SerializeToString())
                answer = await wire.answered(stream)
            if not answer.is_grpcs_own:  # it had read them in time
                break

        assert ("8", "TOO_LARGE") == (answer.headers["grpc-status"], answer.reason())
        assert [] == world.servicer.reached


async def test_metadata_against_the_settings_is_refused_by_the_transport() -> None:
    async with echo.tcp() as world, hostile.Wire(world.port) as wire:
        await wire.greeted()
        stream = wire.open(metadata=[*ANN, *MUCH])
        await wire.send(stream, WAIT)
        await wire.until(lambda: wire.answers[stream].ended)

        assert "received metadata size exceeds" in wire.answers[stream].headers["grpc-message"]
        assert {} == counted(world)


async def test_metadata_that_keeps_to_the_settings_always_passes() -> None:
    """By default gRPC refuses what is longer than 8 KiB, the more often the longer it is."""
    async with echo.tcp() as world:
        long = (*ANN, *((f"x-{number}", "v" * 1_000) for number in range(14)))
        for _ in range(20):
            assert "some" == await ask(world.channel, long, "some")


async def test_a_small_message_that_unpacks_to_a_huge_one_is_refused_cheaply() -> None:
    packer = zlib.compressobj(wbits=31)
    bomb = b"".join(packer.compress(bytes(1024 * 1024)) for _ in range(200)) + packer.flush()
    async with EchoProcess() as server, echo.connection(f"127.0.0.1:{server.port}") as channel:
        before = int(await ask(channel, ANN, "peak"))
        async with hostile.Wire(server.port) as wire:
            for _ in range(5):
                stream = wire.open(metadata=[*ANN, ("grpc-encoding", "gzip")])
                await wire.send(stream, bomb, compressed=True)
                await wire.until(lambda stream=stream: wire.answers[stream].ended)  # type: ignore[misc] # bound now
                assert "8" == wire.answers[stream].headers["grpc-status"]
        grown = int(await ask(channel, ANN, "peak")) - before

        assert len(bomb) < 1024 * 1024
        assert grown < 64 * 1024


async def test_streams_beyond_what_a_connection_may_have_are_refused_and_honest_calls_are_not() -> None:
    async with echo.tcp() as world, hostile.Wire(world.port) as wire:
        await wire.greeted()
        assert AT_ONCE == wire.allowed
        wire.allow(10_000)
        streams = [wire.open() for _ in range(150)]  # by their headers alone
        wire.ping()
        await wire.until(lambda: wire.pings == 1 and sum(wire.answers[stream].ended for stream in streams) >= 50)

        assert (100, 50) == tuple(sum(wire.answers[stream].reset == code for stream in streams) for code in (None, 7))
        assert ["x"] * 50 == await asyncio.gather(*(ask(world.channel, ANN) for _ in range(50)))


async def test_streams_that_are_opened_and_reset_without_end_leave_honest_calls_alone() -> None:
    async with (
        echo.tcp() as world,
        echo.connection(world.target, ("grpc.enable_retries", 0)) as honest,
        hostile.Wire(world.port) as wire,
    ):
        await wire.greeted()
        await ask(honest, ANN)
        for _ in range(10_000):
            wire.reset(wire.open())
        attacking = asyncio.create_task(wire.flush())

        for _ in range(5):
            assert ["x"] * 50 == await asyncio.gather(*(ask(honest, ANN) for _ in range(50)))
        await attacking


async def test_pings_without_end_get_a_goodbye() -> None:
    async with echo.tcp() as world, hostile.Wire(world.port) as wire:
        await wire.send(wire.open(metadata=ANN), WAIT)
        for _ in range(10):
            wire.ping()
        await wire.until(lambda: wire.goodbye)

        assert (11, b"too_many_pings") == (wire.goodbye.error_code, wire.goodbye.additional_data)  # type: ignore[union-attr] # there


async def test_pings_as_often_as_our_own_client_sends_them_are_welcome() -> None:
    pause = dict(client_options())["grpc.keepalive_time_ms"]
    options = shipped("grpc.http2.min_ping_interval_without_data_ms", faster=100)
    async with echo.tcp(options=options) as world, hostile.Wire(world.port) as wire:
        await wire.send(wire.open(metadata=ANN), WAIT)
        for number in range(6):  # gRPC itself would say goodbye to the fourth
            wire.ping()
            await wire.until(lambda number=number: wire.pings > number or wire.goodbye)  # type: ignore[misc] # bound now
            await asyncio.sleep(int(pause) / 100 / 1000)

        assert (6, None) == (wire.pings, wire.goodbye)


async def test_a_connection_that_nobody_uses_is_closed() -> None:
    options = shipped("grpc.max_connection_idle_ms", faster=1000)
    async with echo.tcp(options=options) as world, hostile.Wire(world.port) as wire:
        await wire.until(lambda: wire.goodbye)

        assert b"connection idle" == wire.goodbye.additional_data  # type: ignore[union-attr] # there


async def test_a_client_that_is_gone_without_a_word_is_missed() -> None:
    options = shipped("grpc.keepalive_time_ms", faster=200) | shipped("grpc.http2.ping_timeout_ms", faster=20)
    async with echo.tcp(options=options) as world, hostile.Wire(world.port) as wire:
        await wire.greeted()
        stream = wire.open("Repeat", ANN, timeout="100S")
        await wire.send(stream, echo_pb2.EchoRequest(text="wait", count=1).SerializeToString())
        await wire.until(lambda: wire.answers[stream].body)

        await asyncio.wait_for(world.servicer.cancelled.wait(), 10)  # it still holds the connection, and says nothing


async def test_connections_end_by_age_and_a_clients_calls_go_on() -> None:
    options = shipped("grpc.max_connection_age_ms", faster=1000)
    async with echo.tcp(options=options) as world:
        held = asyncio.create_task(ask(world.channel, ANN, "hold"))  # on the first of them
        await asyncio.wait_for(world.servicer.waiting.wait(), 5)
        connections: set[str] = set()

        async def has_moved_on() -> bool:
            connections.add(await ask(world.channel, ANN, "peer"))
            return len(connections) == 3

        await until(has_moved_on)
        world.servicer.held.set()

        assert "held" == await held
        assert 1 == world.servicer.reached.count("hold")


async def test_what_outlives_its_connections_grace_is_ended() -> None:
    options = shipped("grpc.max_connection_age_ms", faster=1000) | shipped(
        "grpc.max_connection_age_grace_ms", faster=100
    )
    async with echo.tcp(options=options) as world:
        stub: Any = echogrpc.EchoServiceStub(world.channel)
        stream = stub.Repeat(echo_pb2.EchoRequest(text="wait", count=1), metadata=ANN)
        await stream.read()

        assert Code.UNAVAILABLE is (await fault_of(asyncio.wait_for(stream.read(), 10))).code
        await asyncio.wait_for(world.servicer.cancelled.wait(), 5)


async def test_two_servers_never_share_a_port() -> None:
    async with echo.tcp() as world:
        with pytest.raises(CannotListen, match="it is taken"):
            async with echo.tcp(port=world.port):
                pass
