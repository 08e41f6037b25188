"""What the command line shows people is all there is, however many pages it comes in."""

import pytest

from parley_node import people
from tests.support.waiting import until
from tests.support.world import World, by_criteria, one_of, terms

REFUSE = 3
TOWN = "Hartfell"


async def test_lists_go_on_to_their_end(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(people, "_PAGE", 2)
    one = await world.customer()
    await one.put(profile_city=TOWN, profile_age="44", interest_hiking="yes")
    await one.discoverable("profile.city")
    marketers = [await world.marketer() for _ in range(5)]
    for marketer in marketers:
        await marketer.ask(by_criteria(terms("profile.age"), one_of("profile.city", TOWN)))

    async with people.customer(world.node.running.address, one.name, one.signer) as customer:
        await until(lambda: _has_offers(customer, 5))
        for offer in (await customer.offers())[:3]:
            await customer.accept(offer.name)
        for marketer in marketers[:3]:
            await one.rule(REFUSE, marketer=marketer.name)

        shown = (await customer.items(), await customer.offers(), await customer.consents(), await customer.rules())
        assert [3, 2, 3, 3] == [len({entry.name for entry in found}) for found in shown]
        await until(lambda: _has_history(customer, 5 + 3 + 3))


async def _has_offers(customer: people.Customer, many: int) -> bool:
    return len(await customer.offers()) == many


async def _has_history(customer: people.Customer, least: int) -> bool:
    return len({entry.commitment for entry in await customer.history()}) >= least
