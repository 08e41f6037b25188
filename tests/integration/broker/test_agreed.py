"""What was agreed to reaches its marketer, whatever comes between: a deadline, a refusal that is lifted, an act elsewhere."""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from parley.broker.v1 import broker_pb2 as brokerpb
from parley.common.v1 import terms_pb2 as termspb
from parley.consent.v1 import consent_pb2 as consentpb
from parley_kit.faultpoints import armed
from parley_kit.faults import Unavailable
from tests.integration.broker.conftest import Timed
from tests.support.broker import (
    ACCEPTED,
    FINALIZED,
    TERMINATED,
    a_willing,
    acting,
    an_age,
    an_asked,
    ask,
    failing,
    holding,
    id_of,
    releases,
    settlements,
    sign_in_at,
    states,
    within_half_an_hour,
)
from tests.support.calls import request_id
from tests.support.chaos import rows
from tests.support.waiting import until
from tests.support.world import Customer, Marketer, World, terms, to_known

REFUSE = 3
AN_HOUR = timedelta(hours=1)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who isn't allowed just now is looked at again at once."""
    monkeypatch.setattr("parley_broker.releasing._LATER", timedelta(seconds=0.5))


# --- Deadlines -----------------------------------------------------------------------------------------------------------


async def test_acceptance_in_time_counts_though_the_deadline_overtakes_the_news_of_it(timed: Timed) -> None:
    world, age = timed.world, an_age()
    customer, marketer = await an_asked(world, age), await world.marketer()
    name = await ask(marketer, age, within_half_an_hour())
    offer = await customer.offer()
    async with holding("consent.relay.before_commit"):  # the news waits
        await customer.accept(offer)
        with timed.clock.ahead(AN_HOUR):
            await until(partial(is_in, world, name, TERMINATED))
    with timed.clock.ahead(AN_HOUR):
        await sign_in_at(marketer, timed.clock.now())
        assert [name] == [one.release.exchange for one in await marketer.collect(1)]
    assert 1 == await settlements(world, name)


async def test_acceptance_outlives_a_deadline_at_which_vault_is_away(timed: Timed) -> None:
    world, age = timed.world, an_age()
    customer, marketer = await an_asked(world, age), await world.marketer()
    name = await ask(marketer, age, within_half_an_hour())
    with failing("vault.after_release", Unavailable(retry_after=0.1), times=10**6):
        await customer.accept(await customer.offer())
        await until(partial(is_in, world, name, ACCEPTED))
        with timed.clock.ahead(AN_HOUR):
            await until(partial(has_lapsed, world, name))
    with timed.clock.ahead(AN_HOUR):
        await rows(world, "broker", "UPDATE participants SET leased_until = '-infinity' WHERE state = 3")  # else 30 s
        await until(partial(is_in, world, name, FINALIZED))


async def test_acceptance_revives_nothing_that_its_marketer_cancelled(world: World) -> None:
    age = an_age()
    customer, marketer = await an_asked(world, age), await world.marketer()
    name = await ask(marketer, age)
    offer = await customer.offer()
    await marketer.call("broker", "CancelExchange", brokerpb.CancelExchangeRequest(name=name, request_id=request_id()))
    await customer.accept(offer)
    await until(partial(is_in, world, name, TERMINATED))
    assert [] == await releases(marketer, 1)


async def has_lapsed(world: World, exchange: str) -> bool:
    (row,) = await rows(world, "broker", "SELECT lapsed FROM exchanges WHERE exchange_id = $1", id_of(exchange))
    return bool(row["lapsed"])


async def is_in(world: World, exchange: str, state: int) -> bool:
    return [state] == await states(world, exchange)


# --- What blocks for a while ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("impatient")
async def test_what_was_accepted_under_a_refusal_comes_once_that_is_lifted(world: World) -> None:
    age = an_age()
    customer, marketer = await an_asked(world, age), await world.marketer()
    name = await ask(marketer, age)
    offer = await customer.offer()
    rule = await customer.rule(REFUSE, marketer=marketer.name)
    await customer.accept(offer)
    assert ([], 0) == (await releases(marketer, 1), await settlements(world, name))
    await lift(customer, rule)
    assert [name] == [one.release.exchange for one in await releases(marketer, 3)]


@pytest.mark.usefixtures("impatient")
async def test_release_comes_again_after_a_refusal_that_was_lifted(world: World) -> None:
    age = an_age()
    customer, marketer = await an_asked(world, age), await world.marketer()
    name = await ask(marketer, age)
    await customer.accept(await customer.offer())
    (first,) = await marketer.collect(1)
    rule = await customer.rule(REFUSE, marketer=marketer.name)
    assert [] == await releases(marketer, 1)
    await lift(customer, rule)
    assert [first.name] == [one.name for one in await releases(marketer, 3)]
    assert 1 == await settlements(world, name)


async def lift(customer: Customer, rule: consentpb.Rule) -> None:
    await customer.call("consent", "DeleteRule", consentpb.DeleteRuleRequest(name=rule.name, request_id=request_id()))


