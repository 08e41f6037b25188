"""
G6, with a process for each service: what if nothing gets into the log any more?

Audit stands still for longer than consent bears with it. Then nothing leaves, in answers or on the feed, until it goes on;
customers withdraw all the same; and of what was asked meanwhile everything comes afterwards.
"""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random

import pytest

from parley_node.split import ApartNode
from tests.support.chaos import population
from tests.support.deaths import pid_of
from tests.support.races import Round, acquainted
from tests.support.seeds import seeded
from tests.support.servers import scratch_directory
from tests.support.waiting import beside, until
from tests.support.world import World, living_world, quick

pytestmark = pytest.mark.slow

BEARS_S, STILL_S = 2.0, 8.0
"""How long consent settles without hearing of the log, and how long audit stands still."""
WINDOW_S, SLACK_S = 1.0, 1.0
"""What was settled may be sent for so long, and a busy machine adds so much."""
PEOPLE, AT_ONCE = 12, 4


@dataclass
class Came:
    """A marketer's end: when each release came that nobody had before, on the monotonic clock."""

    round: Round
    rng: Random
    times: list[float] = field(default_factory=list)

    async def follow(self) -> None:
        """Keep what comes on the feed."""
        async with self.round.marketer.feed() as feed:
            async for delivery in feed:
                self._note(delivery)
                await self.round.marketer.acknowledge(delivery)

    async def ask(self) -> None:
        """Ask for releases in the answer, and on the feed, by turns."""
        pseudonyms = [one.pseudonym for one in self.round.known]
        while True:
            before = len(self.round.received)
            await self.round.ask(self.rng.choice(pseudonyms), in_answer=bool(self.rng.getrandbits(1)))
            self.times += [time.monotonic()] * (len(self.round.received) - before)
            await asyncio.sleep(0.05)

    def _note(self, delivery: object) -> None:
        before = len(self.round.received)
        self.round.receive(delivery)  # type: ignore[arg-type] # a delivery, as everything on a feed is
        self.times += [time.monotonic()] * (len(self.round.received) - before)


@asynccontextmanager
async def _still(world: World, service: str) -> AsyncIterator[float]:
    """A service stands still for a while; since when."""
    assert isinstance(world.node, ApartNode)
    pid, since = pid_of(world.node, service), time.monotonic()
    os.kill(pid, signal.SIGSTOP)
    try:
        yield since
        await asyncio.sleep(since + STILL_S - time.monotonic())
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.timeout(120)
async def test_nothing_leaves_while_nothing_is_logged_and_everything_comes_afterwards() -> None:
    options = quick(consent={"audit_limit": timedelta(seconds=BEARS_S)})
    with scratch_directory() as root:
        async with living_world(root / "home", options, apart=True) as world:
            people = await population(world, [{"profile.city": "Lisbon", "profile.age": "34"}] * PEOPLE, "profile.age")
            around = await acquainted(world, people)
            leaving, around.known = around.known[0], around.known[1:]
            came = Came(around, seeded())
            async with beside(came.follow(), *(came.ask() for _ in range(AT_ONCE))):
                await asyncio.sleep(1.0)
                async with _still(world, "audit") as since:
                    await asyncio.sleep(BEARS_S + WINDOW_S)
                    await around.withdraw(leaving)
                    answered = time.monotonic() - since
                until_then = time.monotonic()
                await asyncio.sleep(2.0)
            async with beside(came.follow()):
                await until(lambda: _has_all(around), 30)
    held = [at for at in came.times if since + BEARS_S + WINDOW_S + SLACK_S < at < until_then]
    before, after = [[at for at in came.times if at < since], [at for at in came.times if at > until_then]]
    print(f"{len(before)} came before, {len(after)} after")
    assert ([], True, True) == (held, bool(before), bool(after))
    assert answered < STILL_S  # it waited for nothing that gets into the log


async def _has_all(around: Round) -> bool:
    """Whether there is a release of each exchange, which has one customer, and all of them came."""
    settled = await around.settled()
    return len(settled) == len(around.exchanges) and settled <= around.received.keys()
