"""Convoys: calls that come close together set out together, so that all they share on their way is shared."""

import asyncio
import contextvars

PAUSE_S, LINGER_S = 0.004, 0.04
"""How long after one alone, and after several, the next set out, unless the event loop is calm before."""
_CALM_S, _STEP_S, _LATE_S = 0.005, 0.001, 0.0004
"""The event loop is calm that wakes a sleeper in time for so long; how long each sleep is, and how much more is late."""


class Convoys:
    """
    Lets calls of several steps set out in company, where each step has a :class:`~parley_kit.coalesce.Coalescer`.

    By themselves those hold one or two of many callers each: who arrives at the first step an instant later is a batch of their
    own at all others. Nobody waits who comes when nobody has just set out. Those who come right behind somebody set out together
    a few milliseconds later; those behind several, where there are more to come, once the event loop has had little to do for
    :data:`_CALM_S`, or after :data:`LINGER_S`: where it is busy they would wait for other things anyway.

    When a convoy sets out depends on when the one before did, and never on what becomes of it: time would tell those behind.
    """

    def __init__(self) -> None:
        self._waiting: list[asyncio.Future[None]] = []
        self._leading: asyncio.Task[None] | None = None

    async def join(self) -> None:
        """Wait for the next convoy to set out."""
        called: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(called)
        if self._leading is None or self._leading.done():
            # A context of its own: it leads others as well, and has nobody's deadline.
            self._leading = asyncio.create_task(self._lead(), context=contextvars.Context())
        await called

    async def _lead(self) -> None:
        """Send out one convoy after the other, until nobody waits."""
        try:
            while waiting := self._called():
                began = asyncio.get_running_loop().time()
                for called in waiting:
                    called.set_result(None)
                await _calm(began + (LINGER_S if len(waiting) > 1 else PAUSE_S))
        finally:
            for called in self._called():  # what stops this stops them
                called.cancel()

    def _called(self) -> list[asyncio.Future[None]]:
        """Those who wait, but for whoever gave up."""
        waiting, self._waiting = self._waiting, []
        return [one for one in waiting if not one.done()]


async def _calm(until: float) -> None:
    """Wait until the event loop was in time for a while, or for a moment of its clock."""
    loop = asyncio.get_running_loop()
    calm_since = loop.time()
    while (began := loop.time()) < until and began - calm_since < _CALM_S:
        await asyncio.sleep(_STEP_S)
        if loop.time() - began > _STEP_S + _LATE_S:
            calm_since = loop.time()
