"""
What is wrong here, one line a check, each failure with what mends it. Starts nothing and changes nothing.

What can't be looked at, because something before it is missing, says so and doesn't fail.
"""

from collections.abc import AsyncIterator

from parley_node.doctor import events, live, servers, still
from parley_node.doctor.findings import Finding, Look, NotLooked, State, Trouble, look
from parley_node.doctor.mending import up
from parley_node.doctor.metrics import ask
from parley_node.embedded.paths import holder
from parley_node.home import Home, NotRunning, Running

__all__ = ["Finding", "State", "examine"]


async def examine(home: Home) -> AsyncIterator[Finding]:
    """Look at everything, one after the other, in an order in which the first failure explains those after it."""
    running = _what_runs(home)
    told = await ask(running)
    here = await servers.around(home, running, told)
    checks: list[tuple[str, Look]] = [
        *still.checks(home),
        ("running", lambda: _running(home, running)),
        *servers.checks(here),
        *events.checks(here),
        *(live.checks(home, running) if running else ((check, _nothing) for check in ("log", "services", "peers"))),
    ]
    for check, looking in checks:
        yield await look(check, looking)


def _what_runs(home: Home) -> Running | None:
    try:
        return home.running()
    except NotRunning:
        return None


async def _running(home: Home, running: Running | None) -> str:
    if running is None:
        raise _silent(home)
    return f"process {running.pid} answers on {running.address}, its log on {running.http}"


def _silent(home: Home) -> Trouble:
    """Nothing runs, or somebody who doesn't say where: the lock is held all the same."""
    pid = holder(home.lock) if home.lock.exists() else None
    if pid is None:
        return Trouble("nothing runs on this home", up(home))
    found = f"process {pid} is at work on this home, and doesn't say where it answers: wait for it, or end it"
    return Trouble(found, f"tail --pid={pid} -f /dev/null; {up(home)}")


async def _nothing() -> str:
    raise NotLooked("nothing runs")
