"""Exchanges, as their marketer makes, reads and ends them."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import partial
from itertools import count
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from parley.broker.v1 import broker_pb2 as brokerpb
from parley.common.v1 import terms_pb2 as termspb
from parley.consent.v1 import consent_pb2 as consentpb
from parley.vault.v1 import vault_pb2 as vaultpb
from parley_broker.clients import Consent, Identity
from parley_broker.settling import WINDOW_S
from parley_crypto.jws import verify_statement
from parley_kit.faultpoints import armed
from parley_kit.faults import Unavailable
from parley_rpc.status import fault_from
from tests.integration.broker.conftest import Timed
from tests.support.broker import (
    FINALIZED,
    TERMINATED,
    ShiftedClock,
    a_willing,
    acting,
    an_age,
    an_asked,
    ask,
    failing,
    holding,
    id_of,
    of_age,
    releases,
    settlements,
    sign_in_at,
    states,
    within_half_an_hour,
)
from tests.support.calls import request_id
from tests.support.chaos import each, rows
from tests.support.waiting import until
from tests.support.world import Marketer, World, between, by_criteria, one_of, terms, to_known

LAPSED = "SELECT FROM exchanges WHERE exchange_id = $1 AND lapsed"
CARE = "https://w3id.org/dpv#CustomerCare"


async def refusal(call: object) -> tuple[str, set[str]]:
    """The reason a call is refused for, and the paths that it names."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]
    fault = fault_from(caught.value)
    return fault.reason, {violation.field for violation in fault.violations}


async def get(marketer: Marketer, name: str) -> brokerpb.Exchange:
    found: brokerpb.Exchange = await marketer.call("broker", "GetExchange", brokerpb.GetExchangeRequest(name=name))
    return found


async def cancel(marketer: Marketer, name: str) -> brokerpb.Exchange:
    request = brokerpb.CancelExchangeRequest(name=name, request_id=request_id())
    ended: brokerpb.Exchange = await marketer.call("broker", "CancelExchange", request)
    return ended


async def nothing_under_way(world: World, name: str) -> bool:
    return set(await states(world, name)) <= {FINALIZED, TERMINATED}


async def ended(world: World, name: str) -> bool:
    return [TERMINATED] == await states(world, name)


async def known(world: World, age: str) -> tuple[Marketer, str]:
    """A marketer, and the pseudonym of the one willing customer of an age, whom it got and acknowledged a release from."""
    marketer = await world.marketer()
    await ask(marketer, age)
    (delivery,) = await marketer.collect(1)
    await marketer.acknowledge(delivery)
    return marketer, delivery.release.pseudonym


async def test_five_askings_at_once_make_one_exchange(world: World) -> None:
    marketer, request = await world.marketer(), of_age(an_age())
    answers = await asyncio.gather(*(marketer.ask(request) for _ in range(5)))
    assert 1 == len({answer.exchange.name for answer in answers})
    listed = await marketer.call("broker", "ListExchanges", brokerpb.ListExchangesRequest())
    assert [answers[0].exchange.name] == [one.name for one in listed.exchanges]


async def test_request_id_of_another_request_is_refused(world: World) -> None:
    marketer, request = await world.marketer(), of_age(an_age())
    await marketer.ask(request)
    request.offer_text = "Something else"
    assert ("REQUEST_ID_REUSED", set()) == await refusal(marketer.ask(request))


async def test_request_ids_of_two_marketers_do_not_meet(world: World) -> None:
    request = of_age(an_age())
    names = [(await (await world.marketer()).ask(request)).exchange.name for _ in range(2)]
    assert 2 == len(set(names))


async def test_repeat_is_answered_after_its_deadline_as_before(timed: Timed) -> None:
    marketer = await timed.world.marketer()
    request = of_age(an_age(), within_half_an_hour())
    made = await marketer.ask(request)
    with timed.clock.ahead(timedelta(hours=2)):
        await sign_in_at(marketer, timed.clock.now())
        assert made == await marketer.ask(request)


