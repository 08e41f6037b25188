"""The node under load, in a process of its own: it prints where it answers, and ends with SIGINT."""

import asyncio
import signal
import sys
from pathlib import Path

from parley_node.home import Home
from parley_node.node import Options, run
from parley_rpc.logs import logger
from tests.bench.without import leave_out, told


async def main(root: Path) -> None:
    """Run the node as `parley up` does, on any free ports."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop.set)
    with (root / "parley.log").open("a") as log:
        async with run(Home(root), Options(port=0, http_port=0), logger("node", stream=log)) as node:
            print(node.running.address, flush=True)
            await stop.wait()


if __name__ == "__main__":
    leave_out(told())
    asyncio.run(main(Path(sys.argv[1])))
