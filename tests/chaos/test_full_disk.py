"""
G6 and G7: what if the disk is full, under PostgreSQL, Valkey and all else that a home holds?

Callers are told to come back, in words a client can act on. Nothing that was answered is lost, and room is all that it takes.
"""

import asyncio
import os
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest

from parley.vault.v1 import vault_pb2 as vaultpb
from parley_kit.faults import Unavailable
from tests.support.calls import request_id
from tests.support.chaos import population, rows
from tests.support.history import History
from tests.support.load import Backend, checked
from tests.support.probing import Probe, kind, served
from tests.support.servers import scratch_directory
from tests.support.waiting import beside
from tests.support.world import Customer, living_world

PEOPLE, DISK_MIB, FULL_S, BACK_S = 20, 400, 10.0, 2.0
PUT = "SELECT count(*) AS put FROM items WHERE attribute = 'profile.language'"

pytestmark = pytest.mark.slow


@pytest.fixture
def disk() -> Iterator[Path]:
    """A small disk of its own."""
    with scratch_directory() as place, _mounted(place):
        yield place


@contextmanager
def _mounted(place: Path) -> Iterator[None]:
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m,mode=711", "tmpfs", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("needs root that may mount")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@asynccontextmanager
async def _full(disk: Path) -> AsyncIterator[None]:
    """Whatever is free on a disk is taken at once, for the length of a block."""
    filler = disk / "filler"

    async def fill() -> None:
        with filler.open("ab", buffering=0) as file:
            while True:
                for size in (1 << 20, 1 << 12):
                    with suppress(OSError):
                        while file.write(bytes(size)) == size:
                            continue
                await asyncio.sleep(0.05)

    try:
        async with beside(fill()):
            yield
    finally:
        filler.unlink()


def _puts(customer: Customer) -> Callable[[], Awaitable[Any]]:
    items = [vaultpb.ItemValue(attribute="profile.language", value="pt")]
    return lambda: customer.call("vault", "PutItems", vaultpb.PutItemsRequest(items=items, request_id=request_id()))


async def test_full_disk_loses_nothing_and_room_is_all_that_it_takes(disk: Path, history: History) -> None:
    async with living_world(disk / "home") as world:
        everybody = [{"profile.city": f"Town {n}", "profile.age": "34"} for n in range(PEOPLE)]
        first, *_ = await population(world, everybody, "profile.age")
        backend = Backend(await world.marketer(), history, PEOPLE, world.trust)
        async with backend.working():
            await backend.ask()
            await backend.finish(world)
            known = backend.pseudonyms()
            probes = {
                "release": Probe(lambda: backend.ask_one(known[backend.expected % PEOPLE])),
                "put": Probe(_puts(first)),
                "register": Probe(world.customer),
            }
            async with beside(*(probe.run() for probe in probes.values())):
                await served(probes, time.monotonic())
                async with _full(disk):
                    await asyncio.sleep(FULL_S)
                took = await served(probes, time.monotonic())
            await backend.finish(world)
        refused: list[grpc.aio.AioRpcError] = [error for probe in probes.values() for error in probe.refused]
        print(f"{len(refused)} refused; served again after {took:.2f} s")
        assert all(probe.refused for probe in probes.values())
        assert {(grpc.StatusCode.UNAVAILABLE, Unavailable, True)} == {kind(error) for error in refused}
        assert took <= BACK_S
        ((put,),) = await rows(world, "vault", PUT)
        assert put >= probes["put"].answered
        assert [] == await checked(world, history)
