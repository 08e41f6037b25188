"""Every call ends."""

import asyncio

from parley_kit.faults import DeadlineTooShort
from parley_rpc import deadlines
from parley_rpc.chain import Call, Interceptor, Next


class Deadline(Interceptor):
    """
    Refuses a call with less than 100 ms left: its answer would come too late and its work be wasted.

    A call without a deadline gets 30 s. A stream without one lives as long as its connection, whose age the server caps.
    """

    async def intercept(self, call: Call, proceed: Next) -> bytes | None:
        """Answer in time. Raises DeadlineTooShort."""
        left = call.context.time_remaining()
        if left is not None:
            if left < deadlines.SHORTEST_SECONDS:
                raise DeadlineTooShort
            deadlines.remember(left)
            return await proceed(call)
        if call.rpc.streams:
            return await proceed(call)
        return await _within(deadlines.DEFAULT_SECONDS, call, proceed)


async def _within(seconds: float, call: Call, proceed: Next) -> bytes | None:
    deadlines.remember(seconds)
    scope = asyncio.timeout(seconds)
    try:
        async with scope:
            return await proceed(call)
    except TimeoutError:
        if scope.expired():
            raise DeadlineTooShort from None
        raise
