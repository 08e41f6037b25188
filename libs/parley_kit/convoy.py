"""Convoys: calls that come close together set out together, so that all they share on their way is shared."""

import asyncio

PAUSE_S, LINGER_S = 0.004, 0.04
"""How long after one alone the next set out, and after several, unless the event loop is calm before."""
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
        self._next: asyncio.TimerHandle | None = None
        self._clear_at = 0.0

    async def join(self) -> None:
        """Wait for the next convoy to set out."""
        loop = asyncio.get_running_loop()
        called: asyncio.Future[None] = loop.create_future()
        self._waiting.append(called)
        if self._next is None:
            self._next = loop.call_at(self._clear_at, self._set_out)
        await called

    def _set_out(self) -> None:
        self._next = None
        waiting, self._waiting = [one for one in self._waiting if not one.done()], []  # but for whoever gave up
        for called in waiting:
            called.set_result(None)
        now = asyncio.get_running_loop().time()
        self._clear_at = now + (LINGER_S if len(waiting) > 1 else PAUSE_S if waiting else 0)
        if len(waiting) > 1:
            self._watch(now, now, self._clear_at)

    def _watch(self, now: float, calm_since: float, until: float) -> None:
        asyncio.get_running_loop().call_later(_STEP_S, self._look, now, calm_since, until)

    def _look(self, before: float, calm_since: float, until: float) -> None:
        """See whether the event loop was in time for long enough; look again a step later, up to a moment of its clock."""
        now = asyncio.get_running_loop().time()
        if now - before > _STEP_S + _LATE_S:
            calm_since = now
        if now >= until:
            return
        if now - calm_since < _CALM_S:
            self._watch(now, calm_since, until)
            return
        self._clear_at = now
        if self._next:
            self._next.cancel()
            self._set_out()
