"""An echo in a process of its own, to be killed and measured: ``python -m tests.support.echo_process PORT``."""

import asyncio
import sys
from types import TracebackType
from typing import Self

from tests.support import echo


class EchoProcess:
    """Runs it. It comes back on the port that it had."""

    def __init__(self) -> None:
        self.port = 0

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.kill()

    async def start(self) -> None:
        """Returns once it serves."""
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", __name__, str(self.port), stdout=asyncio.subprocess.PIPE
        )
        assert self._process.stdout is not None
        self.port = int(await asyncio.wait_for(self._process.stdout.readline(), 30))

    async def kill(self) -> None:
        """As a power cut would."""
        self._process.kill()
        await self._process.wait()


async def main(port: int) -> None:
    """Serve until killed, and say on which port."""
    async with echo.tcp(port=port) as world:
        print(world.port, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
