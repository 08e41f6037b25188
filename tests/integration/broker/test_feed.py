"""The feed: what a marketer is sent, again until it is acknowledged, and from where it says."""

import asyncio
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import partial
from typing import Any

import grpc
import pytest

from parley.broker.v1 import broker_events_pb2 as eventspb
from parley.broker.v1 import broker_pb2 as brokerpb
from parley.common.v1.event_envelope_pb2 import EventEnvelope
from parley.consent.v1 import consent_pb2 as consentpb
from parley_broker.store import Release
from parley_kit.faultpoints import armed
from parley_rpc.status import fault_from
from tests.integration.broker.conftest import Timed
from tests.support.broker import (
    FINALIZED,
    OFFERED,
    TERMINATED,
    a_willing,
    an_age,
    an_asked,
    ask,
    failing,
    holding,
    id_of,
    releases,
    set_marketer,
    settlements,
    states,
    within_half_an_hour,
    work,
)
from tests.support.calls import request_id
from tests.support.chaos import each, rows
from tests.support.waiting import until
from tests.support.world import MARKETING, Customer, Marketer, World, terms, to_known

ALLOW = 1
CARE = "https://w3id.org/dpv#CustomerCare"


async def reason(call: object) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]
    return fault_from(caught.value).reason


async def sent(world: World, people: int = 3) -> tuple[Marketer, list[brokerpb.Delivery]]:
    """A marketer who was sent releases of so many customers, and acknowledged none."""
    age = an_age()
    await each(lambda _: a_willing(world, age), range(people))
    marketer = await world.marketer()
    await ask(marketer, age)
    return marketer, await marketer.collect(people)


def names(deliveries: list[brokerpb.Delivery]) -> list[str]:
    return [delivery.name for delivery in deliveries]


async def test_what_is_not_acknowledged_comes_again_in_the_same_order(world: World) -> None:
    marketer, first = await sent(world)
    again = await marketer.collect(3)
    assert names(first) == names(again)
    assert [world.opened(marketer, one) for one in first] == [world.opened(marketer, one) for one in again]


async def test_what_is_acknowledged_never_comes_again(world: World) -> None:
    marketer, deliveries = await sent(world)
    await marketer.acknowledge(deliveries[1])
    assert [deliveries[0].name, deliveries[2].name] == names(await releases(marketer))
    await marketer.acknowledge(*deliveries)
    assert [] == await releases(marketer)


async def test_stream_resumes_behind_its_token(world: World) -> None:
    marketer, deliveries = await sent(world)
    async with asyncio.timeout(10), marketer.feed(deliveries[0].resume_token) as feed:
        assert names(deliveries[1:]) == [(await anext(feed)).name, (await anext(feed)).name]


async def test_token_of_another_feed_is_refused(world: World) -> None:
    marketer, deliveries = await sent(world, 1)
    other = await world.marketer()
    for caller, token in ((other, deliveries[0].resume_token), (marketer, "nonsense")):
        request = brokerpb.DeliveriesRequest(resume_token=token)
        stream = caller.stubs.broker.Deliveries(request, metadata=caller.tokens["broker"])
        assert "RESUME_TOKEN_INVALID" == await reason(stream.read())


async def test_acknowledging_twice_is_no_error_and_is_told_to_audit_once(world: World) -> None:
    marketer, deliveries = await sent(world, 1)
    await until(partial(_nothing_told, world))  # what other tests told
    async with holding("broker.relay.before_commit"):  # what is told stays where it can be counted
        await asyncio.gather(*(marketer.acknowledge(*deliveries, *deliveries) for _ in range(3)))
        assert [1] == [len(each.notes) for each in await _told(world)]


