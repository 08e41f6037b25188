"""
Fault points: named places where a test may hold or break a running program.

Unarmed, ``reach`` is one dictionary look-up. Tests arm points in-process; a separate process is armed by its
environment (``PARLEY_FAULTS="broker.before_settle=sleep:3,consent.after_settle=kill@2"``), read once at start.
``consent.clock=ahead:600`` makes a service's clock wrong.
"""

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from itertools import count

Action = Callable[[], Awaitable[None]]

_armed: dict[str, Action] = {}
_ahead: dict[str, float] = {}


async def reach(point: str) -> None:
    """Run whatever is armed at ``point``; nothing otherwise."""
    if action := _armed.get(point):
        await action()


def ahead(clock: str) -> float:
    """Seconds that a clock is to run ahead of the machine's; 0 unless it is armed."""
    return _ahead.get(clock, 0.0)


@contextmanager
def armed(point: str, action: Action) -> Iterator[None]:
    """Arm ``point`` for the length of a block."""
    _armed[point] = action
    try:
        yield
    finally:
        _armed.pop(point, None)


def arm_from(spec: str) -> None:
    """
    Arm points from a comma-separated list. Raises ValueError.

    An entry is ``point=sleep:SECONDS``, ``point=stop`` (SIGSTOP: all of the process stands still until somebody continues it) or
    ``point=kill``. With ``@2`` or ``@2+5`` behind it: the second, or the second and the fifth, time that the point is reached.
    ``SERVICE.clock=ahead:SECONDS`` makes a service's clock wrong. What stops or ends the process is told before (stderr).
    """
    for entry in filter(None, spec.split(",")):
        point, _, rest = entry.partition("=")
        action, _, times = rest.strip().partition("@")
        verb, _, seconds = action.partition(":")
        if verb == "ahead":
            _ahead[point.strip()] = float(seconds)
        else:
            done = _parse(point.strip(), action)
            _armed[point.strip()] = _at(times, done) if times else done


def _parse(point: str, action: str) -> Action:
    verb, _, argument = action.partition(":")
    if verb == "sleep":
        seconds = float(argument)
        return lambda: asyncio.sleep(seconds)
    if verb in _SIGNALS:
        return lambda: _signal(point, _SIGNALS[verb])
    raise ValueError(f"unknown fault action {verb!r}: use sleep:SECONDS, stop, kill or ahead:SECONDS")


def _at(times: str, action: Action) -> Action:
    wanted, reached = {int(time) for time in times.split("+")}, count(1)

    async def sometimes() -> None:
        if next(reached) in wanted:
            await action()

    return sometimes


_SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


async def _signal(point: str, number: signal.Signals) -> None:
    # As a log does: this may be the last word.
    os.write(2, (json.dumps({"event": "fault", "point": point}) + "\n").encode())
    os.kill(os.getpid(), number)
