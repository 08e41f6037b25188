"""One running Parley for the whole folder."""

from collections.abc import AsyncIterator

import pytest

from tests.support.canaries import none_in_clear
from tests.support.servers import scratch_directory
from tests.support.world import World, living_world


@pytest.fixture(scope="session")
async def world() -> AsyncIterator[World]:
    """A node that lives as long as the run; at its end no canary of any test may be anywhere in clear."""
    with scratch_directory() as root:
        async with living_world(root / "home") as living:
            yield living
            await none_in_clear(living)
