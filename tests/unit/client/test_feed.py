import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest

from parley.broker.v1 import broker_pb2 as brokerpb
from parley_broker.faults import ResumeTokenInvalid
from parley_client import errors
from parley_client.feed import Feed, Next, after
from parley_kit.faults import CallerNotAllowed, Code, Internal, Unauthenticated, Unavailable
from parley_rpc.status import ForeignFault
from tests.support.clocks import StillClock
from tests.unit.client.scripted import HANGS, QUICK, Script, connected


@pytest.fixture
def script() -> Script:
    return Script(StillClock(datetime(2026, 5, 4, tzinfo=UTC)))


def release(number: int) -> brokerpb.Delivery:
    return brokerpb.Delivery(
        name=f"deliveries/{number}", resume_token=f"t{number}", release=brokerpb.ReleaseDelivery(pseudonym="p")
    )


def heartbeat(token: str) -> brokerpb.Delivery:
    return brokerpb.Delivery(resume_token=token, heartbeat=brokerpb.Heartbeat())


@asynccontextmanager
async def following(script: Script, silence: float = 5.0) -> AsyncIterator[AsyncIterator[brokerpb.Delivery]]:
    async with connected(script) as connection:
        feed = Feed(connection, silence=timedelta(seconds=silence), backoff=QUICK)
        async with aclosing(feed.follow()) as messages:
            yield messages


async def names(script: Script, count: int, silence: float = 5.0) -> list[str]:
    async with following(script, silence) as messages, asyncio.timeout(10):
        return [(await anext(messages)).name for _ in range(count)]


async def test_the_feed_resumes_behind_the_last_delivery_whatever_broke_it(script: Script) -> None:
    script.turns = [[release(1), Unavailable()], [release(2)], [release(3), HANGS]]

    assert ["deliveries/1", "deliveries/2", "deliveries/3"] == await names(script, 3)
    assert ["", "t1", "t2"] == script.resumed


async def test_heartbeats_are_swallowed_and_move_the_place(script: Script) -> None:
    script.turns = [[heartbeat("h1"), release(1), heartbeat("h2"), Unavailable()], [release(2), HANGS]]

    assert ["deliveries/1", "deliveries/2"] == await names(script, 2)
    assert ["", "h2"] == script.resumed


async def test_a_delivery_that_is_sent_twice_is_given_once(script: Script) -> None:
    script.turns = [[release(1), release(1), Unavailable()], [release(1), release(2), HANGS]]

    assert ["deliveries/1", "deliveries/2"] == await names(script, 2)


async def test_a_resume_token_that_is_not_known_any_more_starts_over(script: Script) -> None:
    script.turns = [[release(1), release(2), Unavailable()], [ResumeTokenInvalid()], [release(2), release(3), HANGS]]

    assert ["deliveries/1", "deliveries/2", "deliveries/3"] == await names(script, 3)
    assert ["", "t2", ""] == script.resumed


async def test_a_silent_feed_is_opened_anew(script: Script) -> None:
    script.turns = [[release(1), HANGS], [release(2), HANGS]]

    assert ["deliveries/1", "deliveries/2"] == await names(script, 2, silence=1)
    assert ["", "t1"] == script.resumed


async def test_an_ended_access_token_is_renewed(script: Script) -> None:
    script.turns = [[release(1), Unauthenticated()], [release(2), HANGS]]

    assert ["deliveries/1", "deliveries/2"] == await names(script, 2)
    assert 2 == script.sign_ins


async def test_access_tokens_may_end_as_often_as_they_like(script: Script) -> None:
    script.turns = [[release(1), Unauthenticated()], [release(2), Unauthenticated()], [release(3), HANGS]]

    assert ["deliveries/1", "deliveries/2", "deliveries/3"] == await names(script, 3)
    assert 3 == script.sign_ins


async def test_the_feed_outlives_a_crash_and_whatever_a_balancer_says(script: Script) -> None:
    crash: list[object] = [Internal()]
    refused, absent = (ForeignFault(code, code.name, "") for code in (Code.PERMISSION_DENIED, Code.UNIMPLEMENTED))
    script.turns = [[release(1), *crash], [refused], [absent], *[crash] * 2, [release(2), *crash], [release(3), HANGS]]

    assert ["deliveries/1", "deliveries/2", "deliveries/3"] == await names(script, 3)


