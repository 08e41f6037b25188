"""What the bus says about itself: changes, once each, never an error's text."""

import random
from collections.abc import Callable
from typing import Any, Protocol


class Log(Protocol):
    """Where to say it; structlog's loggers fit."""

    def info(self, event: str, *args: Any, **fields: Any) -> Any:
        """Something changed."""

    def warning(self, event: str, *args: Any, **fields: Any) -> Any:
        """Something changed for the worse."""


class NullLog:
    """Says nothing."""

    def info(self, event: str, *args: Any, **fields: Any) -> None:
        """Drop it."""

    def warning(self, event: str, *args: Any, **fields: Any) -> None:
        """Drop it."""


class State:
    """
    The state of one loop, logged when it changes, and how long to wait while it is not a good one.

    ``told`` hears each change, too.
    """

    def __init__(
        self, log: Log, event: str, *, told: Callable[[str], None] = lambda _state: None, **fields: Any
    ) -> None:
        self._log = log
        self._told = told
        self._event = event
        self._fields = fields
        self._state = "starting"
        self._failures = 0

    def good(self, state: str) -> None:
        """Enter a state in which work goes on."""
        self._failures = 0
        if self._enters(state):
            self._log.info(self._event, state=state, **self._fields)

    def bad(self, state: str, error: Exception | None = None, **fields: Any) -> float:
        """Enter, or stay in, a state in which it doesn't; answer the seconds to wait: 50 ms at first, 2 s at most."""
        if self._enters(state):
            cause = {"error_type": type(error).__name__} if error else {}
            self._log.warning(self._event, state=state, **cause, **self._fields, **fields)
        self._failures = min(self._failures + 1, 10)
        return backoff(self._failures)

    def _enters(self, state: str) -> bool:
        changed, self._state = state != self._state, state
        if changed:
            self._told(state)
        return changed


def backoff(failures: int) -> float:
    """Seconds to wait after so many failures in a row: about 50 ms, doubling, 2 s at most."""
    return min(2.0, 0.05 * 2.0 ** (failures - 1)) * random.uniform(0.75, 1.0)  # noqa: S311 - jitter
