"""How long to wait before trying again."""

import random
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Delays that double from ``first`` to ``most`` seconds, each cut by up to half so that clients don't come back at once."""

    first: float = 0.1
    most: float = 2.0
    jitter: Callable[[], float] = random.random

    def delay(self, failures: int, least: float | None = None) -> float:
        """Seconds to wait after so many failures in a row (1, 2, ...); never less than the server asked for."""
        full = min(self.most, self.first * 2.0 ** min(failures - 1, 16))
        return max(full * (1 - self.jitter() / 2), least or 0.0)
