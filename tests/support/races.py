"""Races of withdrawals against releases, and what both ends saw of them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import grpc

from parley.broker.v1 import broker_pb2 as brokerpb
from parley.common.v1 import terms_pb2 as termspb
from parley.consent.v1 import consent_pb2 as consentpb
from tests.support.chaos import each, rows
from tests.support.history import History
from tests.support.seeds import seeded
from tests.support.waiting import until
from tests.support.world import Customer, Marketer, World, between, by_criteria, terms, to_known

SPREAD_S = 0.08  # about as long as an exchange takes here, so that withdrawals fall before, into and behind it
AT_ONCE = 8


@dataclass(frozen=True)
class Known:
    """A customer who agreed with a marketer: their name there, and what they agreed."""

    customer: Customer
    pseudonym: str
    consent: str


@dataclass
class Round:
    """A marketer that knows everybody, and what it and its customers see."""

    world: World
    marketer: Marketer
    known: Sequence[Known]
    received: dict[str, str] = field(default_factory=dict)
    """Pseudonym by release id, as they reach the marketer."""
    asked: int = 0
    """How many releases were asked for, in requests that were answered."""
    withdrawals: int = 0
    """How many withdrawals were answered."""
    named: set[str] = field(default_factory=set)
    """Releases that answers to withdrawals named."""
    exchanges: set[str] = field(default_factory=set)
    notices: set[str] = field(default_factory=set)
    """The names of notices, as they reach the marketer."""
    patience: float = 60.0
    """Seconds to wait for everything to come to its end."""
    stood: int = 0
    """How many processes stood still meanwhile."""
    history: History | None = None
    """Where it is written down, if anybody reads it."""

    def part(self, count: int) -> "Round":
        """A round of its own with so many of the customers, who are then taken."""
        taken, self.known = self.known[:count], self.known[count:]
        assert count == len(taken)
        return Round(self.world, self.marketer, taken, history=self.history)

    async def ask(self, *pseudonyms: str, in_answer: bool = False) -> None:
        """Ask customers for what they have agreed to."""
        request = to_known(agreed(timedelta(days=20)), *pseudonyms, in_answer=in_answer)
        if self.history:
            self.history.asked(self.marketer.name, request.request_id, len(pseudonyms))
        answer = await self.marketer.ask(request)
        if self.history:
            self.history.answered(self.marketer.name, request.request_id, answer.exchange.name)
        self.exchanges.add(answer.exchange.name)
        self.asked += len(pseudonyms)
        if answer.HasField("delivery"):
            self.receive(answer.delivery)

    def receive(self, delivery: brokerpb.Delivery) -> None:
        """Note what reached the marketer."""
        if delivery.HasField("release"):
            if self.history:
                self.history.delivered(self.marketer.name, delivery)
            self.received[delivery.release.release_id] = delivery.release.pseudonym
        elif delivery.HasField("notice"):
            if self.history:
                self.history.notified(self.marketer.name, delivery)
            self.notices.add(delivery.name)

    async def withdraw(self, one: Known) -> None:
        """Withdraw what a customer agreed, and note what the answer names."""
        withdrawn = await one.customer.withdraw(one.consent)
        named = {settlement.release_id for settlement in withdrawn.settlements}
        if self.history:
            self.history.withdrawn(one.consent, [*named])
        self.named |= named
        self.withdrawals += 1

    async def settled(self) -> set[str]:
        """The releases of the races that committed at consent."""
        query = "SELECT release_id FROM settlements WHERE exchange = ANY($1)"
        return {row["release_id"] for row in await rows(self.world, "consent", query, list(self.exchanges))}

    async def finish(self) -> None:
        """Let all that is under way come to its end, also what would be sent again."""
        await until(self._nothing_to_do, self.patience)
        async with asyncio.timeout(self.patience):
            while not await self._nothing_to_send():
                async with self.following():  # each time, what isn't acknowledged is settled again
                    await asyncio.sleep(0.5)
            while self.history and not await self._nothing_to_tell():
                async with self.following():
                    await asyncio.sleep(0.5)

    async def _nothing_to_do(self) -> bool:
        query = "SELECT 1 FROM participants WHERE marketer = $1 AND state IN (1, 3, 4) LIMIT 1"
        return not await rows(self.world, "broker", query, self.marketer.name)

    async def _nothing_to_send(self) -> bool:
        query = "SELECT 1 FROM deliveries WHERE marketer = $1 AND exchange_id <> '' LIMIT 1"
        return not await rows(self.world, "broker", query, self.marketer.name)

    async def _nothing_to_tell(self) -> bool:
        if not await self._told():
            return False
        query = "SELECT delivery_id FROM deliveries WHERE marketer = $1 AND exchange_id = ''"
        on_feed = await rows(self.world, "broker", query, self.marketer.name)
        return {f"deliveries/{row['delivery_id']}" for row in on_feed} <= self.notices

    async def _told(self) -> bool:
        waiting = await rows(self.world, "consent", "SELECT 1 FROM notices WHERE marketer = $1", self.marketer.name)
        return not waiting and not await rows(self.world, "consent", "SELECT 1 FROM outbox LIMIT 1")

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Follow the feed for the length of a block."""

        async def follow() -> None:
            while True:
                try:
                    async with self.marketer.feed() as feed:
                        async for delivery in feed:
                            self.receive(delivery)
                except grpc.aio.AioRpcError as error:
                    print(f"the feed broke: {error.code()}")
                await asyncio.sleep(0.05)  # as a marketer's backend does, it comes back

        following = asyncio.create_task(follow())
        try:
            yield
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    @asynccontextmanager
    async def racing(self) -> AsyncIterator[None]:
        """Follow the feed for the length of a block, then let everything come to its end."""
        async with self.following():
            yield
            await until(self._nothing_to_do, self.patience)
        await self.finish()

    async def tidy(self) -> None:
        """Take everything off the feed, so that only what comes now reaches it."""
        await until(self._told, seconds=60)
        query = "SELECT delivery_id FROM deliveries WHERE marketer = $1"
        if left := await rows(self.world, "broker", query, self.marketer.name):
            names = [f"deliveries/{row['delivery_id']}" for row in left]
            request = brokerpb.AcknowledgeDeliveriesRequest(names=names)
            await self.marketer.call("broker", "AcknowledgeDeliveries", request)

    async def violations(self) -> set[str]:
        """Releases that committed, or reached the marketer, and that no withdrawal's answer named."""
        settled = await self.settled()
        return (settled | self.received.keys()) - self.named | (self.received.keys() - settled)


