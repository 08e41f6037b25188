"""Time as a value that is passed in, so that any story can be replayed."""

import time
from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Where a service reads the time."""

    def now(self) -> datetime:
        """Wall-clock time, timezone-aware, UTC."""

    def monotonic(self) -> float:
        """Seconds that only ever grow; for measuring, never for stamping."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        """Wall-clock time, timezone-aware, UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds since an arbitrary start."""
        return time.monotonic()
