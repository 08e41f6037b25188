"""How much one caller may have under way at once, so that nobody's flood is everybody's outage."""

from collections import Counter
from dataclasses import dataclass

from parley_kit.faults import TooManyCalls
from parley_rpc.chain import Call, Interceptor, Next
from parley_rpc.principal import Principal, caller


@dataclass(frozen=True, slots=True)
class Allowance:
    """So many ``calls`` at once, and so many ``streams`` besides."""

    calls: int
    streams: int


# A connection carries a hundred calls, and a few more may be on their way out: whoever calls from one process, a marketer with
# a hundred exchanges at a time, is queued by its own gRPC and never refused. Who opens more connections gets no more of the
# server. So many calls wait for the 16 connections to a database: at 5 ms each they cost others 40 ms, however large the flood.
# What would wait for one customer's row waits before it takes one (parley_db.mutations). A stream costs a query every quarter
# of a second. Each process of a marketer's needs one, a crashed one holds its own until keepalive misses it (70 s), and during
# a rollout there are twice as many.
EACH = Allowance(calls=128, streams=8)

# Who shows no token can't be told from others who don't: they share, apart from everybody who does. At 10 ms for signing in
# that is more than a server has processors for. The streams that anyone may open are those of health.
ALL_UNKNOWN = Allowance(calls=64, streams=64)

RETRY_SECONDS = 0.25
"""Most calls end sooner, and clients' own backoff spreads them from there."""

# An orchestrator restarts what doesn't answer its probe: a flood must not make it do so.
_PROBE = "/grpc.health.v1.Health/Check"

_Place = tuple[str, str, bool]


class Limits(Interceptor):
    """
    Counts what each caller has under way on this server, and refuses what is more than its allowance.

    Stands behind Access, so that no caller can use up another's. Services are not limited: how much they ask of each other
    follows from what callers ask of them. A call is under way until its answer has left: whoever doesn't read answers
    can't heap them up here. Only who shows no token has their place back when the answer is made: one of them who reads
    nothing would keep all others out, and what they are answered is small.
    """

    def __init__(self) -> None:
        self._under_way: Counter[_Place] = Counter()

    async def intercept(self, call: Call, proceed: Next) -> bytes | None:
        """Answer within the caller's allowance. Raises TooManyCalls."""
        principal = caller()
        if principal.kind == "service" or call.rpc.path == _PROBE:
            return await proceed(call)
        place = self._take_place(principal, call)
        if principal.kind != "anyone":
            call.context.add_done_callback(lambda _: self._free(place))  # type: ignore[arg-type] # its stub asks for more than a callable
            return await proceed(call)
        try:
            return await proceed(call)
        finally:
            self._free(place)

    def _take_place(self, principal: Principal, call: Call) -> _Place:
        # Not the principal itself: what else a token says of its bearer differs from token to token.
        place = (principal.kind, principal.id, call.rpc.streams)
        allowance = ALL_UNKNOWN if principal.kind == "anyone" else EACH
        most, what = (allowance.streams, "streams") if call.rpc.streams else (allowance.calls, "calls")
        if self._under_way[place] >= most:
            raise TooManyCalls(
                f"{most} {what} of yours are under way here: let one end first.", retry_after=RETRY_SECONDS
            )
        self._under_way[place] += 1
        return place

    def _free(self, place: _Place) -> None:
        self._under_way[place] -= 1
        if not self._under_way[place]:  # else whoever ever called would be remembered
            del self._under_way[place]
