"""
A pool of connections, of which those that were used last stay at hand.

For each connection that is taken and given back asyncpg's pool makes a task and several timers, which costs more than a short
statement does. So it is asked only where none is at hand, and has back whatever was not used to a good end: it knows how to
clean up.
"""

import asyncio
import time
from contextlib import suppress
from typing import Any

import asyncpg

LONGEST_CLOSE = 5.0
"""Seconds that a connection is given to end what it is doing when it is released, and all of them when the pool closes."""
PATIENCE_S = 0.1
"""
Seconds for which whoever used a connection, or whose time is up, waits until it is released: that takes a few milliseconds.

With a silent server it takes longer. A call whose time is up must end soon after its deadline, and give its caller's place back;
what it had begun on the server is stopped all the same, or there would be more and more of it.
"""
MOST_AT_HAND = 4

_IDLE_S = 300.0
"""Seconds after which a connection is ended: what is between here and the server may have forgotten it."""
_SEEN_BY_POOL = 1_000
"""One in so many goes back to the pool, good or not: it ends those that have served for long."""


class Connections:
    """Lends connections of an asyncpg pool; whoever wants one waits ``longest_wait`` seconds at most."""

    def __init__(self, pool: Any, longest_wait: float) -> None:
        self._pool, self._longest_wait = pool, longest_wait
        self._at_hand: list[tuple[Any, float]] = []
        self._waiting, self._given_back, self._is_closed = 0, 0, False
        self._releasing: set[asyncio.Task[None]] = set()
        self._undoing: dict[Any, asyncio.Future[None]] = {}
        self.lent = 0
        """How many are lent just now."""

    async def take(self) -> Any:
        """Take a connection. Raises what asyncpg raises, and TimeoutError."""
        connection = self._good_one()
        if connection is None:
            self._waiting += 1
            try:
                connection = await self._pool.acquire(timeout=self._longest_wait)
            finally:
                self._waiting -= 1
        self.lent += 1
        return connection

    def _good_one(self) -> Any:
        """The connection at hand that was used last, if any is good."""
        while self._at_hand:
            connection, since = self._at_hand.pop()
            if _is_good(connection, since):
                return connection
            drop(connection)
        return None

    async def give_back(self, connection: Any, *, is_good: bool) -> None:
        """Give a connection back; ``is_good`` unless something was raised while it was used."""
        self.lent -= 1
        self._given_back += 1
        if self._at_hand and not _is_good(*self._at_hand[0]):  # the one whose turn would come last
            drop(self._at_hand.pop(0)[0])
        if is_good and self._has_room() and not is_lost(connection) and not connection.is_in_transaction():
            self._at_hand.append((connection, time.monotonic()))
        elif is_good:
            await self._release(connection)
        else:
            await self._clean_up(connection)

    def release_behind(self, undoing: "asyncio.Future[None]", connection: Any) -> None:
        """Release a connection, once it is given back, behind what is still being undone with it."""
        self._undoing[connection] = undoing

    async def _clean_up(self, connection: Any) -> None:
        """Release a connection in whose use something was raised; for the most of it, nobody waits."""
        releasing = asyncio.create_task(self._release(connection))
        self._releasing.add(releasing)
        releasing.add_done_callback(self._releasing.discard)
        await asyncio.wait({releasing}, timeout=PATIENCE_S)

    def _has_room(self) -> bool:
        is_free = not (self._is_closed or self._waiting or len(self._at_hand) >= MOST_AT_HAND)
        return is_free and self._given_back % _SEEN_BY_POOL != 0

    def is_closing(self) -> bool:
        """Whether there will be no more."""
        return bool(self._pool.is_closing())

    async def close(self) -> None:
        """Close all, once they are given back; whoever doesn't wait for that closes them at once."""
        self._is_closed = True
        try:
            while self._at_hand:
                await self._release(self._at_hand.pop()[0])
            await self._pool.close()
        except BaseException:
            self._at_hand.clear()
            self._pool.terminate()
            raise

    async def _release(self, connection: Any) -> None:
        """Hand a connection to the pool, which cleans it up; one that can't be, as its server is silent, is ended."""
        if undoing := self._undoing.pop(connection, None):
            await asyncio.wait({undoing})
        try:
            await self._pool.release(connection, timeout=LONGEST_CLOSE)
        except (TimeoutError, OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
            drop(connection)


def is_lost(connection: Any) -> bool:
    """Whether a connection is closed."""
    try:
        return bool(connection.is_closed())
    except asyncpg.InterfaceError:  # it went back to the pool by itself when it broke
        return True


def drop(connection: Any) -> None:
    """End a connection at once, if it isn't ended."""
    with suppress(asyncpg.InterfaceError):  # as above
        connection.terminate()


def _is_good(connection: Any, since: float) -> bool:
    return not is_lost(connection) and time.monotonic() - since < _IDLE_S
