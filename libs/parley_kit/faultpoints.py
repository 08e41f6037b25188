"""
Fault points: named places where a test may hold or break a running program.

Unarmed, ``reach`` is one dictionary look-up. Tests arm points in-process; a separate process is armed by its
environment (``PARLEY_FAULTS="broker.before_settle=sleep:3,consent.after_settle=kill"``), read once at start.
``consent.clock=ahead:600`` makes a service's clock wrong.
"""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

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
    """Arm points from a list of ``point=sleep:SECONDS``, ``point=kill`` and ``clock=ahead:SECONDS``. Raises ValueError."""
    for entry in filter(None, spec.split(",")):
        point, _, action = entry.partition("=")
        verb, _, seconds = action.strip().partition(":")
        if verb == "ahead":
            _ahead[point.strip()] = float(seconds)
        else:
            _armed[point.strip()] = _parse(action.strip())


def _parse(action: str) -> Action:
    verb, _, argument = action.partition(":")
    if verb == "sleep":
        seconds = float(argument)
        return lambda: asyncio.sleep(seconds)
    if verb == "kill":
        return _kill
    raise ValueError(f"unknown fault action {verb!r}: use sleep:SECONDS, kill or ahead:SECONDS")


async def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
