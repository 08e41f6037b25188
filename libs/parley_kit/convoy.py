"""Convoys: calls that come close together set out together, so that all they share on their way is shared."""

import asyncio
import contextvars
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

PATIENCE_S = 0.1
"""How long a convoy keeps the next from setting out."""
LINGER_S = 0.04
"""How long after a convoy of several the next sets out, if there is something else to do all the time."""
_QUIET_S = 0.0001


@dataclass
class _Convoy:
    """Who is still on the way."""

    left: int
    home: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def leave(self) -> None:
        self.left -= 1
        if not self.left and not self.home.done():
            self.home.set_result(None)


class Convoys:
    """
    Lets calls of several steps go on in company, where each step has a :class:`~parley_kit.coalesce.Coalescer`.

    By themselves those hold one or two of many callers each: who arrives at the first step an instant later is a batch of their
    own at all others. Nobody waits for company who finds nobody under way. Those who come meanwhile set out as soon as all of the
    former are home. Where the event loop is busy with other things, for which they would wait anyway, they set out a little
    later, so that more of them share what is to come. Whoever takes longer than :data:`PATIENCE_S` keeps nobody else waiting.
    """

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[_Convoy]] = []
        self._leading: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def joined(self) -> AsyncIterator[None]:
        """Go through a block with whoever else waits to."""
        called: asyncio.Future[_Convoy] = asyncio.get_running_loop().create_future()
        self._waiting.append(called)
        if self._leading is None:
            # A context of its own: it leads others as well, and has nobody's deadline.
            self._leading = asyncio.create_task(self._lead(), context=contextvars.Context())
        try:
            await called
            yield
        finally:
            if not called.cancelled():
                called.result().leave()

    async def _lead(self) -> None:
        """Send out one convoy after the other, until nobody waits."""
        try:
            while waiting := self._called():
                convoy, began = _Convoy(len(waiting)), asyncio.get_running_loop().time()
                for called in waiting:
                    called.set_result(convoy)
                with suppress(TimeoutError):
                    await asyncio.wait_for(convoy.home, PATIENCE_S)
                if len(waiting) > 1:
                    await _quiet(began + LINGER_S)
        finally:
            self._leading = None
            for called in self._called():  # what stops this stops them
                called.cancel()

    def _called(self) -> list[asyncio.Future[_Convoy]]:
        """Those who wait, but for whoever gave up."""
        waiting, self._waiting = self._waiting, []
        return [one for one in waiting if not one.done()]


async def _quiet(until: float) -> None:
    """Wait for a turn of the event loop in which nobody else has anything to do, or for a moment of its clock."""
    loop = asyncio.get_running_loop()
    while (began := loop.time()) < until:
        await asyncio.sleep(0)
        if loop.time() - began < _QUIET_S:
            return