async def test_marketer_is_served_once_a_clock_that_was_ahead_is_set_right(timed: Timed) -> None:
    world, age = timed.world, an_age()
    await a_willing(world, age)
    marketer = await world.marketer()
    with timed.clock.ahead(timedelta(hours=6)):
        await sign_in_at(marketer, timed.clock.now())
        await ask(marketer, an_age())
    await marketer.sign_in()
    name = await ask(marketer, age)
    assert [name] == [one.release.exchange for one in await marketer.collect(1)]


async def test_release_in_the_answer_is_settled_again_for_a_repeat(world: World) -> None:
    age = an_age()
    customer = await a_willing(world, age)
    marketer, pseudonym = await known(world, age)
    request = to_known(terms("profile.city", valid_for=timedelta(days=20)), pseudonym, in_answer=True)
    first, second = await marketer.ask(request), await marketer.ask(request)
    assert (first.delivery.name, first.delivery.release.release_id) == (
        second.delivery.name,
        second.delivery.release.release_id,
    )
    assert world.opened(marketer, first.delivery) == world.opened(marketer, second.delivery)
    assert 1 == await settlements(world, first.exchange.name)
    for consent in (await customer.call("consent", "ListConsents", consentpb.ListConsentsRequest())).consents:
        await customer.withdraw(consent.name)
    repeated = await marketer.ask(request)
    assert (first.exchange, False) == (repeated.exchange, repeated.HasField("delivery"))
    assert [] == await releases(marketer)


