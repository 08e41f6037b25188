"""
A node in a process of its own, to be killed: ``python -m tests.support.node_process HOME PORT BATCH [apart]``.

It says where it answers once it does, and stays until it is killed: at the port, or, with its services apart, at their own doors.
``PARLEY_FAULTS`` arms fault points.
"""

import asyncio
import sys
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path

from parley_node.home import Home
from parley_node.node import Node, run
from parley_node.split import ApartNode, run_apart
from parley_rpc.logs import adopt_libraries, logger
from parley_rpc.serving import arm
from tests.support.world import quick


async def main(root: Path, port: int, batch: int, *, apart: bool) -> None:
    """Run the node; so many participants go together, so that a campaign takes long enough to be disturbed."""
    arm()
    log = logger("node")
    adopt_libraries(log)
    home, options = Home(root), replace(quick(broker={"batch": batch}), port=port)
    running: AbstractAsyncContextManager[Node | ApartNode] = (
        run_apart(home, options, log) if apart else run(home, options, log)
    )
    async with running as node:
        print(node.running.address, flush=True)
        await node.serve()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), apart=sys.argv[4:] == ["apart"]))
