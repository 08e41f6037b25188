"""Services agree what time it is."""

import math

from structlog.typing import FilteringBoundLogger

from parley_kit.clock import Clock
from parley_kit.faults import ClocksApart
from parley_rpc.calling import TIME
from parley_rpc.chain import Call, Interceptor, Next
from parley_rpc.principal import Metadata, caller

_MOST_MS = 10 * 60 * 1000
_AGAIN_S = 1.0
_SAY_EVERY_S = 60.0


class Clocks(Interceptor):
    """
    Refuses a service whose clock is more than ten minutes off this one's (after letsencrypt/boulder, ``grpc/skew.go``).

    One of the two would use consents that are over, or refuse all that is signed, and say so of everything but its clock. Whoever
    doesn't say when they called, as a service of an earlier version, is not refused for it.
    """

    def __init__(self, clock: Clock, log: FilteringBoundLogger) -> None:
        self._clock, self._log = clock, log
        self._said_at: dict[str, float] = {}

    async def intercept(self, call: Call, proceed: Next) -> bytes | None:
        """Answer a caller whose clock is about right. Raises ClocksApart."""
        who = caller()
        if who.kind == "service" and self._is_apart(call.metadata):
            self._say(who.id)
            raise ClocksApart(retry_after=_AGAIN_S)
        return await proceed(call)

    def _say(self, service: str) -> None:
        """Log whom it refuses, now and then: calls may come by the thousand."""
        now = self._clock.monotonic()
        if now - self._said_at.get(service, -_SAY_EVERY_S) >= _SAY_EVERY_S:
            self._said_at[service] = now
            self._log.warning("clocks_apart")

    def _is_apart(self, metadata: Metadata) -> bool:
        said = [value for key, value in metadata if key == TIME]
        return any(_apart_ms(self._clock, str(value)) > _MOST_MS for value in said)


def _apart_ms(clock: Clock, said: str) -> float:
    """How far the moment that was said is from now; what is no moment is far from any."""
    try:
        return abs(clock.now().timestamp() * 1000 - int(said))
    except (ValueError, OverflowError):
        return math.inf
