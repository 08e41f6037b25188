"""One list of promises, kept by every transport: a service can't tell how it was called."""

import asyncio
import json
import math
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from parley_kit.clock import SystemClock
from parley_kit.faults import (
    CallerNotAllowed,
    ClocksApart,
    Code,
    DeadlineTooShort,
    Fault,
    Internal,
    InvalidRequest,
    TooLarge,
    Unauthenticated,
    Unavailable,
    Violation,
)
from parley_kit.telemetry import SILENT
from parley_rpc import chain, deadlines
from parley_rpc.calling import TIME, CallingChannel
from parley_rpc.inproc import InprocessHub
from parley_rpc.principal import caller
from parley_rpc.status import ForeignFault, Unimplemented, fault_from
from tests.support import echo, echo_pb2, echo_pb2_grpc
from tests.support.echo import SECRET, SERVICE, World

Transport = Callable[[Path], AbstractAsyncContextManager[World]]


NETWORKED = {"unix": echo.unix, "tcp": echo.tcp, "unix with mtls": echo.mtls, "tcp with mtls": echo.mtls_tcp}
TRANSPORTS = {"inprocess": echo.inprocess, **NETWORKED}


@pytest.fixture(params=[*TRANSPORTS.values()], ids=[*TRANSPORTS])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    async with request.param(tmp_path) as served:
        yield served


