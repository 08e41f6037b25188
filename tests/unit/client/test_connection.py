import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import grpc
import pytest

from parley.broker.v1 import broker_pb2 as brokerpb
from parley.broker.v1.broker_pb2_grpc import BrokerServiceStub
from parley_client import errors
from parley_client.backoff import Backoff
from parley_client.connection import AT_ONCE, Connection, Credential
from parley_client.tokens import MARGIN
from parley_crypto.signing import Signer
from parley_crypto.statements import TOKEN_LIFE
from parley_kit.faults import Conflict, InvalidRequest, TooManyCalls, Unavailable
from tests.support import hostile
from tests.support.clocks import StillClock
from tests.support.waiting import until
from tests.unit.client.scripted import HANGS, MARKETER, MARKETER_KEY, Script, connected, serving, unavailable


@pytest.fixture
def script() -> Script:
    return Script(StillClock(datetime(2026, 5, 4, tzinfo=UTC)))


async def get(connection: Connection, **options: Any) -> brokerpb.Exchange:
    request = brokerpb.GetExchangeRequest(name="x")
    return await connection.call(
        BrokerServiceStub(connection.channel).GetExchange, request, service="broker", **options
    )


async def create(connection: Connection, request_id: str = "") -> brokerpb.CreateExchangeResponse:
    request = brokerpb.CreateExchangeRequest(request_id=request_id)
    method = BrokerServiceStub(connection.channel).CreateExchange
    return await connection.call(method, request, service="broker")


def answers(script: Script, count: int) -> None:
    script.answers = {
        "GetExchangeRequest": [brokerpb.Exchange(name=f"x{n}") for n in range(count)],
        "CreateExchangeRequest": [brokerpb.CreateExchangeResponse() for _ in range(count)],
    }


async def test_one_sign_in_serves_calls_until_the_token_is_about_to_end(script: Script) -> None:
    answers(script, 4)
    async with connected(script) as connection:
        for _ in range(2):
            await get(connection)
        script.clock.at += TOKEN_LIFE - MARGIN - timedelta(seconds=1)
        await get(connection)
        assert 1 == script.sign_ins

        script.clock.at += timedelta(seconds=1)
        await get(connection)
        assert 2 == script.sign_ins


async def test_many_calls_at_once_sign_in_once(script: Script) -> None:
    answers(script, 20)
    async with connected(script) as connection:
        await asyncio.gather(*(get(connection) for _ in range(20)))

    assert (1, 20) == (script.sign_ins, len(script.requests))


async def test_one_caller_who_gives_up_does_not_end_the_sign_in_of_the_others(script: Script) -> None:
    answers(script, 2)
    async with connected(script) as connection:
        impatient, patient = asyncio.create_task(get(connection)), asyncio.create_task(get(connection))
        await asyncio.sleep(0)
        impatient.cancel()

        assert "x0" == (await patient).name
        with pytest.raises(asyncio.CancelledError):
            await impatient


async def test_a_refused_token_is_renewed_and_the_call_made_again(script: Script) -> None:
    answers(script, 2)
    async with connected(script) as connection:
        await get(connection)
        script.refuse_all_tokens()

        assert "x1" == (await get(connection)).name
        assert 2 == script.sign_ins


async def test_a_key_that_is_not_accepted_is_said_at_once(script: Script) -> None:
    async with connected(script, Credential(MARKETER, Signer(b"other key".ljust(32)))) as connection:
        with pytest.raises(errors.Unauthenticated, match=f"{MARKETER} can't sign in: .* signing key .* clock"):
            await get(connection)

    assert 1 == script.sign_ins


async def test_signing_in_is_tried_again_with_a_fresh_assertion(script: Script) -> None:
    answers(script, 1)
    script.sign_in_failures = [Unavailable(), Unavailable()]
    async with connected(script) as connection:
        await get(connection)  # the script refuses an assertion that was used before

    assert 3 == script.sign_ins


async def test_a_service_without_a_token_for_this_caller_is_named(script: Script) -> None:
    async with connected(script) as connection:
        with pytest.raises(errors.CallerNotAllowed, match="vault"):
            await connection.call(
                BrokerServiceStub(connection.channel).GetExchange, brokerpb.GetExchangeRequest(), service="vault"
            )


async def test_request_id_is_made_once_and_kept_over_all_tries(script: Script) -> None:
    answers(script, 2)
    script.failures = [Unavailable(), Conflict(), TooManyCalls()]
    async with connected(script) as connection:
        await create(connection)
        await create(connection)
    first, second = (request.request_id for request in script.requests[-2:])

    assert [first] * 4 == [request.request_id for request in script.requests[:4]]
    assert (4, 4) == (UUID(first).version, UUID(second).version)
    assert first != second


