"""One running Parley for the folder; and one whose time can be moved, and whose feed is quick to show it lives."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta

import pytest

from tests.support.broker import ShiftedClock, world_with
from tests.support.servers import scratch_directory
from tests.support.world import World, living_world, quick


@pytest.fixture(scope="package")
async def world() -> AsyncIterator[World]:
    """A node that lives as long as the folder."""
    with scratch_directory() as root:
        async with living_world(root / "home") as living:
            yield living


@dataclass(frozen=True)
class Timed:
    """A node, and the clock it runs by."""

    world: World
    clock: ShiftedClock


@pytest.fixture(scope="package")
async def timed() -> AsyncIterator[Timed]:
    """A node by a clock of its own."""
    clock = ShiftedClock()
    with scratch_directory() as root:
        options = quick(broker={"heartbeat": timedelta(seconds=0.2)})
        async with world_with(root / "home", clock, options) as living:
            yield Timed(living, clock)
