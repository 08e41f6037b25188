"""
A pool of connections, of which those that were used last stay at hand.

For each connection that is taken and given back asyncpg's pool makes a task and several timers, which costs more than a short
statement does. So it is asked only where none is at hand, and has back whatever was not used to a good end: it knows how to
clean up.
"""

import time
from typing import Any

import asyncpg

LONGEST_CLOSE = 5.0
"""Seconds that a connection is given to end what it is doing when it is released."""

_MOST_AT_HAND = 4
_IDLE_S = 300.0
"""Seconds after which a connection isn't used any more: what is between here and the server may have forgotten it."""


class Connections:
    """Lends connections of an asyncpg pool; whoever wants one waits ``longest_wait`` seconds at most."""

    def __init__(self, pool: Any, longest_wait: float) -> None:
        self._pool, self._longest_wait = pool, longest_wait
        self._at_hand: list[tuple[Any, float]] = []
        self._most_at_hand = _MOST_AT_HAND
        self._waiting = 0

    async def take(self) -> Any:
        """Take a connection. Raises what asyncpg raises, and TimeoutError."""
        while self._at_hand:
            connection, since = self._at_hand.pop()
            if not is_lost(connection) and time.monotonic() - since < _IDLE_S:
                return connection
            await self._release(connection)
        self._waiting += 1
        try:
            return await self._pool.acquire(timeout=self._longest_wait)
        finally:
            self._waiting -= 1

    async def give_back(self, connection: Any, *, is_good: bool) -> None:
        """Give a connection back; ``is_good`` unless something was raised while it was used."""
        has_room = not self._waiting and len(self._at_hand) < self._most_at_hand
        if is_good and has_room and not is_lost(connection) and not connection.is_in_transaction():
            self._at_hand.append((connection, time.monotonic()))
        else:
            await self._release(connection)

    def used(self) -> int:
        """How many are lent just now."""
        return int(self._pool.get_size() - self._pool.get_idle_size()) - len(self._at_hand)

    def is_closing(self) -> bool:
        """Whether there will be no more."""
        return bool(self._pool.is_closing())

    async def close(self) -> None:
        """Close all, once they are given back."""
        self._most_at_hand = 0
        while self._at_hand:
            await self._release(self._at_hand.pop()[0])
        await self._pool.close()

    def terminate(self) -> None:
        """Close all at once."""
        self._pool.terminate()

    async def _release(self, connection: Any) -> None:
        await self._pool.release(connection, timeout=LONGEST_CLOSE)


def is_lost(connection: Any) -> bool:
    """Whether a connection is closed."""
    try:
        return bool(connection.is_closed())
    except asyncpg.InterfaceError:  # it went back to the pool by itself when it broke
        return True
