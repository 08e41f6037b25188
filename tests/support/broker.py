"""The broker inside a living node: points to hold and to break, its own parts at hand, and what its tables hold."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from io import StringIO
from itertools import count
from pathlib import Path
from typing import Any

import grpc

from parley.broker.v1 import broker_pb2 as brokerpb
from parley.common.v1 import terms_pb2 as termspb
from parley.identity.v1 import identity_pb2 as identitypb
from parley_broker.work import Work
from parley_crypto.statements import make_assertion
from parley_kit.clock import SystemClock
from parley_kit.faultpoints import armed
from parley_node.home import Home
from parley_node.importing.mapping import Cell, Row
from parley_node.importing.run import import_customers
from parley_node.node import Options, run
from parley_node.people import staff
from parley_rpc.logs import logger
from tests.support.calls import request_id
from tests.support.chaos import rows, willing
from tests.support.world import MARKETING, Caller, Customer, Marketer, Stubs, World, between, by_criteria, quick, terms

REQUESTED, OFFERED, ACCEPTED, FINALIZED, TERMINATED = 1, 2, 3, 5, 6

_ages = count(1)


class ShiftedClock:
    """The machine's clock, moved ahead as a test says; what is measured runs on."""

    def __init__(self) -> None:
        self._system, self._ahead = SystemClock(), timedelta()

    def now(self) -> datetime:
        return self._system.now() + self._ahead

    def monotonic(self) -> float:
        return self._system.monotonic()

    @contextmanager
    def ahead(self, by: timedelta) -> Iterator[None]:
        """Be so far ahead for the length of a block."""
        self._ahead += by
        try:
            yield
        finally:
            self._ahead -= by


@dataclass
class Failing:
    """Fails whoever comes, so many times."""

    error: Exception
    left: int = 1
    spent: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self) -> None:
        if self.left:
            self.left -= 1
            if not self.left:
                self.spent.set()
            raise self.error


@contextmanager
def failing(point: str, error: Exception | None = None, times: int = 1) -> Iterator[asyncio.Event]:
    """Raise at a point, so many times; answers what is set once all of them happened."""
    action = Failing(error or RuntimeError("a crash here"), times)
    with armed(point, action):
        yield action.spent


@asynccontextmanager
async def holding(point: str) -> AsyncIterator[asyncio.Event]:
    """Hold whoever reaches a point for the length of a block; answers what is set once somebody is there."""
    there, go = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        there.set()
        await go.wait()

    with armed(point, hold):
        try:
            yield there
        finally:
            go.set()


@contextmanager
def acting(point: str, act: Any) -> Iterator[asyncio.Event]:
    """Do something at a point, once, while whoever came first waits there; answers what is set when it is done."""
    began, done = False, asyncio.Event()

    async def once() -> None:
        nonlocal began
        if not began:
            began = True
            await act()
            done.set()

    with armed(point, once):
        yield done


@asynccontextmanager
async def world_with(root: Path, clock: ShiftedClock, options: Options | None = None) -> AsyncIterator[World]:
    """A node with a clock of the test's."""
    log = StringIO()
    async with (
        run(Home(root), options or quick(), logger("node", stream=log), clock=clock) as node,
        grpc.aio.insecure_channel(node.running.address) as channel,
    ):
        yield World(Home(root), node, Stubs(channel), log)


def work(world: World) -> Work:
    """The broker's work in this node."""
    task: Any = world.services["broker"].tasks["release"]
    made: Work = task.__self__
    return made


def an_age() -> str:
    """An age that nobody else in the run has: who is found by it is the test's own."""
    return str(next(_ages))


async def a_willing(world: World, age: str) -> Customer:
    """A customer of an age, who has a rule that allows everyone to have city and age."""
    return await willing(world, {"profile.city": "Lisbon", "profile.age": age}, "profile.age")


async def an_asked(world: World, age: str) -> Customer:
    """A customer of an age, who wants to be asked."""
    customer = await world.customer()
    await customer.put(profile_city="Lisbon", profile_age=age)
    await customer.discoverable("profile.age")
    return customer


def of_age(age: str, asked: termspb.Terms | None = None) -> brokerpb.CreateExchangeRequest:
    """Ask everyone of an age for their city."""
    return by_criteria(asked or terms("profile.city"), between("profile.age", age, age))


async def ask(marketer: Marketer, age: str, asked: termspb.Terms | None = None) -> str:
    """Make an exchange with everyone of an age; answers its name."""
    return str((await marketer.ask(of_age(age, asked))).exchange.name)


async def releases(marketer: Marketer, seconds: float = 0.6) -> list[brokerpb.Delivery]:
    """The releases that the feed holds and brings within some seconds."""
    return [one for one in await marketer.collect_for(seconds) if one.HasField("release")]


async def states(world: World, exchange: str) -> list[int]:
    """The states of an exchange's participants, sorted."""
    found = await rows(
        world, "broker", "SELECT state FROM participants WHERE exchange_id = $1 ORDER BY state", id_of(exchange)
    )
    return [row["state"] for row in found]


async def settlements(world: World, exchange: str) -> int:
    """How many releases of an exchange consent has committed."""
    found = await rows(world, "consent", "SELECT count(*) AS made FROM settlements WHERE exchange = $1", exchange)
    return int(found[0]["made"])


def id_of(exchange: str) -> str:
    """The last part of an exchange's name."""
    return exchange.rpartition("/")[2]


def within_half_an_hour(purpose: str = MARKETING) -> termspb.Terms:
    """Ask for the city, to be decided within half an hour."""
    return terms("profile.city", purposes=[purpose], decide_within=timedelta(minutes=30))


async def sign_in_at(caller: Caller, now: datetime) -> None:
    """Sign in at a time that is the node's and not the machine's."""
    assertion = make_assertion(caller.signer, caller.name, secrets.token_hex(16), now)
    answer = await caller.stubs.identity.SignIn(identitypb.SignInRequest(assertion=assertion))
    caller.tokens = {token.service: (("authorization", f"Bearer {token.token}"),) for token in answer.tokens}


async def set_marketer(world: World, marketer: Marketer, **changes: Any) -> None:
    """Change a marketer, as the operator."""
    operator = await world.staff("operator")
    request = identitypb.UpdateMarketerRequest(name=marketer.name, request_id=request_id(), **changes)
    await operator.call("identity", "UpdateMarketer", request)


async def crowd(world: World, age: str, people: int) -> None:
    """So many imported customers of an age, whom marketers may find and nobody has claimed yet: they are asked."""
    people_of_age = [Row(str(number), (Cell("profile.age", age),)) for number in range(people)]
    async with staff(world.node.running.address, world.home, "importer") as importer:
        await import_customers(importer, f"age-{age}", people_of_age)
    imported = "INSERT INTO discoverable SELECT DISTINCT subject, attribute, 1 FROM items WHERE provenance = 2"
    await rows(world, "vault", imported + " ON CONFLICT DO NOTHING")
    index: Any = world.services["vault"].tasks["index"]
    await index.__self__.rebuild()
