"""Time as a value that is passed in, so that any story can be replayed."""

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Where a service reads the time."""

    def now(self) -> datetime:
        """Wall-clock time, timezone-aware, UTC."""

    def monotonic(self) -> float:
        """Seconds that only ever grow; for measuring, never for stamping."""


def iso(moment: datetime) -> str:
    """Write a moment as everything that is signed or logged says it: RFC 3339, UTC, microseconds."""
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


class SystemClock:
    """The machine's clock; for tests of what a wrong one does, so far ``ahead`` of it."""

    def __init__(self, ahead: timedelta = timedelta(0)) -> None:
        self._ahead = ahead

    def now(self) -> datetime:
        """Wall-clock time, timezone-aware, UTC."""
        return datetime.now(UTC) + self._ahead

    def monotonic(self) -> float:
        """Seconds since an arbitrary start."""
        return time.monotonic()