async def test_refusal_that_begins_meanwhile_stops_what_was_decided_before(timed: Timed) -> None:
    world, age = timed.world, an_age()
    customer, marketer = await a_willing(world, age), await world.marketer()
    refusal = termspb.Terms()
    refusal.timing.validity.start_time.FromDatetime(datetime.now(UTC) + AN_HOUR)
    await customer.rule(REFUSE, refusal)
    async with holding("broker.before_settle") as there:
        name = await ask(marketer, age)
        await there.wait()
        ahead = ExitStack()
        ahead.enter_context(timed.clock.ahead(AN_HOUR))
    with ahead:
        await until(partial(is_in, world, name, TERMINATED))
    assert ([], 0) == (await releases(marketer, 0.5), await settlements(world, name))


async def test_release_whose_consent_is_paused_is_left_alone_though_another_would_cover_it(world: World) -> None:
    age = an_age()
    customer, marketer = await an_asked(world, age), await world.marketer()
    await ask(marketer, age, terms("profile.city", valid_for=timedelta(days=20)))
    first = await customer.accept(await customer.offer())
    await marketer.collect(1)
    other = await ask(marketer, age, terms("profile.city", valid_for=timedelta(days=40)))
    await customer.accept(await customer.offer())
    both = await marketer.collect(2)
    await marketer.acknowledge(*(one for one in both if one.release.exchange == other))
    await customer.call(
        "consent", "PauseConsent", consentpb.PauseConsentRequest(name=first.name, request_id=request_id())
    )
    with counted("broker.before_settle", "vault.after_release") as seen:
        assert [] == await releases(marketer, 1.5)
    assert not any(count > 2 for count in seen.values()), seen


@contextmanager
def counted(*points: str) -> Iterator[Counter[str]]:
    seen: Counter[str] = Counter()

    async def passed(point: str) -> None:
        seen[point] += 1

    with ExitStack() as stack:
        for point in points:
            stack.enter_context(armed(point, partial(passed, point)))
        yield seen


@pytest.mark.parametrize(
    ("use", "again"), [(termspb.USE_ONE_TIME, []), (termspb.USE_STANDING, ["Porto"])], ids=["once", "standing"]
)
async def test_release_for_one_time_is_no_subscription(world: World, use: int, again: list[str]) -> None:
    age = an_age()
    customer, marketer = await an_asked(world, age), await world.marketer()
    await ask(marketer, age, terms("profile.city", use=use))
    await customer.accept(await customer.offer())
    assert ["Lisbon"] == [city for one in await marketer.collect(1) for city in exact_values(world, marketer, one)]
    await customer.put(profile_city="Porto")
    assert again == [city for one in await marketer.collect(1) for city in exact_values(world, marketer, one)]


def exact_values(world: World, marketer: Marketer, delivery: brokerpb.Delivery) -> list[str]:
    return [one["value"] for one in world.opened(marketer, delivery)["fields"] if one["form"] == "exact"]


# --- In the answer -------------------------------------------------------------------------------------------------------


async def test_answer_has_its_release_though_its_customer_acts_elsewhere_meanwhile(world: World) -> None:
    marketer, customer, pseudonym = await acquainted(world)

    async def act() -> None:
        await customer.rule(REFUSE, marketer=(await world.marketer()).name)

    with acting("broker.before_settle", act) as done:
        answer = await marketer.ask(known(pseudonym))
    assert done.is_set()
    assert answer.HasField("delivery"), "a marketer would learn the moment of an act towards another"


async def test_answer_is_without_a_release_that_was_refused_meanwhile(world: World) -> None:
    marketer, customer, pseudonym = await acquainted(world)

    async def act() -> None:
        await customer.rule(REFUSE, marketer=marketer.name)

    with acting("broker.before_settle", act) as done:
        answer = await marketer.ask(known(pseudonym))
    assert (True, False) == (done.is_set(), answer.HasField("delivery"))


async def test_customer_who_never_stops_acting_is_answered_later(world: World) -> None:
    marketer, customer, pseudonym = await acquainted(world)
    acts = 0

    async def act() -> None:
        nonlocal acts
        acts += 1
        await customer.rule(REFUSE, marketer=(await world.marketer()).name)

    with armed("broker.before_settle", act):
        answer = await marketer.ask(known(pseudonym))
        assert (True, False) == (acts >= 3, answer.HasField("delivery"))
    assert [answer.exchange.name] == [one.release.exchange for one in await releases(marketer, 2)]


def known(pseudonym: str) -> brokerpb.CreateExchangeRequest:
    return to_known(terms("profile.city", valid_for=timedelta(days=20)), pseudonym, in_answer=True)


async def acquainted(world: World) -> tuple[Marketer, Customer, str]:
    """A marketer, a customer whose consent it has, and its pseudonym for them."""
    age = an_age()
    customer, marketer = await an_asked(world, age), await world.marketer()
    await ask(marketer, age)
    await customer.accept(await customer.offer())
    (release,) = await marketer.collect(1)
    await marketer.acknowledge(release)
    return marketer, customer, release.release.pseudonym
