"""One running Parley for the whole folder."""

from collections.abc import AsyncIterator

import pytest

from tests.support.servers import scratch_directory
from tests.support.world import World, living_world


@pytest.fixture(scope="package")
async def world() -> AsyncIterator[World]:
    """A node that lives as long as the folder."""
    with scratch_directory() as root:
        async with living_world(root / "home") as living:
            yield living
