"""Services agree what time it is."""

import math

from parley_kit.clock import Clock
from parley_kit.faults import ClocksApart
from parley_rpc.calling import TIME
from parley_rpc.chain import Call, Interceptor, Next
from parley_rpc.principal import Metadata, caller

_MOST_MS = 10 * 60 * 1000
_AGAIN_S = 1.0


class Clocks(Interceptor):
    """
    Refuses a service whose clock is more than ten minutes off this one's (after letsencrypt/boulder, ``grpc/skew.go``).

    One of the two would use consents that are over, or refuse all that is signed, and say so of everything but its clock. Whoever
    doesn't say when they called, as a service of an earlier version, is not refused for it.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    async def intercept(self, call: Call, proceed: Next) -> bytes | None:
        """Answer a caller whose clock is about right. Raises ClocksApart."""
        if caller().kind == "service" and self._is_apart(call.metadata):
            raise ClocksApart(retry_after=_AGAIN_S)
        return await proceed(call)

    def _is_apart(self, metadata: Metadata) -> bool:
        said = [value for key, value in metadata if key == TIME]
        return any(_apart_ms(self._clock, str(value)) > _MOST_MS for value in said)


def _apart_ms(clock: Clock, said: str) -> float:
    """How far the moment that was said is from now; what is no moment is far from any."""
    try:
        return abs(clock.now().timestamp() * 1000 - int(said))
    except (ValueError, OverflowError):
        return math.inf