@pytest.mark.parametrize("point", ["broker.after_decide", pytest.param("broker.before_settle", marks=pytest.mark.slow)])
async def test_exchange_is_answered_in_time_without_its_release_where_another_service_hangs(
    world: World, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parley_rpc.deadlines.HOP_SECONDS", 0.2)  # more than 20 ms, for a machine that is busy
    age = an_age()
    await a_willing(world, age)
    marketer, pseudonym = await known(world, age)
    request = to_known(terms("profile.city", valid_for=timedelta(days=20)), pseudonym, in_answer=True)
    async with holding(point):
        answers = [await marketer.call("broker", "CreateExchange", request, timeout=1) for _ in range(2)]
    assert [(answers[0].exchange, False)] * 2 == [(one.exchange, one.HasField("delivery")) for one in answers]
    (delivery,) = await marketer.collect(1)
    assert answers[0].exchange.name == delivery.release.exchange


@pytest.mark.parametrize("why", ["asked", "absent", "repeated"])
async def test_answer_without_a_release_takes_as_long_whatever_the_reason(
    world: World, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parley_broker.servicer.SILENCE_S", 0.6)
    age = an_age()
    await a_willing(world, age)
    marketer, pseudonym = await known(world, age)
    beyond = terms("profile.language", valid_for=timedelta(days=20))  # which no rule allows
    request = to_known(beyond, "a" * 32 if why == "absent" else pseudonym, in_answer=True)
    if why == "repeated":
        await marketer.ask(request)
    assert 0.6 <= await silent(marketer, request)


async def test_what_becomes_of_one_customer_holds_up_nobody_elses_answer(world: World) -> None:
    age = an_age()
    await a_willing(world, age)
    marketer, pseudonym = await known(world, age)
    asked = terms("profile.city", valid_for=timedelta(days=20))
    async with holding("broker.after_release") as held:
        under_way = asyncio.create_task(marketer.ask(to_known(asked, pseudonym, in_answer=True)))
        await held.wait()
        await silent(marketer, to_known(asked, "a" * 32, in_answer=True))
        assert not under_way.done()
    await under_way


@pytest.mark.parametrize("repeated", [False, True], ids=["first", "repeated"])
async def test_whoever_is_not_there_is_decided_as_others_are(world: World, *, repeated: bool) -> None:
    marketer = await world.marketer()
    request = to_known(terms("profile.city", valid_for=timedelta(days=20)), "a" * 32, in_answer=True)
    if repeated:
        await silent(marketer, request)
    async with holding("broker.after_decide") as held:
        absent = asyncio.create_task(silent(marketer, request))
        await held.wait()
        await asyncio.sleep(1)
        assert not absent.done()
    await absent


async def test_nobody_waits_until_an_offer_is_opened(world: World) -> None:
    age = an_age()
    customer = await a_willing(world, age)
    marketer, pseudonym = await known(world, age)
    beyond = terms("profile.language", valid_for=timedelta(days=20))  # which no rule allows
    async with holding("consent.Ask.before_commit") as held:
        async with asyncio.timeout(5):  # well before the call's own end, at which it would be answered all the same
            await silent(marketer, to_known(beyond, pseudonym, in_answer=True))
        await held.wait()
    await customer.offer()


async def silent(marketer: Marketer, request: brokerpb.CreateExchangeRequest) -> float:
    """How many seconds an answer took that has no release."""
    began = asyncio.get_running_loop().time()
    answer = await marketer.ask(request)
    assert not answer.HasField("delivery")
    return asyncio.get_running_loop().time() - began


@pytest.mark.parametrize("times", [2, 5])
async def test_repeats_at_once_release_once(world: World, times: int) -> None:
    age = an_age()
    await a_willing(world, age)
    marketer, pseudonym = await known(world, age)
    request = to_known(terms("profile.city", valid_for=timedelta(days=20)), pseudonym, in_answer=True)
    answers = await asyncio.gather(*(marketer.ask(request) for _ in range(times)))
    deliveries = await marketer.collect(1)
    assert {deliveries[0].name} >= {answer.delivery.name for answer in answers if answer.HasField("delivery")}
    assert 1 == await settlements(world, answers[0].exchange.name)
    for delivery in [*deliveries, *(answer.delivery for answer in answers if answer.HasField("delivery"))]:
        artefact = verify_statement("consent", delivery.release.consent_artefact, world.trust.keys("consent"))
        assert artefact["record_id"] == world.opened(marketer, delivery)["consent"]


async def test_release_for_one_time_gives_no_second_value_though_both_calls_were_decided_before_it_settled(
    world: World,
) -> None:
    age = an_age()
    customer = await a_willing(world, age)
    marketer, pseudonym = await known(world, age)
    once = terms("profile.city", valid_for=timedelta(days=20), use=termspb.USE_ONE_TIME)
    request = to_known(once, pseudonym, in_answer=True)
    first: list[brokerpb.CreateExchangeResponse] = []

    async def settle_another() -> None:
        first.append(await marketer.ask(request))
        await customer.put(profile_city="Porto")

    with acting("broker.before_settle", settle_another):
        second = await marketer.ask(request)
    cities = [_city(world, marketer, answer.delivery) for answer in (first[0], second)]
    assert ["Lisbon", None] == cities


@pytest.mark.parametrize("point", ["vault.after_release", "broker.before_settle"])
@pytest.mark.parametrize("change", ["put", "delete"])
async def test_what_is_changed_before_a_settlement_that_waits_is_released_no_more(
    world: World, point: str, change: str
) -> None:
    age = an_age()
    customer = await a_willing(world, age)
    marketer, pseudonym = await known(world, age)
    async with holding(point) as there:
        asked = asyncio.ensure_future(
            marketer.ask(to_known(terms("profile.city", valid_for=timedelta(days=20)), pseudonym, in_answer=True))
        )
        await there.wait()
        if change == "put":
            await customer.put(profile_city="Porto")
        else:
            await customer.call(
                "vault", "DeleteItem", vaultpb.DeleteItemRequest(name="items/profile.city", request_id=request_id())
            )
        await asyncio.sleep(WINDOW_S)
    answer = await asked
    delivery = answer.delivery if answer.HasField("delivery") else (await marketer.collect(1))[0]
    assert {"put": "Porto", "delete": None}[change] == _city(world, marketer, delivery)


def _city(world: World, marketer: Marketer, delivery: brokerpb.Delivery) -> str | None:
    fields = world.opened(marketer, delivery)["fields"]
    return next(
        (each["value"] for each in fields if each["attribute"] == "profile.city" and each["form"] == "exact"), None
    )


async def test_exchanges_asked_for_at_once_share_calls_and_each_is_answered_with_its_own_release(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    age, calls = an_age(), list[int]()
    customers = [await a_willing(world, age) for _ in range(6)]
    asking = [await world.marketer() for _ in range(2)]
    expected = []
    for marketer in asking:
        await ask(marketer, age)
        expected += [(marketer, one.release.pseudonym) for one in await marketer.collect(len(customers))]
    decide_each = Consent.decide_each

    async def counted(consent: Consent, requests: Sequence[consentpb.DecideRequest]) -> consentpb.BatchDecideResponse:
        calls.append(len(requests))
        return await decide_each(consent, requests)

    monkeypatch.setattr(Consent, "decide_each", counted)
    answers = await asyncio.gather(
        *(
            marketer.ask(to_known(terms("profile.city", valid_for=timedelta(days=20)), pseudonym, in_answer=True))
            for marketer, pseudonym in expected
        )
    )
    assert [pseudonym for _, pseudonym in expected] == [answer.delivery.release.pseudonym for answer in answers]
    assert [answer.exchange.name for answer in answers] == [answer.delivery.release.exchange for answer in answers]
    opened = [world.opened(marketer, answer.delivery) for (marketer, _), answer in zip(expected, answers, strict=True)]
    assert len(expected) == len(opened)
    assert len(expected) == sum(calls) > len(calls)


async def test_release_in_the_answer_needs_one_known_pseudonym(world: World) -> None:
    marketer = await world.marketer()
    by_age, two = of_age(an_age()), to_known(terms("profile.city"), "a" * 32, "b" * 32, in_answer=True)
    by_age.release_in_answer = True
    answers = [await refusal(marketer.ask(request)) for request in (by_age, two)]
    assert [("INVALID_REQUEST", {"release_in_answer"})] * 2 == answers


async def test_pseudonyms_that_are_nobodys_look_like_people_who_do_not_answer(world: World) -> None:
    age = an_age()
    await a_willing(world, age)
    _, of_another = await known(world, age)
    marketer = await world.marketer()
    made = await marketer.ask(to_known(terms("profile.city"), "a" * 32, of_another, in_answer=False))
    assert brokerpb.EXCHANGE_STATE_REQUESTED == made.exchange.state
    assert [] == await states(world, made.exchange.name)
    assert [] == await releases(marketer)


async def test_request_is_checked_by_the_card_and_the_catalogue(world: World) -> None:
    unverified, verified = await world.marketer(level=1), await world.marketer(level=2)
    income = terms("profile.city", "finance.income", purposes=[CARE])
    rich = between("finance.income", "1", "2")
    needs = ("VERIFICATION_REQUIRED", {"terms.content.fields[1].attribute"})
    assert needs == await refusal(unverified.ask(of_age(an_age(), income)))
    asked = (needs[0], {"audience.criteria.attribute"})
    assert asked == await refusal(unverified.ask(by_criteria(terms("profile.city", purposes=[CARE]), rich)))
    assert needs == await refusal(unverified.ask(to_known(income, "a" * 32)))
    await verified.ask(of_age(an_age(), income))
    assert ("VERIFICATION_REQUIRED", {"terms.purposes"}) == await refusal(unverified.ask(of_age(an_age())))


async def test_clocks_that_are_seconds_apart_are_no_defect_of_brokers(world: World) -> None:
    marketer, behind = await world.marketer(), ShiftedClock()
    channel = {"identity": world.calling("broker")}
    for by, is_good in ((-4, True), (-7, False)):
        platform: Any = SimpleNamespace(channel=channel.get, clock=behind)
        with behind.ahead(timedelta(seconds=by)):
            asking = Identity(platform, world.trust).card(marketer.name)
            if is_good:
                assert marketer.name == (await asking).card.marketer
            else:
                with pytest.raises(Unavailable) as refused:
                    await asking
                assert refused.value.retry_after


async def test_refused_request_leaves_its_request_id_free(world: World) -> None:
    marketer, request = await world.marketer(), of_age(an_age(), terms("profile.nonsense"))
    assert "ATTRIBUTE_UNKNOWN" == (await refusal(marketer.ask(request)))[0]
    request.terms.content.fields[0].attribute = "profile.city"
    assert (await marketer.ask(request)).exchange.name


async def test_audience_has_to_be_chosen_and_its_criteria_to_be_whole(world: World) -> None:
    marketer = await world.marketer()
    nobody = brokerpb.CreateExchangeRequest(terms=terms("profile.city"), request_id=request_id())
    nobody.audience.SetInParent()
    empty = by_criteria(terms("profile.city"), termspb.Criteria())
    assert "INVALID_REQUEST" == (await refusal(marketer.ask(nobody)))[0]
    assert "INVALID_REQUEST" == (await refusal(marketer.ask(empty)))[0]


async def test_audience_is_not_asked_more_than_anybody_needs(world: World) -> None:
    marketer, age = await world.marketer(), between("profile.age", "30", "39")
    negated = termspb.Criteria()
    getattr(negated, "not").CopyFrom(age)
    many = termspb.Criteria(all_of=termspb.CriteriaList(criteria=[negated] * 32))
    several = termspb.Criteria(any_of=termspb.CriteriaList(criteria=[many] * 3))  # one question, 196 conditions
    towns = [f"{'x' * 700}{number}" for number in range(12)]
    at_length = one_of("profile.city", *towns)

    said = ("INVALID_REQUEST", {"audience.criteria"})
    assert said == await refusal(marketer.ask(by_criteria(terms("profile.city"), several)))
    assert said == await refusal(marketer.ask(by_criteria(terms("profile.city"), at_length)))


async def test_exchanges_are_listed_newest_first_page_by_page(world: World) -> None:
    marketer = await world.marketer()
    made = [await ask(marketer, an_age()) for _ in range(5)]
    token, listed = "", list[str]()
    for _ in range(3):
        request = brokerpb.ListExchangesRequest(page_size=2, page_token=token)
        page = await marketer.call("broker", "ListExchanges", request)
        listed += [one.name for one in page.exchanges]
        token = page.next_page_token
    assert ("", made[::-1]) == (token, listed)


async def test_page_token_is_checked(world: World) -> None:
    request = brokerpb.ListExchangesRequest(page_token="MDAwMS0wMS0wMVQwMDowMDowMCsyMzo1OSBh")
    refused = await refusal((await world.marketer()).call("broker", "ListExchanges", request))
    assert ("INVALID_REQUEST", {"page_token"}) == refused


async def test_exchange_says_the_same_whoever_was_found(world: World) -> None:
    age, nobodys = an_age(), an_age()
    await each(lambda _: a_willing(world, age), range(3))
    marketer = await world.marketer()
    names = [await ask(marketer, one) for one in (age, nobodys)]
    await marketer.collect(3)
    found, empty = [await get(marketer, name) for name in names]
    for one in (found, empty):
        for part in ("name", "audience", "create_time", "terms"):
            one.ClearField(part)
    assert found == empty


async def test_nothing_is_released_once_an_exchange_is_cancelled(world: World) -> None:
    age = an_age()
    customer = await an_asked(world, age)
    marketer = await world.marketer()
    name = await ask(marketer, age)
    offer = await customer.offer()
    assert brokerpb.EXCHANGE_STATE_TERMINATED == (await cancel(marketer, name)).state
    await customer.accept(offer)
    assert [] == await releases(marketer)
    await until(partial(ended, world, name))
    assert 0 == await settlements(world, name)


@pytest.mark.parametrize("point", ["broker.after_introduce", "broker.after_decide", "broker.after_release"])
async def test_exchange_cancelled_on_its_way_settles_nothing(world: World, point: str) -> None:
    age = an_age()
    await a_willing(world, age)
    marketer = await world.marketer()
    async with holding(point) as there:
        name = await ask(marketer, age)
        await there.wait()
        await cancel(marketer, name)
    assert [] == await releases(marketer, 1.0)
    assert 0 == await settlements(world, name)


async def test_repeat_that_its_own_cancellation_overtakes_settles_nothing(world: World) -> None:
    age = an_age()
    await a_willing(world, age)
    marketer, pseudonym = await known(world, age)
    request = to_known(terms("profile.city", valid_for=timedelta(days=20)), pseudonym, in_answer=True)
    with failing("broker.after_decide", Unavailable(retry_after=0.1), times=10**6):
        made = await marketer.ask(request)
        away = "UPDATE participants SET leased_until = 'infinity' WHERE exchange_id = $1"  # from the workers
        await rows(world, "broker", away, id_of(made.exchange.name))
    opened = count(1)

    async def cancel_the_second_time() -> None:
        if next(opened) == 2:  # the first time it is taken for a new request, until that turns out to be none
            await cancel(marketer, made.exchange.name)

    with armed("broker.after_release", cancel_the_second_time):
        repeated = await marketer.ask(request)
    assert next(opened) > 2
    assert [False, False] == [answer.HasField("delivery") for answer in (made, repeated)]
    assert 0 == await settlements(world, made.exchange.name)


async def test_cancelling_twice_is_no_error_and_leaves_what_is_released(world: World) -> None:
    age = an_age()
    await a_willing(world, age)
    marketer = await world.marketer()
    name = await ask(marketer, age)
    await marketer.collect(1)
    assert await cancel(marketer, name) == await cancel(marketer, name)
    assert [FINALIZED] == await states(world, name)
    assert 1 == len(await releases(marketer))


async def test_cancelling_or_reading_somebody_elses_exchange_reads_like_absence(world: World) -> None:
    owner, other = await world.marketer(), await world.marketer()
    name = await ask(owner, an_age())
    absent = f"{owner.name}/exchanges/{'a' * 26}"
    for act in (get, cancel):
        assert ("EXCHANGE_NOT_FOUND", set()) == await refusal(act(other, name)) == await refusal(act(other, absent))
    assert brokerpb.EXCHANGE_STATE_REQUESTED == (await get(owner, name)).state


async def test_deadline_ends_participants_and_tells_no_counts(timed: Timed) -> None:
    world, age = timed.world, an_age()
    customer = await an_asked(world, age)
    marketer = await world.marketer()
    names = [await ask(marketer, one, within_half_an_hour()) for one in (age, an_age())]
    await customer.offer()
    with timed.clock.ahead(timedelta(minutes=31)):
        await until(partial(ended, world, names[0]))
        await sign_in_at(marketer, timed.clock.now())
        await sign_in_at(customer, timed.clock.now())
        seen = [await get(marketer, name) for name in names]
        assert [brokerpb.EXCHANGE_STATE_FINALIZED] * 2 == [one.state for one in seen]
        assert [] == await customer.offers()
        assert [] == await releases(marketer)


@pytest.mark.parametrize("point", ["broker.after_introduce", "broker.matched.after_commit"])
async def test_nobody_is_decided_once_the_deadline_has_passed(timed: Timed, point: str) -> None:
    world, age = timed.world, an_age()
    await a_willing(world, age)
    marketer = await world.marketer()
    async with AsyncExitStack() as late:
        async with holding(point) as there:
            name = await ask(marketer, age, within_half_an_hour())
            await there.wait()
            late.enter_context(timed.clock.ahead(timedelta(minutes=31)))
        await until(partial(rows, world, "broker", LAPSED, id_of(name)))
        await until(partial(nothing_under_way, world, name))
    assert ([], 0) == (await releases(marketer), await settlements(world, name))