async def test_the_feed_outlives_a_balancer_that_lets_nobody_sign_in(script: Script) -> None:
    script.sign_in_failures = [ForeignFault(code, code.name, "") for code in (Code.UNAUTHENTICATED, Code.UNIMPLEMENTED)]
    script.turns = [[release(1), HANGS]]

    assert ["deliveries/1"] == await names(script, 1)


async def test_what_a_crash_was_called_is_logged(script: Script, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "parley_client")
    script.turns = [[Internal(metadata={"error_id": "e-7"})], [release(1), HANGS]]

    await names(script, 1)
    assert "deliveries interrupted (INTERNAL e-7)" in caplog.text


async def test_the_feed_outlives_a_server_that_cannot_sign_in(script: Script) -> None:
    script.turns = [[release(1), Unauthenticated()], [release(2), HANGS]]
    async with following(script) as messages, asyncio.timeout(10):
        await anext(messages)
        script.sign_in_failures = [Unavailable() for _ in range(8)]

        assert "deliveries/2" == (await anext(messages)).name


@pytest.mark.parametrize(
    ("turns", "kind"),
    [
        ([[CallerNotAllowed()]], errors.CallerNotAllowed),
        ([[Internal()]] * 4, errors.Internal),  # a fourth time is no accident
        ([[Unauthenticated()], [Unauthenticated()]], errors.Unauthenticated),
        ([[ResumeTokenInvalid()]], errors.ResumeTokenInvalid),
    ],
)
async def test_what_opening_anew_does_not_mend_is_raised(
    script: Script, turns: list[list[object]], kind: type[errors.ParleyError]
) -> None:
    script.turns = [*turns]
    with pytest.raises(kind):
        await names(script, 1)

    assert len(turns) == len(script.resumed)


async def test_a_delivery_of_an_unknown_kind_is_left_on_the_feed(script: Script) -> None:
    script.turns = [[brokerpb.Delivery(name="deliveries/new", resume_token="new"), release(1), HANGS]]

    assert ["deliveries/1"] == await names(script, 1)


async def test_interruptions_are_logged_without_any_delivery(script: Script, caplog: pytest.LogCaptureFixture) -> None:
    script.turns = [[release(1), Unavailable("p's secret")], [release(2), HANGS]]
    with caplog.at_level(logging.INFO, "parley_client"):
        await names(script, 2)

    assert ["deliveries interrupted (UNAVAILABLE), resuming in 0.0 s"] == caplog.messages


async def test_first_interruption_is_no_more_than_information(script: Script, caplog: pytest.LogCaptureFixture) -> None:
    script.turns = [[release(1), Unavailable()], [Unavailable()], [release(2), HANGS]]
    with caplog.at_level(logging.INFO, "parley_client"):
        await names(script, 2)

    assert [logging.INFO, logging.WARNING, logging.INFO] == [record.levelno for record in caplog.records]
    assert "deliveries resumed" == caplog.messages[-1]


@pytest.mark.parametrize(
    ("fault", "resumed", "refused", "then"),
    [
        (errors.Unavailable, False, False, Next.RESUME),
        (errors.Interrupted, True, True, Next.RESUME),
        (errors.DeadlineExceeded, True, False, Next.RESUME),
        (errors.TooManyCalls, True, False, Next.RESUME),
        (errors.ResumeTokenInvalid, True, False, Next.START_OVER),
        (errors.ResumeTokenInvalid, False, False, Next.GIVE_UP),
        (errors.Unauthenticated, True, False, Next.SIGN_IN),
        (errors.Unauthenticated, True, True, Next.GIVE_UP),
        (errors.MarketerSuspended, True, False, Next.GIVE_UP),
        (errors.ParleyError, True, False, Next.GIVE_UP),
    ],
)
def test_what_follows_an_error(fault: type[errors.ParleyError], resumed: bool, refused: bool, then: Next) -> None:
    assert then is after(fault("R", "m"), resumed=resumed, refused=refused)