@pytest.fixture(params=[*NETWORKED.values()], ids=[*NETWORKED])
async def networked(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    async with request.param(tmp_path) as served:
        yield served


async def refusal(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def fault_of(call: Any) -> Fault:
    return fault_from(await refusal(call))


async def counted(world: World, method: str, code: str) -> float | None:
    labels = {"method": f"{SERVICE}/{method}", "code": code}
    async with asyncio.timeout(5):  # over a network the status arrives a moment before the server is done counting
        while (count := world.registry.get_sample_value("parley_rpc_calls_total", labels)) is None:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.001)
    return count


async def test_answer_comes_back_with_the_caller_known(world: World) -> None:
    answer = await world.call("hello", padding=b"\x00\xff")

    assert (answer.text, answer.caller, answer.padding) == ("hello", "service:broker", b"\x00\xff")


# --- What time it is -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("minutes", [-11, 11])
async def test_service_whose_clock_is_far_off_is_refused(world: World, minutes: int) -> None:
    channel = CallingChannel(world.channel, SystemClock(timedelta(minutes=minutes)), SILENT.tracer)
    call = echo_pb2_grpc.EchoServiceStub(channel).Echo(echo_pb2.EchoRequest(), timeout=5, metadata=world.token)
    fault = await fault_of(call)

    assert (ClocksApart, True, []) == (type(fault), fault.retry_after is not None, world.servicer.reached)


async def test_it_is_logged_who_is_refused_for_a_clock_and_not_each_time(world: World) -> None:
    for _ in range(3):
        assert ClocksApart is type(await fault_of(world.call("hello", metadata=((TIME, "0"),))))
    told = [line for line in map(json.loads, world.logged.getvalue().splitlines()) if line["event"] == "clocks_apart"]
    assert ["broker"] == [line["caller"] for line in told]


@pytest.mark.parametrize("minutes", [-9, 0, 9])
async def test_service_whose_clock_is_about_right_is_answered(world: World, minutes: int) -> None:
    channel = CallingChannel(world.channel, SystemClock(timedelta(minutes=minutes)), SILENT.tracer)
    call = echo_pb2_grpc.EchoServiceStub(channel).Echo(echo_pb2.EchoRequest(), timeout=5, metadata=world.token)
    assert (await call).caller == "service:broker"


@pytest.mark.parametrize("said", ["", "noon", "-1", "9" * 40])
async def test_service_that_says_no_time_at_all_but_says_it_is_refused(world: World, said: str) -> None:
    assert ClocksApart is type(await fault_of(world.call("hello", metadata=((TIME, said),))))


async def test_clock_of_whoever_is_no_service_is_their_own_affair(world: World) -> None:
    metadata = (*echo.token("customer", "c1"), (TIME, "0"))
    assert "customer:c1" == (await world.open_stub.Echo(echo_pb2.EchoRequest(), timeout=5, metadata=metadata)).caller


# --- What goes wrong -------------------------------------------------------------------------------------------------------


async def test_fault_arrives_with_all_its_details(world: World) -> None:
    fault = await fault_of(world.call("fault"))

    assert (InvalidRequest, "Mend it.") == (type(fault), fault.message)
    assert fault.metadata == {"field": "text"}
    assert (Violation("text", "is wrong"),) == fault.violations
    assert fault.retry_after == 1.5


async def test_status_is_byte_for_byte_what_the_fault_says(world: World) -> None:
    error = await refusal(world.call("fault"))
    status: Status = rpc_status.from_call(error)

    assert (error.code(), error.details()) == (grpc.StatusCode.INVALID_ARGUMENT, "Mend it.")
    assert [d.type_url.rpartition(".")[2] for d in status.details] == ["ErrorInfo", "BadRequest", "RetryInfo"]


async def test_crash_tells_the_caller_an_error_id_and_nothing_else(world: World) -> None:
    error = await refusal(world.call("crash"))
    fault = fault_from(error)

    assert (Internal, ["error_id"]) == (type(fault), list(fault.metadata))
    assert SECRET not in repr(error) + repr(error.trailing_metadata())
    assert "ValueError" not in repr(error) + repr(error.trailing_metadata())


async def test_error_id_finds_the_log_line_which_holds_types_and_frames_only(world: World) -> None:
    fault = await fault_of(world.call("crash"))
    line = json.loads(world.logged.getvalue())

    assert (fault.metadata["error_id"], "ValueError", "broker") == (
        line["error_id"],
        line["error_type"],
        line["caller"],
    )
    assert "support/echo.py" in line["where"]
    assert SECRET not in world.logged.getvalue()


async def test_what_a_callers_program_calls_its_request_and_trace_is_not_in_the_log(world: World) -> None:
    own = "5e11ab1e5e11ab1e5e11ab1e5e11ab1e"
    await refusal(world.call("crash", metadata=[("traceparent", f"00-{own}-{own[:16]}-01"), ("x-request-id", own)]))
    line = json.loads(world.logged.getvalue())

    assert own[:16] not in world.logged.getvalue()
    assert 32 == len(line["request_id"])


async def test_response_of_the_wrong_type_is_a_defect_like_any_other(world: World) -> None:
    assert Internal is type(await fault_of(world.call("nothing")))


async def test_handler_may_abort_for_itself(world: World) -> None:
    error = await refusal(world.call("abort"))

    assert (error.code(), error.details()) == (grpc.StatusCode.NOT_FOUND, "gone")
    assert await counted(world, "Echo", "NOT_FOUND") == 1.0


async def test_handler_may_end_with_a_code_of_its_own(world: World) -> None:
    error = await refusal(world.call("set_code"))

    assert (error.code(), error.details()) == (grpc.StatusCode.DATA_LOSS, "lost")


async def test_unlisted_method_is_refused_before_the_request_is_read(world: World) -> None:
    # Hidden is served, and the request breaks a rule: only the refusal may show.
    fault = await fault_of(world.call("x" * 2000, method="Hidden"))

    assert CallerNotAllowed is type(fault)
    assert world.servicer.reached == []


async def test_nobody_gets_unauthenticated_where_somebody_is_listed(world: World) -> None:
    fault = await fault_of(world.open_stub.Echo(echo_pb2.EchoRequest(text="x"), timeout=5))

    assert Unauthenticated is type(fault)


async def test_token_makes_the_caller(world: World) -> None:
    token = (("authorization", f"customer:c1:{SERVICE}"),)

    assert (await world.open_stub.Echo(echo_pb2.EchoRequest(), timeout=5, metadata=token)).caller == "customer:c1"


async def test_kind_that_is_not_listed_is_refused(world: World) -> None:
    token = (("authorization", f"marketer:m1:{SERVICE}"),)
    fault = await fault_of(world.open_stub.Echo(echo_pb2.EchoRequest(), timeout=5, metadata=token))

    assert CallerNotAllowed is type(fault)


async def test_token_for_another_service_is_refused(world: World) -> None:
    token = (("authorization", "customer:c1:parley.vault.v1.VaultService"),)
    fault = await fault_of(world.open_stub.Echo(echo_pb2.EchoRequest(), timeout=5, metadata=token))

    assert Unauthenticated is type(fault)


async def test_two_tokens_are_one_too_many(world: World) -> None:
    token = ("authorization", f"customer:c1:{SERVICE}")
    fault = await fault_of(world.open_stub.Echo(echo_pb2.EchoRequest(), timeout=5, metadata=(token, token)))

    assert Unauthenticated is type(fault)


async def test_broken_rule_is_named_and_nothing_is_called(world: World) -> None:
    fault = await fault_of(world.call("x" * 1025))

    assert [Violation("text", "is longer than 1024 characters")] == list(fault.violations)
    assert world.servicer.reached == []


async def test_bytes_that_are_no_message_are_an_invalid_request(world: World) -> None:
    raw: Any = world.channel.unary_unary(f"/{SERVICE}/Echo")
    fault = await fault_of(raw(b"\xff\xff\xff", timeout=5, metadata=world.token))

    assert InvalidRequest is type(fault)


async def test_field_from_the_future_is_refused(world: World) -> None:
    raw: Any = world.channel.unary_unary(f"/{SERVICE}/Echo")
    fault = await fault_of(raw(b"\xa0\x06\x01", timeout=5, metadata=world.token))

    assert fault.violations[0].description == "holds fields that this version does not know: [100]"


async def test_method_that_is_left_out_and_one_that_never_was_look_alike(world: World) -> None:
    unknown: Any = world.channel.unary_unary(f"/{SERVICE}/Never")

    for call in (world.call("x", method="Missing"), unknown(b"", timeout=5)):
        assert Unimplemented is type(await fault_of(call))


async def test_big_request_is_refused(world: World) -> None:
    fault = await fault_of(world.call("x", padding=bytes(1024 * 1024)))

    assert TooLarge is type(fault)
    assert "1,048,576 bytes" in fault.message
    assert world.servicer.reached == []


async def test_request_that_is_much_too_big_is_not_even_held(networked: World) -> None:
    fault = await fault_of(networked.call("x", padding=bytes(2 * 1024 * 1024)))

    # By gRPC, from the message's announced length.
    assert (ForeignFault, Code.RESOURCE_EXHAUSTED) == (type(fault), fault.code)


async def test_request_just_under_the_limit_passes(world: World) -> None:
    assert len((await world.call("x", padding=bytes(1_000_000))).padding) == 1_000_000


async def test_too_much_metadata_is_refused(world: World) -> None:
    fault = await fault_of(world.call("x", metadata=[(f"x-{i}", "v" * 1000) for i in range(18)]))

    assert Code.RESOURCE_EXHAUSTED is fault.code
    assert world.servicer.reached == []


async def test_many_small_entries_count_with_their_overhead(world: World) -> None:
    fault = await fault_of(world.call("x", metadata=[(f"x-{i}", "") for i in range(480)]))

    assert Code.RESOURCE_EXHAUSTED is fault.code


async def test_metadata_travels_both_ways(world: World) -> None:
    call = world.call("metadata", metadata=(("x-sent", "hello"),))

    assert (await call).text == "hello"
    assert (await call.initial_metadata())["x-initial"] == "first"
    assert (
        (await call.trailing_metadata())["x-trailing"],
        (await call.trailing_metadata())["x-bytes-bin"],
    ) == ("last", b"\x00\xff")


async def test_deadline_ends_the_call_and_cancels_the_handler(world: World) -> None:
    error = await refusal(world.call("wait", timeout=0.3))

    assert grpc.StatusCode.DEADLINE_EXCEEDED is error.code()
    await asyncio.wait_for(world.servicer.cancelled.wait(), 5)


async def test_too_short_a_deadline_is_refused_without_work(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "SHORTEST_SECONDS", 60.0)
    fault = await fault_of(world.call("x", timeout=30))

    assert (DeadlineTooShort, []) == (type(fault), world.servicer.reached)


async def test_call_without_a_deadline_gets_one(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadlines, "DEFAULT_SECONDS", 0.05)
    stub: Any = world.channel.unary_unary(f"/{SERVICE}/Echo", echo_pb2.EchoRequest.SerializeToString)
    fault = await fault_of(stub(echo_pb2.EchoRequest(text="wait"), metadata=world.token))

    assert DeadlineTooShort is type(fault)
    assert world.servicer.cancelled.is_set()


async def test_cancelled_call_cancels_the_handler(world: World) -> None:
    call = world.call("wait")
    await asyncio.wait_for(world.servicer.waiting.wait(), 5)

    assert call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await asyncio.wait_for(world.servicer.cancelled.wait(), 5)
    assert (call.cancelled(), call.done()) == (True, True)


async def test_cancelled_caller_cancels_the_handler(world: World) -> None:
    async def call() -> None:
        await world.call("wait")

    task = asyncio.create_task(call())
    await asyncio.wait_for(world.servicer.waiting.wait(), 5)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(world.servicer.cancelled.wait(), 5)


async def test_handler_that_meets_a_foreign_cancellation_answers_at_once(world: World) -> None:
    assert Internal is type(await fault_of(world.call("cancel yourself", timeout=60)))


async def test_context_variables_do_not_cross(world: World) -> None:
    echo.outside.set("something")

    assert (await world.call("context")).text == "nothing"


async def test_caller_is_forgotten_after_the_call(world: World) -> None:
    await world.call("x")

    with pytest.raises(LookupError):
        caller()


async def test_calls_are_counted_by_how_they_ended(world: World) -> None:
    await world.call("x")
    await refusal(world.call("fault"))
    await refusal(world.call("x", method="Hidden"))

    assert await counted(world, "Echo", "OK") == 1.0
    assert await counted(world, "Echo", "INVALID_ARGUMENT") == 1.0
    assert await counted(world, "Hidden", "PERMISSION_DENIED") == 1.0


async def test_many_calls_at_once_each_get_their_own_answer(world: World) -> None:
    answers = await asyncio.gather(*(world.call(str(i)) for i in range(50)))

    assert [str(i) for i in range(50)] == [answer.text for answer in answers]


class Tokened:
    """A stub's method that shows the broker's token, as ``call`` finds it in a service, and keeps the deadline it got."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.seconds = math.inf

    def __call__(self, request: echo_pb2.EchoRequest, *, timeout: float) -> Any:
        self.seconds = timeout
        return self._world.call(request.text, timeout=timeout)


async def test_helper_raises_the_fault_that_was_raised(world: World) -> None:
    method: Any = Tokened(world)

    with pytest.raises(InvalidRequest, match=r"Mend it\."):
        await deadlines.call(method, echo_pb2.EchoRequest(text="fault"))


async def test_helper_hands_on_what_is_left_of_the_deadline(world: World) -> None:
    method: Any = Tokened(world)

    async def handle() -> Fault:
        deadlines.remember(0.3)
        with pytest.raises(Fault) as caught:
            await deadlines.call(method, echo_pb2.EchoRequest(text="wait"))
        return caught.value

    assert Code.DEADLINE_EXCEEDED is (await asyncio.create_task(handle())).code
    assert 0.3 - deadlines.HOP_SECONDS >= method.seconds > 0


async def test_helper_asks_nobody_when_nothing_is_left(world: World) -> None:
    method: Any = Tokened(world)

    async def handle() -> None:
        deadlines.remember(0.01)
        await deadlines.call(method, echo_pb2.EchoRequest(text="x"))

    with pytest.raises(DeadlineTooShort):
        await asyncio.create_task(handle())
    assert world.servicer.reached == []


async def test_stream_goes_through_the_same_guards(networked: World) -> None:
    answers = [answer async for answer in networked.call("x", method="Repeat", count=3)]

    assert [(answer.text, answer.caller) for answer in answers] == [("x", "service")] * 3
    assert await counted(networked, "Repeat", "OK") == 1.0


async def test_stream_is_refused_to_whom_is_not_listed(networked: World) -> None:
    token = (("authorization", f"customer:c1:{SERVICE}"),)
    stream = networked.open_stub.Repeat(echo_pb2.EchoRequest(), timeout=5, metadata=token)

    assert CallerNotAllowed is type(await fault_of(stream.read()))


@pytest.mark.parametrize(("text", "kind"), [("crash", Internal), ("fault", InvalidRequest)])
async def test_stream_that_fails_midway_ends_with_a_status(networked: World, text: str, kind: type[Fault]) -> None:
    stream = networked.call(text, method="Repeat", count=2)

    assert [text, text] == [(await stream.read()).text for _ in range(2)]
    assert kind is type(await fault_of(stream.read()))
    assert SECRET not in networked.logged.getvalue()


async def test_stream_without_a_deadline_outlives_the_default(
    networked: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deadlines, "DEFAULT_SECONDS", 0.0)
    stub: Any = echo_pb2_grpc.EchoServiceStub(networked.channel)
    answers = stub.Repeat(echo_pb2.EchoRequest(text="x", count=2), metadata=networked.token)

    assert len([answer async for answer in answers]) == 2


async def test_stream_that_is_cancelled_cancels_the_handler(networked: World) -> None:
    stream = networked.call("wait", method="Repeat", count=1)
    await stream.read()
    await asyncio.wait_for(networked.servicer.waiting.wait(), 5)
    stream.cancel()

    await asyncio.wait_for(networked.servicer.cancelled.wait(), 5)


async def test_stream_that_nobody_reads_is_ended(networked: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain, "WRITE_SECONDS", 0.1)
    stream = networked.call("x", method="Repeat", count=100, padding=bytes(1_000_000), timeout=60)
    await stream.read()
    await asyncio.wait_for(networked.servicer.closed.wait(), 10)

    async def read_on() -> None:
        for _ in range(99):
            await stream.read()

    assert Unavailable is type(await fault_of(read_on()))
    assert await counted(networked, "Repeat", "UNAVAILABLE") == 1.0


async def test_stream_that_is_read_is_sent_to_its_end_however_large(networked: World) -> None:
    stream = networked.call("x", method="Repeat", count=50, padding=bytes(1_000_000), timeout=60)

    assert [1_000_000] * 50 == [len(answer.padding) async for answer in stream]


async def test_health_is_everybodys_and_per_service(networked: World) -> None:
    stub = health_pb2_grpc.HealthStub(networked.open_channel)

    for service in ("", SERVICE):
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    error = await refusal(stub.Check(health_pb2.HealthCheckRequest(service="parley.nobody"), timeout=5))
    assert grpc.StatusCode.NOT_FOUND is error.code()


async def test_health_can_be_watched(networked: World) -> None:
    watch = health_pb2_grpc.HealthStub(networked.open_channel).Watch(health_pb2.HealthCheckRequest(service=SERVICE))

    assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
    watch.cancel()


async def test_reflection_lists_the_services(networked: World) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(networked.open_channel)
    stream = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=5)
    listed = {service.name for service in (await stream.read()).list_services_response.service}

    assert {SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"} == listed
    stream.cancel()


async def test_unavailable_is_retried_by_the_channel_itself(networked: World) -> None:
    fault = await fault_of(networked.call("unavailable"))

    assert (Unavailable, 0.25) == (type(fault), fault.retry_after)
    assert len(networked.servicer.reached) == 4


async def test_in_process_nothing_is_tried_again() -> None:
    """The difference to a network: who calls learns at once what would not change within the call."""
    async with echo.inprocess() as served:
        fault = await fault_of(served.call("unavailable"))

        assert (Unavailable, 0.25, 1) == (type(fault), fault.retry_after, len(served.servicer.reached))


async def test_declared_caller_beats_a_token(tmp_path: Path) -> None:
    async with echo.inprocess(tmp_path) as served:
        answer = await served.call("x", metadata=(("authorization", f"customer:c1:{SERVICE}"),))

        assert answer.caller == "service:broker"


async def test_in_process_streams_are_refused_in_a_sentence(tmp_path: Path) -> None:
    async with echo.inprocess(tmp_path) as served:
        with pytest.raises(NotImplementedError, match="unary calls only"):
            served.call("x", method="Repeat")


async def test_closed_hub_cuts_calls_and_takes_none(tmp_path: Path) -> None:
    async with echo.inprocess(tmp_path) as served:
        call = served.call("wait")
        await served.servicer.waiting.wait()
        hub: InprocessHub = served.channel._hub  # type: ignore[attr-defined]
        await hub.close()

        assert grpc.StatusCode.UNAVAILABLE is (await refusal(call)).code()
        assert served.servicer.cancelled.is_set()
        assert Unavailable is type(await fault_of(served.call("x")))
