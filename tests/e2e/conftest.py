"""One running Parley for the whole folder."""

import os
from collections.abc import AsyncIterator

import pytest

from parley_node.services import SERVICES
from parley_node.split import ApartNode
from tests.support.canaries import none_in_clear
from tests.support.deaths import pid_of
from tests.support.servers import scratch_directory
from tests.support.world import World, living_world


@pytest.fixture(scope="package")
async def world() -> AsyncIterator[World]:
    """A node that lives as long as the folder; at its end no canary of any test may be anywhere in clear."""
    with scratch_directory() as root:
        async with living_world(root / "home") as living:
            if os.environ.get("PARLEY_NODE") == "split":
                assert isinstance(living.node, ApartNode)
                assert len(SERVICES) == len({pid_of(living.node, name) for name in SERVICES})
            yield living
            await none_in_clear(living)
