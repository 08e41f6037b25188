"""
Services that run apart are told to stop, one after the other, under load: nobody who uses the shipped client hears of a failure.

As a rolling restart does, with one process for each service: what is under way ends, streams are opened again, and whoever asks
meanwhile waits until the next process is there.
"""

import asyncio
import os
import secrets
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from random import Random

import pytest

from parley_client import Client, Kind, Settings, attribute
from parley_crypto.keyfiles import write_key
from parley_crypto.signing import Sealer, Signer
from parley_node.services import SERVICES
from parley_node.split import ApartNode
from tests.support.chaos import population
from tests.support.deaths import pid_of
from tests.support.seeds import seeded
from tests.support.servers import scratch_directory
from tests.support.waiting import beside, until
from tests.support.world import World, living_world, quick, registration

pytestmark = pytest.mark.slow

ROUNDS, PEOPLE, AT_ONCE = 3, 20, 4
EXIT_S = 10.0
"""Within which a process is gone: there is no balancer to wait for, calls have 2 s to end, and 5 s are for the rest."""
AGE = "36"


@asynccontextmanager
async def shipped_client(world: World, folder: Path) -> AsyncIterator[Client]:
    """A marketer's backend as its makers run it: with key files, over the network."""
    signing, sealing = secrets.token_bytes(32), secrets.token_bytes(32)
    operator = await world.staff("operator")
    made = await operator.call("identity", "RegisterMarketer", registration(Sealer(sealing), Signer(signing)))
    for name, key in (("signing", signing), ("sealing", sealing)):
        write_key(folder / name, key)
    settings = Settings(
        address=world.node.running.address,
        marketer=made.name,
        signing_key_file=folder / "signing",
        sealing_key_file=folder / "sealing",
        trust_file=world.home.trust,
        policy_file=world.home.policy,
    )
    async with Client(settings) as client:
        yield client


@dataclass
class Load:
    """What a backend does all the time. Whatever fails comes out."""

    client: Client
    rng: Random
    known: set[str] = field(default_factory=set)
    asked: set[str] = field(default_factory=set)
    released: set[str] = field(default_factory=set)
    """The exchanges with one customer each, and those of which there is a release."""

    async def follow(self) -> None:
        """Take what comes, and acknowledge it."""
        async for delivery in self.client.deliveries():
            assert delivery.kind is Kind.RELEASE
            release = delivery.open()
            self.known.add(release.pseudonym)
            self.released.add(release.exchange)
            await self.client.acknowledge(delivery)

    async def ask(self) -> None:
        """Ask one customer after the other."""
        while True:
            answer = await self.client.ask_one(
                self.rng.choice(sorted(self.known)),
                purposes=["Marketing"],
                ask=[attribute("profile.city")],
                valid_for=timedelta(days=20),
                decide_within=timedelta(days=7),
            )
            self.asked.add(answer.exchange.name)
            if answer.delivery:
                self.released.add(answer.delivery.open().exchange)
                await self.client.acknowledge(answer.delivery)

    async def look(self) -> None:
        """Read what it has asked."""
        while True:
            async for _ in self.client.list_exchanges():
                break
            await asyncio.sleep(0.05)


@pytest.mark.timeout(300)
async def test_backend_hears_of_no_failure_while_each_service_is_told_to_stop_in_turn(tmp_path: Path) -> None:
    rng, took = seeded(), list[float]()
    with scratch_directory() as root:
        async with living_world(root / "home", quick(), apart=True) as world:
            assert isinstance(world.node, ApartNode)
            await population(world, [{"profile.city": "Lisbon", "profile.age": AGE}] * PEOPLE, "profile.age")
            async with shipped_client(world, tmp_path) as client:
                load = Load(client, rng)
                async with beside(load.follow()):
                    await client.create_exchange(
                        where=attribute("profile.age").between(int(AGE), int(AGE)),
                        ask=[attribute("profile.city")],
                        purposes=["Marketing"],
                        valid_for=timedelta(days=30),
                        decide_within=timedelta(days=7),
                    )
                    await until(lambda: _equals(PEOPLE, load), 30)
                    async with beside(*(load.ask() for _ in range(AT_ONCE)), load.look()):
                        for _ in range(ROUNDS):
                            for service in rng.sample(SERVICES, len(SERVICES)):
                                before = len(load.asked)
                                took.append(await _stop(world.node, service))
                                await until(lambda: _goes_on(load, before), 30)  # noqa: B023 - within this turn
                    await until(lambda: _all_released(load), 30)
    print(f"{len(load.asked)} exchanges, {len(took)} processes, gone after {max(took):.1f} s at most")
    assert max(took) <= EXIT_S


async def _equals(people: int, load: Load) -> bool:
    return people == len(load.known)


async def _goes_on(load: Load, before: int) -> bool:
    return len(load.asked) > before + 2 * AT_ONCE


async def _all_released(load: Load) -> bool:
    return load.asked <= load.released


async def _is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


async def _stop(node: ApartNode, service: str) -> float:
    """Tell a service to stop, and wait for the next process of it; how many seconds the old one took."""
    pid, told = pid_of(node, service), time.monotonic()
    os.kill(pid, signal.SIGTERM)
    await until(lambda: _is_gone(pid), 30)
    gone = time.monotonic() - told

    async def another() -> bool:
        with suppress(LookupError):
            return pid_of(node, service) != pid
        return False

    await until(another, 30)
    return gone
