"""Many customers at once, and what a campaign left behind."""

import asyncio
import os
import signal
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import asyncpg

from parley_kit.faultpoints import armed
from tests.support.dumps import database_url
from tests.support.world import Customer, World, terms

_PEER = struct.Struct("3i")  # struct ucred: pid, uid, gid (unix(7))
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


def listener(path: Path) -> int:
    """The process that listens on a unix socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.connect(str(path))
        pid, _, _ = _PEER.unpack(probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
    return int(pid)


@contextmanager
def frozen(path: Path) -> Iterator[None]:
    """Stop the process behind a socket for the length of a block: it takes connections, and never answers."""
    pid = listener(path)
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@dataclass
class Hold:
    """What is held at a fault point: ``there`` is set once somebody is, ``inside`` says how many are just now."""

    there: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event = field(default_factory=asyncio.Event)
    inside: int = 0

    async def end(self) -> None:
        """Let all go, and wait until they have gone."""
        self.go.set()
        while self.inside:  # noqa: ASYNC110 - they go one by one
            await asyncio.sleep(0.01)


@asynccontextmanager
async def held(point: str, seconds: float) -> AsyncIterator[Hold]:
    """Hold whoever reaches a fault point until they are let go, and for some seconds at least; who comes later passes."""
    hold = Hold()

    async def wait() -> None:
        if hold.go.is_set():
            return
        hold.there.set()
        hold.inside += 1
        try:
            await asyncio.gather(asyncio.sleep(seconds), hold.go.wait())
        finally:
            hold.inside -= 1

    with armed(point, wait):
        try:
            yield hold
        finally:
            hold.go.set()


async def rows(world: World, service: str, query: str, *arguments: Any) -> list[Any]:
    """Rows of a service's database."""
    connection = await asyncpg.connect(database_url(world, service))
    try:
        found: list[Any] = await connection.fetch(query, *arguments)
    finally:
        await connection.close()
    return found
