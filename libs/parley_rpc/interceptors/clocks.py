"""Services agree what time it is."""

from datetime import UTC, datetime, timedelta

from parley_kit.clock import Clock
from parley_kit.faults import ClocksApart
from parley_rpc.calling import TIME
from parley_rpc.chain import Call, Interceptor, Next
from parley_rpc.principal import Metadata, caller

MOST_APART = timedelta(minutes=10)
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
        now = self._clock.now()
        return any(abs(now - _moment(str(value))) > MOST_APART for key, value in metadata if key == TIME)


def _moment(said: str) -> datetime:
    """The moment that was said; one that is no moment is far from any."""
    try:
        return datetime.fromtimestamp(int(said) / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return datetime.min.replace(tzinfo=UTC)
