"""A Parley whose services run apart, with everybody in it, to be broken."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import grpc

from parley.consent.v1 import consent_pb2 as consentpb
from parley_node.embedded.pair import ServerPair
from parley_node.embedded.paths import Layout
from parley_node.split import ApartNode
from tests.support.calls import request_id
from tests.support.chaos import listener
from tests.support.crashes import kill_listener
from tests.support.deaths import Deaths, kill, pid_of
from tests.support.hesitating import Hesitant, hesitating
from tests.support.history import History
from tests.support.load import Backend, populate
from tests.support.seeds import seeded
from tests.support.servers import scratch_directory
from tests.support.waiting import beside, until
from tests.support.wavering import Waverer, wavering
from tests.support.world import Customer, World, living_world, quick

PEOPLE, ASKED, WAVERING, BATCH = 1000, 10, 10, 20
"""Whose rules allow it, who are asked each time, who then take it back, and how many go together."""


@dataclass
class City:
    """A Parley whose services run apart, with everybody in it."""

    world: World
    node: ApartNode
    deaths: Deaths
    waverers: Sequence[Waverer] = ()
    hesitant: Hesitant | None = None

    async def backend(self, history: History, *, objecting: bool = True, hesitating: bool = False) -> Backend:
        """
        A new marketer's backend, which writes down what it sees.

        Where some are ``objecting`` or ``hesitating``, they may be decided again half a minute later.
        """
        for each in self.waverers:
            each.may_object = objecting
        backend = Backend(await self.world.marketer(), history, PEOPLE + ASKED, self.world.trust, self.waverers)
        backend.hesitant = self.hesitant.anew() if self.hesitant and hesitating else None
        return backend

    async def die(self, service: str, plan: list[str]) -> int:
        """Kill a service, and let it die as planned from then on; how many starts that will have taken."""
        self.deaths.plans[service] = plan
        until_then = self.deaths.starts[service] + 1 + len(plan)
        kill(self.node, service)
        return until_then

    @property
    def where(self) -> Layout:
        """Where the servers are."""
        assert isinstance(self.world.servers, ServerPair)
        return self.world.servers.where

    @property
    def sockets(self) -> Mapping[str, Path]:
        """Where the servers listen."""
        return {"postgres": self.where.postgres_sockets / ".s.PGSQL.5432", "valkey": self.where.valkey_socket}

    async def once_more(self, services: Sequence[str]) -> list[int]:
        """Kill services, and wait until each is started again; their new ids."""
        before = {name: pid_of(self.node, name) for name in services}
        for pid in before.values():
            os.kill(pid, signal.SIGKILL)
        started: dict[str, int] = {}

        async def back() -> bool:
            for name in before.keys() - started.keys():
                with suppress(LookupError):
                    if (pid := pid_of(self.node, name)) != before[name]:
                        started[name] = pid
            return len(started) == len(before)

        await until(back, 30)
        return [started[name] for name in services]


@asynccontextmanager
async def living_city() -> AsyncIterator[City]:
    """Everybody, and vault started anew so that it finds them."""
    deaths = Deaths()
    options = quick(broker={"batch": BATCH}, faults=deaths)
    with scratch_directory() as root:
        async with living_world(root / "home", options, apart=True) as world:
            assert isinstance(world.node, ApartNode)
            found = City(world, world.node, deaths)
            await populate(world, PEOPLE)
            await found.once_more(["vault"])
            asked = [await _asked(world, number) for number in range(ASKED)]
            rng = seeded("city")
            found.waverers = [await wavering(world, number, rng) for number in range(WAVERING)]
            found.hesitant = await hesitating(world, rng)
            async with beside(*map(_accept_all, asked)):
                yield found


async def _asked(world: World, number: int) -> Customer:
    """A customer without a rule, who is asked each time."""
    customer = await world.customer()
    await customer.put(profile_age="34", profile_city=f"Village {number}")
    await customer.discoverable("profile.age")
    return customer


async def _accept_all(customer: Customer) -> None:
    """Accept whatever is offered, again and again until it is answered."""
    requests: dict[str, consentpb.AcceptOfferRequest] = {}
    while True:
        await asyncio.sleep(0.3)
        try:
            for offer in await customer.offers():
                made = consentpb.AcceptOfferRequest(name=offer.name, request_id=request_id())
                await customer.call("consent", "AcceptOffer", requests.setdefault(offer.name, made), timeout=5)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                with suppress(grpc.aio.AioRpcError):
                    await customer.sign_in()


async def kill_another(socket: Path, before: Collection[int] = ()) -> int:
    """Kill the process that listens, which is none that was killed before; its pid."""
    async with asyncio.timeout(30):
        while True:
            with suppress(OSError):
                if listener(socket) not in before:
                    return kill_listener(socket)
            await asyncio.sleep(0.02)
