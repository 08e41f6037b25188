"""What is held of searches that are under way: so much and no more, for so long and no longer."""

import asyncio
import secrets
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from parley_crypto.keyring import KeyRing
from parley_kit.faults import Unavailable
from parley_terms.terms import Criterion, Level, OneOf
from parley_vault import searching
from parley_vault.domain.matching import Fact, Index, Order
from parley_vault.searching import Audience, Matcher, Orders
from tests.support.clocks import StillClock
from tests.support.waiting import until
from tests.unit.vault.test_matching import CATALOGUE

COOKS = Criterion("p.job", OneOf(("cook",)))
AUDIENCE = Audience("exchanges/x", "marketers/m", Level.VERIFIED, COOKS)
OTHERS = replace(AUDIENCE, marketer="marketers/n")


def order_of(count: int) -> Order:
    index = Index(CATALOGUE)
    for _ in range(count):
        index.add(secrets.token_hex(8), {"p.job": Fact("cook", Level.UNVERIFIED)})
    order = Order(index, COOKS, Level.VERIFIED, str.encode)
    order.make()
    return order


@pytest.fixture
def orders(monkeypatch: pytest.MonkeyPatch) -> Orders:
    monkeypatch.setattr(searching, "MOST_HELD", 40)
    return Orders(StillClock(datetime(2031, 5, 4, 12, tzinfo=UTC)))


async def test_order_is_found_again_by_its_audience_alone(orders: Orders) -> None:
    order = order_of(3)
    orders.hold(AUDIENCE, order)

    assert order is orders.find(replace(AUDIENCE))
    strangers = [
        OTHERS,
        replace(AUDIENCE, exchange="exchanges/y"),
        replace(AUDIENCE, level=Level.ACCREDITED),
        replace(AUDIENCE, criteria=Criterion("p.job", OneOf(("nurse",)))),
    ]
    assert [None] * 4 == [orders.find(each) for each in strangers]
    orders.forget(AUDIENCE)
    assert None is orders.find(AUDIENCE)


async def test_one_marketer_has_a_quarter_of_the_room_and_takes_nobody_elses(orders: Orders) -> None:
    orders.hold(AUDIENCE, order_of(6))
    orders.hold(more := replace(AUDIENCE, exchange="exchanges/y"), order_of(5))
    orders.hold(less := replace(AUDIENCE, exchange="exchanges/z"), order_of(4))
    orders.hold(OTHERS, order_of(10))

    assert [True, False, True, True] == [orders.find(each) is not None for each in (AUDIENCE, more, less, OTHERS)]


async def test_all_marketers_together_have_the_room_there_is(orders: Orders) -> None:
    marketers = [replace(AUDIENCE, marketer=f"marketers/{number}") for number in range(6)]
    for each in marketers:
        orders.hold(each, order_of(9))

    assert [True] * 4 + [False] * 2 == [orders.find(each) is not None for each in marketers]
    orders.hold(marketers[0], order_of(9))  # again, for its next page
    assert orders.find(marketers[0]) is not None


async def test_order_that_is_far_behind_is_made_anew(orders: Orders) -> None:
    order = order_of(1)
    orders.hold(AUDIENCE, order)
    for number in range(65):
        order.touch(str(number))

    assert None is orders.find(AUDIENCE)


async def test_order_that_nobody_asks_for_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "HELD_S", 0.01)
    orders = Orders(clock := StillClock(datetime(2031, 5, 4, 12, tzinfo=UTC)))
    orders.hold(AUDIENCE, order_of(3))
    await asyncio.sleep(0.05)
    assert orders.find(AUDIENCE) is not None  # by this clock no time has passed

    clock.at += timedelta(seconds=1)

    async def is_gone() -> bool:
        return orders.find(AUDIENCE) is None

    await until(is_gone)


async def test_order_that_never_catches_up_is_given_up(monkeypatch: pytest.MonkeyPatch, orders: Orders) -> None:
    index = Index(CATALOGUE)
    for number in range(100):
        index.add(str(number), {"p.job": Fact("cook", Level.UNVERIFIED)})
    changed = Order.changed

    def while_all_change(order: Order) -> set[str]:
        found = changed(order)
        for number in range(100):
            order.touch(str(number))
        return found

    finder: Any = SimpleNamespace(index=index)
    ring = KeyRing({1: bytes(32)}, 1)
    matcher = Matcher(finder, orders, CATALOGUE, StillClock(), {}, ring, bytes(32))
    monkeypatch.setattr(Order, "make", lambda order: [order.touch(str(number)) for number in range(100)])
    assert 100 == len(await matcher._order(AUDIENCE))

    monkeypatch.setattr(Order, "changed", while_all_change)
    with pytest.raises(Unavailable):
        await matcher._order(AUDIENCE)
