"""Many customers at once, and what a campaign left behind."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import TypeVar

from tests.support.world import Customer, World, terms

ALLOW = 1
AT_ONCE = 12
T = TypeVar("T")
S = TypeVar("S")


async def each(work: Callable[[S], Awaitable[T]], things: Iterable[S], at_once: int = AT_ONCE) -> list[T]:
    """Do something to each of many things, so many at a time; answers in their order."""
    gate = asyncio.Semaphore(at_once)

    async def one(thing: S) -> T:
        async with gate:
            return await work(thing)

    return list(await asyncio.gather(*(one(thing) for thing in things)))


async def willing(world: World, items: Mapping[str, str], found_by: str) -> Customer:
    """A customer who is found by an item, and has a rule that allows whoever asks for any of their items."""
    customer = await world.customer()
    await customer.put(**items)
    await customer.discoverable(found_by)
    rule = terms(*items, valid_for=timedelta(days=365), decide_within=None)
    await customer.rule(ALLOW, rule)
    return customer


async def population(world: World, people: Sequence[Mapping[str, str]], found_by: str) -> list[Customer]:
    """Willing customers, one for each set of items."""
    return await each(lambda items: willing(world, items, found_by), people)