async def test_many_acknowledgements_are_told_in_several_events(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parley_broker.store._MOST_NOTES", 2)
    marketer, deliveries = await sent(world, 3)
    await until(partial(_nothing_told, world))
    async with holding("broker.relay.before_commit"):
        await marketer.acknowledge(*deliveries)
        assert [1, 2] == sorted([len(each.notes) for each in await _told(world)])
    assert [] == await releases(marketer)


async def _told(world: World) -> list[eventspb.DeliveryAcknowledged]:
    """Events about acknowledgements that the relay hasn't let go of."""
    query = "SELECT envelope FROM outbox WHERE type = 'parley.broker.v1.DeliveryAcknowledged'"
    envelopes = [EventEnvelope.FromString(row["envelope"]) for row in await rows(world, "broker", query)]
    return [eventspb.DeliveryAcknowledged.FromString(envelope.payload) for envelope in envelopes]


async def _nothing_told(world: World) -> bool:
    return not await _told(world)


async def test_release_has_one_id_wherever_it_is(world: World) -> None:
    marketer, (first,) = await sent(world, 1)
    assert first.release.release_id == await _kept(world, first)  # from its place on the feed on
    await marketer.acknowledge(first)
    asked = terms("profile.city", valid_for=timedelta(days=20))
    async with holding("broker.before_finish"):
        second = (await marketer.ask(to_known(asked, first.release.pseudonym, in_answer=True))).delivery
        assert "" == await _kept(world, second)
        await marketer.acknowledge(second)  # before it has a place
        assert second.release.release_id == await _kept(world, second)
    (at_consent,) = await rows(world, "consent", _SETTLED, second.release.exchange)
    assert second.release.release_id == at_consent["release_id"]


async def test_release_that_an_earlier_version_named_keeps_its_id(world: World) -> None:
    marketer, (delivery,) = await sent(world, 1)
    release = delivery.release
    before = Release(marketer.name, id_of(release.exchange), release.pseudonym, "")
    servicer: Any = world.services["broker"].registrations[0].servicer
    await marketer.acknowledge(brokerpb.Delivery(name=f"deliveries/{servicer.exchanges.names.release(before)}"))
    assert ([], release.release_id) == (await releases(marketer), await _kept(world, delivery))


_KEPT = "SELECT release_id FROM participants WHERE exchange_id = $1 AND pseudonym = $2"
_SETTLED = "SELECT release_id FROM settlements WHERE exchange = $1"


async def _kept(world: World, delivery: brokerpb.Delivery) -> str:
    """The id by which broker keeps a release."""
    (row,) = await rows(world, "broker", _KEPT, id_of(delivery.release.exchange), delivery.release.pseudonym)
    return str(row["release_id"])


async def test_all_are_acknowledged_or_none(world: World) -> None:
    marketer, deliveries = await sent(world, 2)
    unknown = brokerpb.Delivery(name=f"deliveries/{'a' * 26}")
    assert "DELIVERY_NOT_FOUND" == await reason(marketer.acknowledge(*deliveries, unknown))
    assert names(deliveries) == names(await releases(marketer))


async def test_delivery_of_another_marketer_reads_like_an_unknown_one(world: World) -> None:
    marketer, deliveries = await sent(world, 1)
    other, unknown = await world.marketer(), brokerpb.Delivery(name=f"deliveries/{'a' * 26}")
    assert await reason(other.acknowledge(unknown)) == await reason(other.acknowledge(*deliveries))
    assert names(deliveries) == names(await releases(marketer))
    assert [] == await releases(other)


async def test_quiet_feed_shows_signs_of_life(timed: Timed) -> None:
    marketer = await timed.world.marketer()
    stream = marketer.stubs.broker.Deliveries(brokerpb.DeliveriesRequest(), metadata=marketer.tokens["broker"])
    async with asyncio.timeout(10):
        (one,), (other,) = [(await stream.read()).deliveries for _ in range(2)]
    stream.cancel()
    beats = [one, other]
    assert [("", "heartbeat")] * 2 == [(one.name, one.WhichOneof("payload")) for one in beats]


async def test_heartbeat_tells_where_to_resume(timed: Timed) -> None:
    marketer, (delivery,) = await sent(timed.world, 1)
    stream = marketer.stubs.broker.Deliveries(brokerpb.DeliveriesRequest(), metadata=marketer.tokens["broker"])
    async with asyncio.timeout(10):
        while (beat := (await stream.read()).deliveries[-1]).name:
            assert delivery.name == beat.name
    stream.cancel()
    another = (await marketer.ask(to_known(terms("profile.city"), delivery.release.pseudonym))).exchange.name
    async with asyncio.timeout(10), marketer.feed(beat.resume_token) as feed:
        assert another == (await anext(feed)).release.exchange, "behind the beat, not what came before it"


async def test_pause_resumption_and_withdrawal_are_told_on_the_feed(world: World) -> None:
    age = an_age()
    customer = await an_asked(world, age)
    marketer = await world.marketer()
    await ask(marketer, age)
    consent = await customer.accept(await customer.offer())
    (release,) = await marketer.collect(1)
    await marketer.acknowledge(release)
    told = []
    async with asyncio.timeout(20), marketer.feed() as feed:
        for act, request in (
            ("PauseConsent", consentpb.PauseConsentRequest),
            ("ResumeConsent", consentpb.ResumeConsentRequest),
            ("WithdrawConsent", consentpb.WithdrawConsentRequest),
        ):
            asked = request(name=consent.name, request_id=request_id())
            await customer.call("consent", act, asked)
            delivery = await anext(feed)
            assert (consent.name, release.release.pseudonym) == (delivery.notice.consent, delivery.notice.pseudonym)
            told.append(delivery.notice.notice)
            await marketer.acknowledge(delivery)
    assert ["ConsentPaused", "ConsentResumed", "ConsentRevoked"] == told
    assert [] == await marketer.collect_for(0.6)


async def test_feed_stays_empty_while_settling_is_held(world: World) -> None:
    age = an_age()
    await a_willing(world, age)
    marketer = await world.marketer()
    async with holding("broker.before_settle") as there:
        name = await ask(marketer, age)
        await there.wait()
        assert [] == await releases(marketer)
        assert 0 == await settlements(world, name)
    assert 1 == len(await marketer.collect(1))


async def test_order_of_releases_is_not_the_order_of_customers(world: World) -> None:
    age, people = an_age(), 8
    for _ in range(people):
        await a_willing(world, age)
    orders = []
    for _ in range(2):
        marketer = await world.marketer()
        await ask(marketer, age)
        deliveries = await marketer.collect(people)
        query = "SELECT customer, pseudonym FROM consents WHERE marketer = $1"
        joined = await rows(world, "consent", query, marketer.name)
        customers = {row["pseudonym"]: row["customer"] for row in joined}
        orders.append([customers[one.release.pseudonym] for one in deliveries])
    created = [row["customer"] for row in await rows(world, "consent", "SELECT customer FROM customers ORDER BY ctid")]
    assert sorted(orders[0]) == sorted(orders[1])
    assert 3 == len({tuple(orders[0]), tuple(orders[1]), tuple(one for one in created if one in set(orders[0]))})


async def test_two_streams_of_one_marketer_both_get_everything(world: World) -> None:
    age, people = an_age(), 6
    await each(lambda _: a_willing(world, age), range(people))
    marketer = await world.marketer()
    both = [asyncio.create_task(marketer.collect(people)) for _ in range(2)]
    await ask(marketer, age)
    first, second = await asyncio.gather(*both)
    assert names(first) == names(second)


async def test_streams_of_one_marketer_at_once_each_get_everything(world: World) -> None:
    marketer, deliveries = await sent(world, 2)
    streams = await asyncio.gather(*(marketer.collect(2) for _ in range(3)))
    assert [sorted(names(deliveries))] * 3 == [sorted(names(stream)) for stream in streams]


async def test_what_may_not_be_sent_holds_nobody_else_back(world: World) -> None:
    age = an_age()
    people = await each(lambda _: a_willing(world, age), range(2))
    marketer = await world.marketer()
    await ask(marketer, age)
    first, second = await marketer.collect(2)
    for customer in people:
        await withdraw_as(customer, first.release.pseudonym)
    assert [second.name] == names(await marketer.collect(1))


async def withdraw_as(customer: Customer, pseudonym: str) -> None:
    """Withdraw whatever a customer has agreed to under a pseudonym."""
    for consent in (await customer.call("consent", "ListConsents", consentpb.ListConsentsRequest())).consents:
        if pseudonym == consent.pseudonym:
            await customer.withdraw(consent.name)


async def test_release_acknowledged_while_another_stream_holds_it_is_not_made_again(world: World) -> None:
    marketer, deliveries = await sent(world, 1)
    exchange = deliveries[0].release.exchange
    async with holding("broker.before_send") as there:
        late = asyncio.create_task(marketer.collect_for(1.0))
        await there.wait()
        await marketer.acknowledge(*deliveries)
    assert [] == await late
    assert [FINALIZED] == await states(world, exchange)
    assert [] == await releases(marketer)


async def test_stream_that_breaks_before_a_send_brings_it_the_next_time(world: World) -> None:
    marketer, deliveries = await sent(world, 1)
    with failing("broker.before_send"), pytest.raises(grpc.aio.AioRpcError):
        await marketer.collect(1)
    assert names(deliveries) == names(await marketer.collect(1))


async def test_suspended_marketer_is_sent_nothing_more(world: World) -> None:
    ages = an_age(), an_age()
    await a_willing(world, ages[0])
    asked = await an_asked(world, ages[1])
    marketer = await world.marketer()
    held = [await ask(marketer, age) for age in ages]
    await marketer.collect(1)
    offer = await asked.offer()
    await set_marketer(world, marketer, suspended=True)
    suspended = "SELECT FROM suspended_marketers WHERE marketer = $1 AND seq > reinstated_seq"
    await until(partial(rows, world, "consent", suspended, marketer.name))
    await asked.accept(offer)
    assert [] == await releases(marketer)

    async def are_over() -> bool:
        return [[TERMINATED], [TERMINATED]] == [await states(world, name) for name in held]

    await until(are_over)
    assert [1, 0] == [await settlements(world, name) for name in held]


@pytest.mark.parametrize(
    ("purpose", "becomes"),
    [(CARE, OFFERED), (MARKETING, TERMINATED)],
    ids=["its rule doesn't apply", "nobody is asked"],
)
async def test_level_lost_since_the_request_counts_at_the_decision(timed: Timed, purpose: str, becomes: int) -> None:
    world, age = timed.world, an_age()
    customer = await an_asked(world, age)
    everything = ("profile.city", "profile.age")
    allowed = terms(*everything, purposes=[CARE, MARKETING], valid_for=timedelta(days=365), decide_within=None)
    await customer.rule(ALLOW, allowed, level=2)
    marketer = await world.marketer(level=2)
    async with AsyncExitStack() as later:
        async with holding("broker.after_introduce") as there:
            name = await ask(marketer, age, within_half_an_hour(purpose))
            await there.wait()
            await set_marketer(world, marketer, verification_level=1)
            later.enter_context(timed.clock.ahead(timedelta(minutes=6)))  # when the card at hand is too old to rely on
        await until(partial(_is, world, name, becomes))
        assert 0 == await settlements(world, name)


async def _is(world: World, name: str, state: int) -> bool:
    return [state] == await states(world, name)


async def test_first_release_is_sent_before_those_of_many_other_exchanges_are_ready(world: World) -> None:
    age, exchanges, ready = an_age(), 8, 0
    await a_willing(world, age)
    marketer = await world.marketer()
    for _ in range(exchanges):
        await ask(marketer, age)
    settling = work(world).releasing.settling

    async def settled_too_long_ago() -> bool:
        query = "SELECT marketer, exchange_id, pseudonym FROM deliveries WHERE marketer = $1"
        found = await rows(world, "broker", query, marketer.name)
        return len(found) == exchanges and not any(settling.holds(tuple(row)) for row in found)

    async def make_ready() -> None:
        nonlocal ready
        await asyncio.sleep(0.25)  # all of them take longer than the second for which the first is good
        ready += 1

    await until(settled_too_long_ago)
    with armed("broker.after_release", make_ready):
        await marketer.collect(1)
        assert ready < exchanges
