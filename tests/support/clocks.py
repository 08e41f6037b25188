"""Clocks that tests control."""

from datetime import UTC, datetime, timedelta


class StillClock:
    """A clock that stands still until it is moved: at the real time, unless told otherwise."""

    def __init__(self, at: datetime | None = None) -> None:
        self.at = at or datetime.now(UTC)

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return self.at.timestamp()

    def move(self, by: timedelta) -> None:
        self.at += by
