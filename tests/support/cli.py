"""
The command line, black box: `parley up` as a process, and commands in another that has imported everything once.

Run as a program this module is that other process: a command's arguments as JSON a line in, its outcome out.
"""

import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from parley_node.cli import app
from parley_node.home import Home, NotRunning
from tests.support.canaries import said

UP = ("up", "--port", "0", "--http-port", "0", *(("--split",) if os.environ.get("PARLEY_NODE") == "split" else ()))
"""`parley up` on free ports, as the environment says."""

_ROOT = Path(__file__).parents[2]
_POLL_S = 0.05
_PATIENCE_S = 60.0


@dataclass(frozen=True)
class Outcome:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class Parley:
    """Commands on one home."""

    home: Home
    worker: subprocess.Popen[str]

    def try_(self, *arguments: str) -> Outcome:
        """Run a command to its end."""
        assert self.worker.stdin is not None
        assert self.worker.stdout is not None
        self.worker.stdin.write(json.dumps(arguments) + "\n")
        self.worker.stdin.flush()
        outcome = Outcome(**json.loads(self.worker.stdout.readline()))
        said(outcome.err)
        return outcome

    def run(self, *arguments: str) -> Outcome:
        """Run a command that must succeed."""
        outcome = self.try_(*arguments)
        assert 0 == outcome.code, outcome
        return outcome

    def json(self, *arguments: str) -> Any:
        """Run a command that must succeed, and read what it prints."""
        return self.run(*arguments, "--json").json

    def until(self, *arguments: str, holds: Callable[[Any], object] = bool) -> Any:
        """Run a command again and again until what it prints satisfies a condition."""
        deadline = time.monotonic() + _PATIENCE_S
        while not holds(found := self.json(*arguments)):
            assert time.monotonic() < deadline, (arguments, found)
            time.sleep(_POLL_S)
        return found


@contextmanager
def commands(home: Path) -> Iterator[Parley]:
    """A process that runs commands on a home."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.support.cli"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=_ROOT,
        env=environment(home),
    ) as worker:
        try:
            yield Parley(Home(home), worker)
        finally:
            assert worker.stdin is not None
            worker.stdin.close()


@contextmanager
def parley_up(home: Path, *options: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """`parley up` on free ports, from when it answers; whatever the block does, it is gone afterwards."""
    with start(home, *UP, *options, PARLEY_CONSENT_LONGEST_NOTICE_DELAY="PT0S", **variables) as up:
        try:
            _wait_until_running(Home(home), up)
            yield up
        finally:
            up.terminate()
            up.wait(_PATIENCE_S)


@contextmanager
def start(home: Path, *arguments: str, **variables: str) -> Iterator[subprocess.Popen[str]]:
    """A command in a process of its own, which is asked to stop where the block fails, and waited for."""
    with subprocess.Popen(
        [sys.executable, "-m", "parley_node.cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=_ROOT,
        env=environment(home) | variables,
    ) as process:
        try:
            yield process
        except BaseException:
            process.terminate()
            raise


def environment(home: Path) -> dict[str, str]:
    """Nothing inherited but where programs and modules are."""
    paths = os.pathsep.join(path for path in sys.path if path)
    return {"PATH": os.environ["PATH"], "PYTHONPATH": paths, "PARLEY_HOME": str(home), "HOME": str(home)}


def _wait_until_running(home: Home, up: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            home.running()
        except NotRunning:
            assert up.poll() is None, up.communicate()
            assert time.monotonic() < deadline
            time.sleep(_POLL_S)
        else:
            return


def _serve() -> None:
    for line in sys.stdin:
        result = CliRunner().invoke(app, json.loads(line), prog_name="parley")
        unforeseen = result.exception if not isinstance(result.exception, SystemExit) else None
        err = result.stderr + "".join(traceback.format_exception(unforeseen) if unforeseen else ())
        outcome: Mapping[str, object] = {"code": result.exit_code, "out": result.stdout, "err": err}
        sys.stdout.write(json.dumps(outcome) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()
