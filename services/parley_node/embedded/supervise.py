"""
Keep one server running from a thread of its own.

A thread, because the parent-death signal fires when the *thread* that forked ends: this one lives exactly as long as
its server is wanted.
"""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from structlog.typing import FilteringBoundLogger

from parley_node.embedded import leash
from parley_node.embedded.errors import ServersUnavailable

_POLL_S = 0.005
_LOCK_WAIT_S = 15.0  # for a killed owner's servers to shut down; PostgreSQL writes a checkpoint first
_STOP_WAIT_S = 20.0
_PATIENCE = 4  # failed starts before the first success
_LONGEST_PAUSE_S = 2.0
_NOT_EXECUTED = 126


def server_environment() -> dict[str, str]:
    """Environment of a database server: nothing inherited, neither secrets nor PGPORT and its kin."""
    return {"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"}


@dataclass(frozen=True)
class Launch:
    """
    How to start one server.

    ``leash`` are options of :mod:`leash` that give up root; ``stop`` is the signal that asks the server to end, also
    when its parent dies; ``tidy`` runs before each start; ``ready`` says whether the process with this id answers.
    ``environment``, asked for at each start, and ``descriptors`` are all that it inherits.
    """

    command: Sequence[str]
    stop: signal.Signals
    ready: Callable[[int], bool]
    leash: Sequence[str] = ()
    tidy: Callable[[], None] = lambda: None
    environment: Callable[[], Mapping[str, str]] = server_environment
    descriptors: Sequence[int] = ()


def leash_command(options: Sequence[str], stop: signal.Signals, command: Sequence[str]) -> list[str]:
    """Command line that becomes ``command`` on a leash held by the calling thread."""
    tied = ("--parent", str(os.getpid()), "--signal", str(int(stop)), *options)
    return [sys.executable, "-I", "-S", leash.__file__, *tied, "--", *command]


def lock_options(path: Path) -> tuple[str, ...]:
    """Options of the leash for a server, or whatever works on its data, that waits for its predecessor to be gone."""
    return ("--lock", str(path), "--lock-wait", str(_LOCK_WAIT_S))


class Supervisor(threading.Thread):
    """
    One server, started again whenever it dies until :meth:`stop`.

    ``prepare`` runs first, in the thread, and answers how to launch. ``up`` resolves when the server first answers, or
    fails with ServersUnavailable after a few failed starts; later deaths are healed for as long as it takes, and told to
    ``log``. What the server itself writes goes to the file ``output``, or without one to this process's standard error.
    """

    def __init__(
        self, name: str, *, prepare: Callable[[], Launch], lock: Path, output: Path | None, log: FilteringBoundLogger
    ) -> None:
        super().__init__(name=f"parley-{name}", daemon=True)
        self.up: Future[None] = Future()
        self._server = name
        self._prepare = prepare
        self._lock = lock
        self._output = output
        self._log = log.bind(service=name)
        self._mutex = threading.Lock()
        self._stopping = threading.Event()
        self._launch: Launch | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        """Body of the thread."""
        self.up.set_running_or_notify_cancel()  # from here on nobody who gives up waiting can cancel it
        try:
            self._launch = self._prepare()
            self._keep_up(self._launch)
        except BaseException as failure:  # noqa: BLE001 - whoever waits for `up` raises it
            self._fail(failure)

    def stop(self) -> None:
        """End the server and wait until it is gone; safe at any moment, from any other thread. Blocks."""
        with self._mutex:
            self._stopping.set()
            self._signal(self._launch.stop if self._launch else signal.SIGTERM)
        self.join(_STOP_WAIT_S)
        if self.is_alive():
            self._signal(signal.SIGKILL)
            self.join()

    def _keep_up(self, launch: Launch) -> None:
        failures = 0
        while True:
            came_up, code = self._run_once(launch)
            if self._stopping.is_set():
                return
            failures = 0 if came_up else failures + 1
            if failures == _PATIENCE and not self.up.done():
                raise ServersUnavailable(f"{self._server} did not start (exit {code}): {self._last_words()}")
            self._log.warning("server_restarted", code=code, attempt=failures)
            self._stopping.wait(pause(failures))

    def _run_once(self, launch: Launch) -> tuple[bool, int]:
        """Start the server and wait for its end: whether it came up, and its exit code, as a shell's where it couldn't be run."""
        try:
            process = self._spawn(launch)
        except OSError as error:  # no memory or no files: likeliest just when the server has died of that
            self._log.warning("server_not_started", reason=error.strerror)
            return False, _NOT_EXECUTED
        if process is None:
            return False, 0
        return self._came_up(process, launch), process.wait()

    def _spawn(self, launch: Launch) -> subprocess.Popen[bytes] | None:
        """Start the server, or nothing once it is to stop."""
        with self._mutex:
            if self._stopping.is_set():
                return None
            launch.tidy()
            self._process = self._popen(launch)
            return self._process

    def _popen(self, launch: Launch) -> subprocess.Popen[bytes]:
        locked = lock_options(self._lock)
        with private_append(self._output) if self._output else nullcontext(sys.stderr) as output:
            return subprocess.Popen(  # noqa: S603 - our own binaries
                leash_command((*locked, *launch.leash), launch.stop, launch.command),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=launch.environment(),
                pass_fds=launch.descriptors,
                cwd="/",
                start_new_session=True,  # a terminal's Ctrl-C is the owner's to answer, not the servers'
            )

    def _came_up(self, process: subprocess.Popen[bytes], launch: Launch) -> bool:
        while process.poll() is None:
            if launch.ready(process.pid):
                if not self.up.done():
                    self.up.set_result(None)
                return True
            with suppress(subprocess.TimeoutExpired):
                process.wait(_POLL_S)
        return False

    def _fail(self, failure: BaseException) -> None:
        if not self.up.done():
            self.up.set_exception(failure)
        else:
            self._log.error("server_abandoned", error_type=type(failure).__name__)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def _last_words(self) -> str:
        if self._output is None:
            return "see above"
        lines = self._output.read_text(errors="replace").splitlines()[-4:] if self._output.exists() else []
        return " / ".join([*lines, f"see {self._output}"])


@asynccontextmanager
async def kept_running(supervisors: Sequence[Supervisor]) -> AsyncIterator[None]:
    """Keep several servers running for the length of a block, which begins once all of them are up. Raises ServersUnavailable."""
    for supervisor in supervisors:
        supervisor.start()
    try:
        await asyncio.gather(*(asyncio.wrap_future(supervisor.up) for supervisor in supervisors))
        yield
    finally:
        await asyncio.shield(asyncio.gather(*(asyncio.to_thread(supervisor.stop) for supervisor in supervisors)))


def pause(failures: int) -> float:
    """Seconds before the next start after this many failed ones in a row."""
    return min(_LONGEST_PAUSE_S, 0.05 * 2.0**failures)


def private_append(path: Path) -> BinaryIO:
    """Open a file to append to, created for this user alone."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab")
