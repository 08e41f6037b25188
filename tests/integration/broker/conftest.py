"""One running Parley for the folder: its time can be moved, and its feed is quick to show that it lives."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta

import pytest

from tests.support.broker import ShiftedClock, world_with
from tests.support.servers import scratch_directory
from tests.support.world import World, quick


@dataclass(frozen=True)
class Timed:
    """A node, and the clock it runs by."""

    world: World
    clock: ShiftedClock


@pytest.fixture(scope="package")
async def timed() -> AsyncIterator[Timed]:
    """A node that lives as long as the folder, by a clock of its own."""
    clock = ShiftedClock()
    with scratch_directory() as root:
        options = quick(broker={"heartbeat": timedelta(seconds=0.2)})
        async with world_with(root / "home", clock, options) as living:
            yield Timed(living, clock)


@pytest.fixture(scope="package")
def world(timed: Timed) -> World:
    """The same, for whom its time is of no matter."""
    return timed.world
