"""
G6 and G7: kill -9 of anything, at any moment of a campaign, loses nothing and does nothing twice.

A node runs in a process of its own while a marketer asks 1,000 customers, and ten more accept and take it back. It and its
servers are killed at moments drawn from a seed that is printed, and so is what keeps the services running where these run apart.
Then an independent checker compares what consent settled, what the broker finished and was told to be kept, what the marketer
holds, who took what back, and what is in the log.
"""

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from parley_node.embedded.pair import ServerPair
from parley_node.embedded.paths import layout, try_lock
from parley_node.home import Home
from parley_node.split import Doors
from parley_rpc.channels import connect
from tests.support.crashes import kill_listener
from tests.support.history import History
from tests.support.load import Backend, checked, populate
from tests.support.seeds import seeded
from tests.support.servers import scratch_directory
from tests.support.waiting import until
from tests.support.wavering import Waverer, wavering
from tests.support.world import Stubs, World

ROOT = Path(__file__).parents[2]
PEOPLE, WAVERING, BATCH = 1000, 10, 20


@dataclass
class City:
    """A node in its own process, and the home that outlives it."""

    home: Home
    port: int
    world: World
    apart: bool
    waverers: Sequence[Waverer] = ()
    process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start the node and wait until it answers."""
        with self._log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.support.node_process", str(self.home.root), str(self.port), str(BATCH)),
                *(["apart"] if self.apart else []),
                cwd=ROOT,
                env={"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT / 'libs'}:{ROOT / 'services'}:{ROOT}"},
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
            )
        assert self.process.stdout is not None
        async with asyncio.timeout(60):
            assert await self.process.stdout.readline(), self._log.read_text()[-2000:]

    @property
    def _log(self) -> Path:
        return self.home.root.parent / "node.log"

    async def kill(self) -> None:
        """Kill -9 the node; its servers go with it, and services that run apart."""
        assert self.process is not None
        self.process.kill()
        await self.process.wait()


@pytest.fixture(scope="module")
async def city() -> AsyncIterator[City]:
    """A node with everybody in it."""
    async with _living(apart=False) as city:
        yield city


@pytest.fixture(scope="module")
async def apart() -> AsyncIterator[City]:
    """One whose services run apart."""
    async with _living(apart=True) as city:
        yield city


@asynccontextmanager
async def _living(*, apart: bool) -> AsyncIterator[City]:
    with scratch_directory() as scratch:
        home, port = Home(scratch / "home"), _free_port()
        address = Doors.of(home).address if apart else f"127.0.0.1:{port}"
        async with connect(address, options=_EAGER) as channel:
            city = City(home, port, _world(home, channel), apart)
            await city.start()
            try:
                await populate(city.world, PEOPLE)
                await city.kill()
                await city.start()  # vault reads what is discoverable
                rng = seeded("city of one process")
                city.waverers = [await wavering(city.world, number, rng) for number in range(WAVERING)]
                yield city
            finally:
                await city.kill()
                await until(lambda: _servers_gone(home))


_EAGER = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 200)]


async def _servers_gone(home: Home) -> bool:
    where = layout(home.servers)
    locks = [try_lock(where.lock(server)) for server in ("postgres", "valkey")]
    for lock in locks:
        if lock is not None:
            os.close(lock)
    return None not in locks


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _world(home: Home, channel: grpc.aio.Channel) -> World:
    where = layout(home.servers)
    servers = ServerPair(provider="", adopted=True, where=where)
    node: Any = SimpleNamespace(servers=servers)  # all that is asked of a node in another process
    return World(home, node, Stubs(channel), log=None)  # type: ignore[arg-type] # the log is in a file


# --- Killing ---------------------------------------------------------------------------------------------------------------


async def kill_node(city: City) -> None:
    await city.kill()
    await city.start()


async def kill_postgres(city: City) -> None:
    await _kill_server(city.world.node.servers.where.postgres_sockets / ".s.PGSQL.5432")  # type: ignore[union-attr] # embedded


async def kill_valkey(city: City) -> None:
    await _kill_server(city.world.node.servers.where.valkey_socket)  # type: ignore[union-attr] # embedded


async def _kill_server(path: Path) -> None:
    """Kill it, as soon as it is back from the last time."""
    async with asyncio.timeout(30):
        while True:
            with suppress(OSError):
                kill_listener(path)
                return
            await asyncio.sleep(0.02)


async def survive(city: City, history: History, kill: Callable[[City], Awaitable[None]], times: int) -> None:
    """Kill so many times in the middle of campaigns, then let all come to its end."""
    rng = seeded()
    backend = Backend(await city.world.marketer(), history, PEOPLE, city.world.trust, city.waverers)
    for each in city.waverers:  # one who objects while they are decided is decided again half a minute later
        each.may_object = times >= 20
    midway = 0
    async with backend.working():
        await backend.ask()
        for _ in range(times):
            await asyncio.sleep(rng.uniform(0.1, 1.0))
            if backend.has_all():  # it was faster than we: ask again, so that there is something to disturb
                await backend.ask()
                await asyncio.sleep(rng.uniform(0.1, 0.5))
            midway += not backend.has_all()
            await kill(city)
        await backend.finish(city.world, 120)
    print(f"{midway} kills in the middle, {backend}")
    assert times == midway
    assert [] == await checked(city.world, history)


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("kill", "times"),
    [
        (kill_node, 2),
        pytest.param(kill_node, 20, marks=pytest.mark.slow),
        pytest.param(kill_postgres, 20, marks=pytest.mark.slow),
        pytest.param(kill_valkey, 20, marks=pytest.mark.slow),
    ],
)
async def test_campaign_survives_being_killed_again_and_again(
    city: City, history: History, kill: Callable[[City], Awaitable[None]], times: int
) -> None:
    await survive(city, history, kill, times)


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_campaign_survives_20_deaths_of_what_keeps_its_services_running(apart: City, history: History) -> None:
    await survive(apart, history, kill_node, 20)
