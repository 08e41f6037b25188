"""Streams end when their server goes."""

import asyncio

from parley_kit.faults import Unavailable
from parley_rpc.chain import Call, Interceptor, Next

_AGAIN_S = 0.1
"""After which whoever followed a stream opens it again: somewhere else, or where this one comes back."""


class Leaving(Interceptor):
    """
    Ends the streams under way once the server has told that it goes, and refuses new ones.

    A feed never ends by itself: one marketer who follows theirs would keep a server for as long as it has patience with calls.
    """

    def __init__(self) -> None:
        self._under_way: set[asyncio.Timeout] = set()
        self._goes = False

    async def intercept(self, call: Call, proceed: Next) -> bytes | None:
        """Answer until the server goes. Raises Unavailable then."""
        if not call.rpc.streams:
            return await proceed(call)
        if self._goes:
            raise _goes()
        scope = asyncio.timeout(None)
        try:
            async with scope:
                self._under_way.add(scope)
                return await proceed(call)
        except TimeoutError:
            if scope.expired():
                raise _goes() from None
            raise
        finally:
            self._under_way.discard(scope)

    def end(self) -> None:
        """Go: end what is under way."""
        self._goes = True
        now = asyncio.get_running_loop().time()
        while self._under_way:
            self._under_way.pop().reschedule(now)


def _goes() -> Unavailable:
    return Unavailable("This server stops: open the stream again.", retry_after=_AGAIN_S)