async def test_a_request_id_that_is_given_stays(script: Script) -> None:
    answers(script, 1)
    async with connected(script) as connection:
        await create(connection, "mine")

    assert ["mine"] == [request.request_id for request in script.requests]


async def test_trying_again_ends_with_the_deadline_and_not_before(script: Script) -> None:
    answers(script, 1)
    script.failures = unavailable(20)
    async with connected(script) as connection:
        assert "x0" == (await get(connection)).name
        assert 21 == len(script.requests)

        script.failures = unavailable(10_000)
        with pytest.raises((errors.Unavailable, errors.DeadlineExceeded)):
            await get(connection, deadline=timedelta(seconds=0.2))


async def test_connection_is_used_within_its_block_only(script: Script) -> None:
    answers(script, 1)
    async with connected(script) as connection:
        method = BrokerServiceStub(connection.channel).GetExchange
    fresh = Connection("127.0.0.1:1", Credential(MARKETER, Signer(b"m" * 32)))

    for outside in (connection, fresh):
        with pytest.raises(RuntimeError, match="async with"):
            await outside.call(method, brokerpb.GetExchangeRequest(name="x"), service="broker")
    with pytest.raises(RuntimeError, match="async with"):
        _ = fresh.channel


async def under_way(script: Script, connection: Connection) -> "asyncio.Task[brokerpb.Exchange]":
    """A call that the server has, and never answers."""
    script.failures = [HANGS]
    waiting = asyncio.create_task(get(connection))

    async def arrived() -> bool:
        return bool(script.requests)

    await until(arrived)
    return waiting


async def test_call_that_is_under_way_when_its_connection_closes_says_so(script: Script) -> None:
    async with connected(script) as connection:
        waiting = await under_way(script, connection)
    with pytest.raises(RuntimeError, match="closed while"):
        await waiting


async def test_call_whose_connection_closes_while_it_signs_in_says_so(script: Script) -> None:
    script.sign_in_failures = [Unavailable(retry_after=60)]
    async with connected(script, deadline=timedelta(seconds=120)) as connection:
        waiting = asyncio.create_task(get(connection))

        async def arrived() -> bool:
            return bool(script.sign_ins)

        await until(arrived)
    with pytest.raises(RuntimeError, match="closed while"):
        await waiting


@pytest.mark.parametrize("off", [-30, 24])
async def test_clock_that_is_twenty_seconds_off_signs_in_though_it_takes_a_while(script: Script, off: int) -> None:
    answers(script, 1)
    credential, theirs = Credential(MARKETER, MARKETER_KEY), StillClock(script.clock.now() + timedelta(seconds=off))
    async with serving(script) as address, Connection(address, credential, clock=theirs) as connection:
        await get(connection)


async def test_connection_may_be_made_before_the_loop_in_which_it_is_used() -> None:
    script = Script(StillClock(datetime(2026, 5, 4, tzinfo=UTC)))
    answers(script, 2 * AT_ONCE)
    async with serving(script) as address:
        made = Connection(address, Credential(MARKETER, MARKETER_KEY), clock=script.clock)

        async def use() -> None:
            async with made as connection:
                await asyncio.gather(*(get(connection) for _ in range(AT_ONCE)))

        await use()
        await asyncio.to_thread(asyncio.run, use())


async def test_what_was_heard_last_and_the_request_id_are_said_at_the_deadline(script: Script) -> None:
    script.failures = [Unavailable(), HANGS]
    async with connected(script, deadline=timedelta(seconds=3)) as connection:
        with pytest.raises(errors.DeadlineExceeded, match=r"heard last: UNAVAILABLE, .*same request_id") as raised:
            await create(connection, "mine")
    assert {"request_id": "mine"} == raised.value.metadata


async def test_request_id_that_was_made_is_told_whatever_it_failed_with(script: Script) -> None:
    script.failures = [Unavailable(retry_after=60)]
    async with connected(script) as connection:
        with pytest.raises(errors.Unavailable) as raised:
            await create(connection)
    assert raised.value.metadata["request_id"] == script.requests[0].request_id


async def test_callers_whom_one_failure_meets_are_told_their_own_request_ids(script: Script) -> None:
    async with connected(script, Credential(MARKETER, Signer(b"other key".ljust(32)))) as connection:
        failed = await asyncio.gather(*(create(connection, each) for each in ("one", "two")), return_exceptions=True)
    assert 1 == script.sign_ins
    assert [errors.Unauthenticated] * 2 == [type(each) for each in failed]
    assert ["one", "two"] == [each.metadata["request_id"] for each in failed]  # type: ignore[union-attr] # as just seen


async def test_call_that_is_cancelled_is_cancelled(script: Script) -> None:
    async with connected(script) as connection:
        waiting = await under_way(script, connection)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting


async def test_what_trying_again_does_not_mend_is_said_at_once(script: Script) -> None:
    script.failures = [InvalidRequest()]
    async with connected(script) as connection:
        with pytest.raises(errors.InvalidRequest):
            await get(connection)

    assert 1 == len(script.requests)


async def test_the_delay_that_the_server_asks_for_is_kept(script: Script) -> None:
    answers(script, 1)
    script.failures = [Unavailable(retry_after=0.3)]
    async with connected(script) as connection:
        started = asyncio.get_running_loop().time()
        await get(connection)

        assert 0.3 <= asyncio.get_running_loop().time() - started


async def test_a_delay_past_the_deadline_is_not_waited_for(script: Script) -> None:
    script.failures = [Unavailable(retry_after=60)]
    async with connected(script) as connection:
        with pytest.raises(errors.Unavailable) as caught:
            await get(connection)

    assert (60, 1) == (caught.value.retry_after, len(script.requests))


async def test_every_call_ends_by_its_deadline(script: Script) -> None:
    script.failures = [HANGS]
    async with connected(script) as connection:
        with pytest.raises(errors.DeadlineExceeded):
            await get(connection, deadline=timedelta(seconds=0.2))


async def test_a_server_that_is_not_there_is_said_by_the_deadline(script: Script) -> None:
    async with Connection("unix:/nowhere/s", deadline=timedelta(seconds=0.2)) as connection:
        with pytest.raises(errors.DeadlineExceeded, match=r"0\.2 s"):
            await connection.call(BrokerServiceStub(connection.channel).GetExchange, brokerpb.GetExchangeRequest())


async def test_a_connection_without_credential_signs_nobody_in() -> None:
    async with Connection("unix:/nowhere/s") as connection:
        with pytest.raises(errors.Unauthenticated, match="no credential"):
            await get(connection)


async def test_addresses_elsewhere_are_dialled_with_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    dialled: list[str] = []
    for kind in ("insecure_channel", "secure_channel"):
        monkeypatch.setattr(grpc.aio, kind, noting(dialled, kind, getattr(grpc.aio, kind)))
    for address in ("unix:/nowhere/s", "127.0.0.1:1", "localhost:1", "parley.example:443"):
        async with Connection(address):
            pass

    assert ["insecure_channel"] * 3 + ["secure_channel"] == dialled


async def test_what_is_in_clear_goes_to_no_proxy(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []

    async def proxy(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readline())

    async with hostile.listening(proxy) as port, hostile.listening(proxy) as ours:
        for variable in ("https_proxy", "http_proxy", "grpc_proxy"):
            monkeypatch.setenv(variable, f"http://127.0.0.1:{port}")
        for name in ("no_proxy", "no_grpc_proxy"):
            monkeypatch.delenv(name, raising=False)
        async with Connection(f"127.0.0.1:{ours}", deadline=timedelta(seconds=1)) as connection:
            with pytest.raises(errors.DeadlineExceeded):
                await connection.call(BrokerServiceStub(connection.channel).GetExchange, brokerpb.GetExchangeRequest())
    assert seen
    assert {b"PRI * HTTP/2.0\r\n"} == {*seen}  # nobody was asked to CONNECT


async def test_connection_that_nobody_uses_is_left(script: Script, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked next goes over a new one: a box on the way may have forgotten the old."""
    monkeypatch.setattr("parley_client.connection.IDLE_MS", 1_000)  # the least that gRPC heeds
    answers(script, 2)
    came = 0

    async with serving(script) as address:

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal came
            came += 1
            path = address.removeprefix("unix:")
            await hostile.between(reader, writer, await asyncio.open_unix_connection(path))

        async with (
            hostile.listening(serve) as port,
            Connection(f"127.0.0.1:{port}", Credential(MARKETER, MARKETER_KEY), clock=script.clock) as connection,
        ):
            await get(connection)

            async def is_left() -> bool:
                return connection.channel.get_state() is grpc.ChannelConnectivity.IDLE

            await until(is_left, 30)
            await get(connection)
    assert 2 == came


def noting(calls: list[str], name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def noted(*args: Any, **options: Any) -> Any:
        calls.append(name)
        return function(*args, **options)

    return noted


def test_delays_double_to_a_limit_and_spread_out() -> None:
    late, early = Backoff(0.1, 2.0, jitter=lambda: 0.0), Backoff(0.1, 2.0, jitter=lambda: 1.0)

    assert [0.1, 0.2, 0.4, 2.0, 2.0] == [late.delay(failures) for failures in (1, 2, 3, 9, 10_000)]
    assert 0.1 == early.delay(2)
    assert 7.0 == early.delay(2, least=7.0)
