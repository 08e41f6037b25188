"""
G6 and G7, with a process for each service: kill -9 of any, of PostgreSQL and of Valkey, between any two commits of a campaign.

A marketer asks 1,000 customers, and again whenever it has them all. Ten more accept and soon take it back, each time. Meanwhile
processes die at fault points that are drawn from a seed, or stand still there while a server is killed. Then an independent
checker compares the history of marketer and customers with what consent, broker and audit hold.
"""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import pytest

from parley_node.services import SERVICES
from tests.support.city import City, kill_another
from tests.support.deaths import drawn, hits, kills, pid_of, points, stands_still, stopped_at, stops
from tests.support.history import History
from tests.support.load import Backend, checked
from tests.support.seeds import seeded
from tests.support.waiting import until

pytestmark = pytest.mark.slow


async def survive_kills(city: City, backend: Backend, plans: Mapping[str, list[str]]) -> None:
    """Let services die as planned while a backend works, then let all come to its end."""
    async with backend.working():
        if backend.hesitant:
            await until(backend.hesitant.known, 60)
        await backend.ask()
        goals = {name: await city.die(name, plan) for name, plan in plans.items()}

        async def dead_often_enough() -> bool:
            await backend.busy()
            return all(city.deaths.starts[name] >= goal for name, goal in goals.items())

        await until(dead_often_enough, 300)
        await backend.finish(city.world, 120)


@dataclass
class Killings:
    """A server's deaths: which processes of it died, and at which points somebody stood still meanwhile."""

    city: City
    server: str
    killed: list[int] = field(default_factory=list)
    points: set[str] = field(default_factory=set)
    _before: dict[str, Counter[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._before = {name: hits(self.city.world.home.log(name)) for name in SERVICES}

    async def beneath(self, name: str, pid: int, history: History, since: float) -> None:
        """Kill the server beneath a service that has stood still since some moment at the earliest, and let that one go on."""
        self.killed.append(await kill_another(self.city.sockets[self.server], self.killed))
        self.points |= {*(hits(self.city.world.home.log(name)) - self._before[name])}
        os.kill(pid, signal.SIGCONT)
        history.stopped(name, since)


async def survive_kills_of(
    killings: Killings, backend: Backend, plans: Mapping[str, list[str]], enough: Callable[[], bool]
) -> None:
    """Kill a server whenever a service stands still at a fault point, until it is ``enough``, then let all come to its end."""
    city = killings.city
    for name, plan in plans.items():
        city.deaths.plans[name] = plan * _OFTEN
    pids = await city.once_more(list(plans))
    async with backend.working(), asyncio.timeout(540):
        at_work = dict(zip(plans, pids, strict=True))
        killing = asyncio.create_task(_kill_beneath(killings, backend.history, at_work, enough))
        try:
            await backend.ask()
            while not killing.done():
                await backend.busy()
                await asyncio.sleep(0.05)
            await killing
        finally:
            killing.cancel()
        city.deaths.plans.clear()
        await city.once_more(list(plans))  # from now on they are armed with nothing
        await backend.finish(city.world, 120)


_OFTEN = 1000  # a process that could not start without the server is armed with the same again


async def _kill_beneath(killings: Killings, history: History, pids: dict[str, int], enough: Callable[[], bool]) -> None:
    """Kill the server beneath whichever process stands still."""
    went = dict.fromkeys(pids, time.monotonic())
    while not enough():
        for name, pid in list(pids.items()):
            now = time.monotonic()
            try:
                if stands_still(pid):
                    await killings.beneath(name, pid, history, went[name])
                went[name] = now
            except (FileNotFoundError, ProcessLookupError):  # it was just starting, without the server: it starts again
                with suppress(LookupError):
                    pids[name] = pid_of(killings.city.node, name)
        await asyncio.sleep(0.01)


@pytest.mark.timeout(600)
async def test_campaign_survives_deaths_of_every_process(city: City, history: History) -> None:
    rng, backend = seeded(), await city.backend(history)
    await survive_kills(city, backend, {name: kills(rng, name, 1) for name in SERVICES})
    print(backend)
    assert [] == await checked(city.world, backend.history)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("server", ["postgres"])  # Valkey is killed, and its files with it, in test_apart_outages.py
async def test_campaign_survives_deaths_of_a_server(city: City, history: History, server: str) -> None:
    rng, backend, killings = seeded(), await city.backend(history), Killings(city, server)
    await survive_kills_of(killings, backend, stops(rng, {"broker": 2, "consent": 2}), lambda: bool(killings.killed))
    print(backend)
    assert [] == await checked(city.world, backend.history)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("service", SERVICES)
async def test_campaign_survives_20_deaths_of_a_process(city: City, history: History, service: str) -> None:
    rng, backend = seeded(), await city.backend(history, hesitating=service in ("broker", "consent"))
    plan = kills(rng, service, max(20, len(points(service))))
    wanted, log = drawn(plan), city.world.home.log(service)
    before = hits(log)
    await survive_kills(city, backend, {service: plan})
    assert set() == wanted - {*(hits(log) - before)}  # it died at every one of them
    print(backend)
    assert [] == await checked(city.world, backend.history)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("server", ["postgres", "valkey"])
async def test_campaign_survives_20_deaths_of_a_server_and_one_at_every_point(
    city: City, history: History, server: str
) -> None:
    rng, backend, killings = seeded(), await city.backend(history, hesitating=True), Killings(city, server)
    plans = stops(rng, {name: len(points(name)) for name in SERVICES})
    wanted = {point for (plan,) in plans.values() for point in stopped_at(plan)}
    await survive_kills_of(killings, backend, plans, lambda: len(killings.killed) >= 20 and wanted <= killings.points)
    print(f"{backend}, {len(killings.killed)} deaths")
    assert [] == await checked(city.world, backend.history)
