"""One running Parley for the tests that break parts of it, and customers to break them over."""

from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path

import pytest

from tests.support.chaos import population
from tests.support.city import City, living_city
from tests.support.history import History
from tests.support.servers import scratch_directory
from tests.support.world import Customer, World, living_world

PEOPLE = 125


@pytest.fixture(scope="package")
async def world() -> AsyncIterator[World]:
    """A node that lives as long as the folder: one that idles takes a tenth of a core from everybody else."""
    with scratch_directory() as root:
        async with living_world(root / "home") as living:
            yield living


@pytest.fixture(scope="package")
async def people(world: World) -> Sequence[Customer]:
    """Customers who allow everyone to have their city and age."""
    return await population(world, [{"profile.city": "Lisbon", "profile.age": "34"}] * PEOPLE, "profile.age")


@pytest.fixture(scope="package")
async def city() -> AsyncIterator[City]:
    """Another, whose services run apart, with 1,000 customers."""
    async with living_city() as city:
        yield city


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    """Where a test writes down what was asked and answered."""
    history = History(tmp_path / "history.jsonl")
    yield history
    history.close()