def agreed(valid_for: timedelta) -> termspb.Terms:
    """What everybody is asked for."""
    return terms("profile.city", valid_for=valid_for)


async def acquainted(world: World, people: Sequence[Customer], history: History | None = None) -> Round:
    """A new marketer, and every customer's consent with it, born of a campaign that is all over."""
    await each(lambda person: person.sign_in(), people)
    marketer = await world.marketer()
    request = by_criteria(agreed(timedelta(days=30)), between("profile.age", "34", "34"))
    answer = await marketer.ask(request)
    if history:
        history.asked(marketer.name, request.request_id, len(people))
        history.answered(marketer.name, request.request_id, answer.exchange.name)
    deliveries = await marketer.collect(len(people), seconds=60)
    for start in range(0, len(deliveries), 100):
        await marketer.acknowledge(*deliveries[start : start + 100])
    for delivery in deliveries if history else ():
        history.delivered(marketer.name, delivery)  # type: ignore[union-attr] # there is one
    return Round(world, marketer, await each(lambda person: _known(person, marketer), people), history=history)


async def _known(person: Customer, marketer: Marketer) -> Known:
    answer = await person.call("consent", "ListConsents", consentpb.ListConsentsRequest())
    (consent,) = [each for each in answer.consents if each.marketer == marketer.name]
    return Known(person, consent.pseudonym, consent.name)


Races = Callable[[Round], Awaitable[None]]


async def in_answers(around: Round) -> None:
    """Race each customer's withdrawal against an exchange of its own, the release in the answer."""
    rng = seeded()

    async def race(one: Known) -> None:
        await asyncio.gather(
            _after(rng.uniform(0, SPREAD_S), lambda: around.ask(one.pseudonym, in_answer=True)),
            _after(rng.uniform(0, SPREAD_S), lambda: around.withdraw(one)),
        )

    async with around.racing():
        await each(race, around.known, AT_ONCE)


async def in_background(around: Round) -> None:
    """Race everybody's withdrawals against exchanges with all of them, in the background, over the feed."""
    rng = seeded()

    async def race(one: Known) -> None:
        await _after(rng.uniform(0, SPREAD_S), lambda: around.withdraw(one))

    everyone = [one.pseudonym for one in around.known]
    async with around.racing():
        asking = asyncio.gather(*(around.ask(*everyone[n::5]) for n in range(5)))
        await each(race, around.known, AT_ONCE)
        await asking


async def _after(seconds: float, act: Callable[[], Awaitable[None]]) -> None:
    await asyncio.sleep(seconds)
    await act()


def both_came_first(around: Round) -> tuple[int, int]:
    """How many releases were made before the withdrawal, and how many were overtaken by it."""
    made = len(around.received)
    return made, len(around.known) - made
