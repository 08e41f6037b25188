"""A supervised process comes back, whatever stood in the way of starting it for a while."""

import errno
import json
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from io import StringIO
from pathlib import Path

import pytest

from parley_node.embedded.errors import ServersUnavailable
from parley_node.embedded.supervise import Launch, Supervisor, server_environment
from parley_rpc.logs import logger
from tests.support.waiting import until

NO_MEMORY = OSError(errno.ENOMEM, "Cannot allocate memory")


class Sleeper:
    """A process that does nothing; ``obstacles`` are raised by its starts in turn, None where one goes well."""

    def __init__(self, *obstacles: OSError | None) -> None:
        self._obstacles = list(obstacles)
        self.pids: list[int] = []

    def launch(self) -> Launch:
        return Launch(["/bin/sleep", "100"], signal.SIGTERM, self._ready, environment=self._environment)

    def _environment(self) -> Mapping[str, str]:
        if self._obstacles and (obstacle := self._obstacles.pop(0)):
            raise obstacle
        return server_environment()

    def _ready(self, pid: int) -> bool:
        self.pids.append(pid)
        return True

    async def has_been_up(self, times: int) -> bool:
        return len(self.pids) >= times


@contextmanager
def supervised(
    prepare: Callable[[], Launch], directory: Path, told: StringIO | None = None
) -> Iterator[tuple[Supervisor, StringIO]]:
    told = told or StringIO()
    supervisor = Supervisor(
        "sleeper", prepare=prepare, lock=directory / "lock", output=directory / "log", log=logger("node", stream=told)
    )
    supervisor.start()
    try:
        yield supervisor, told
    finally:
        supervisor.stop()


async def test_process_that_could_not_be_started_again_at_once_is_started_later_and_that_is_told(
    tmp_path: Path,
) -> None:
    sleeper = Sleeper(None, NO_MEMORY, NO_MEMORY)
    with supervised(sleeper.launch, tmp_path) as (_, told):
        await until(lambda: sleeper.has_been_up(1))
        os.kill(sleeper.pids[0], signal.SIGKILL)
        await until(lambda: sleeper.has_been_up(2))

    lines = [json.loads(line) for line in told.getvalue().splitlines()]
    failed = {"event": "server_not_started", "service": "sleeper", "reason": "Cannot allocate memory"}
    assert 2 == len([line for line in lines if failed.items() <= line.items()])
    assert [-9, 126, 126] == [line["code"] for line in lines if line["event"] == "server_restarted"]


class Full(StringIO):
    """A log on a disk that is full."""

    def write(self, _text: str) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")


async def test_process_is_started_again_though_no_disk_takes_the_word_of_it(tmp_path: Path) -> None:
    sleeper = Sleeper(None, NO_MEMORY)
    with supervised(sleeper.launch, tmp_path, Full()):
        await until(lambda: sleeper.has_been_up(1))
        os.kill(sleeper.pids[0], signal.SIGKILL)
        await until(lambda: sleeper.has_been_up(2))


def test_process_that_can_never_be_started_is_given_up_before_anybody_relies_on_it(tmp_path: Path) -> None:
    never = Sleeper(*[NO_MEMORY] * 9)
    with (
        supervised(never.launch, tmp_path) as (supervisor, _),
        pytest.raises(ServersUnavailable, match="sleeper did not start"),
    ):
        supervisor.up.result(15)
