"""The loops that never end: finding customers, taking them on, and ending what is over."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from structlog.typing import FilteringBoundLogger

from parley_broker.bell import Bell
from parley_broker.matching import Matching
from parley_broker.releasing import Releasing
from parley_broker.store import Store
from parley_bus.log import State
from parley_kit.clock import Clock

_IDLE_S = 0.5
"""Seconds after which work is looked for that nobody rings for: what another process, or one that crashed, has left."""
_LAPSE_EVERY_S = 1.0


@dataclass(frozen=True)
class Work:
    """The loops that never end."""

    store: Store
    matching: Matching
    releasing: Releasing
    bell: Bell
    clock: Clock
    log: FilteringBoundLogger

    async def match(self) -> None:
        """Find customers, for ever."""
        await self.loop(self.matching.turn)

    async def release(self) -> None:
        """Decide, release and settle, for ever."""
        await self.loop(self.releasing.turn)

    async def lapse(self) -> None:
        """Mark what deadlines have overtaken, for ever."""

        async def turn() -> bool:
            await self.store.lapse(self.clock.now())
            await asyncio.sleep(_LAPSE_EVERY_S)
            return True

        await self.loop(turn)

    async def sweep(self) -> None:
        """End who is left in what is over, for ever."""

        async def turn() -> bool:
            if not await self.store.sweep():
                await asyncio.sleep(_LAPSE_EVERY_S)
            return True

        await self.loop(turn)

    async def loop(self, turn: Callable[[], Awaitable[bool]]) -> None:
        """Take turns for ever, whatever fails: a lease brings back what was in hand, so nothing is lost by failing."""
        state = State(self.log, "work", method=turn.__qualname__)
        while True:
            try:
                rung = self.bell.listen()
                if not await turn():
                    await self.bell.wait(_IDLE_S, rung)
                state.good("flowing")
            except Exception as error:  # noqa: BLE001 - a defect in one exchange must not stop the others
                await asyncio.sleep(state.bad("failing", error))
