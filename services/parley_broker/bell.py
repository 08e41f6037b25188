"""Who waits for work or deliveries is woken when there may be some, and takes turns with others who wait."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass


@dataclass
class Bell:
    """Wakes whoever waits for work or deliveries. Who listens before looking for them misses no ring."""

    _event: asyncio.Event

    def ring(self) -> None:
        """Wake everyone who waits."""
        self._event.set()
        self._event = asyncio.Event()

    def listen(self) -> asyncio.Event:
        """What the next ring sets."""
        return self._event

    async def wait(self, seconds: float, rung: asyncio.Event | None = None) -> None:
        """Wait for a ring, so long at the most: the next one, or the first since ``rung`` was listened to."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await (rung or self._event).wait()


@dataclass
class Turns:
    """Marketers take turns, so that whatever one asks for keeps nobody else waiting: whose turn it was last."""

    last: str = ""
