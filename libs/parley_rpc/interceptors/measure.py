"""Counts and times every call, by the status it ended with."""

import asyncio
import time

import grpc

from parley_kit.faults import Code
from parley_rpc.chain import Call, Interceptor, Next
from parley_rpc.metrics import Metrics


class Measure(Interceptor):
    """Outside the fault mapping, so that it sees the status which the caller sees."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    async def intercept(self, call: Call, proceed: Next) -> bytes | None:
        """Answer, and count the answer."""
        start = time.perf_counter()
        code = ""
        try:
            return await proceed(call)
        except asyncio.CancelledError:
            code = Code.CANCELLED.name
            raise
        finally:
            self._metrics.answered(
                call.rpc.path[1:],
                code or status_name(call.context.code()),
                time.perf_counter() - start,
            )


def status_name(code: grpc.StatusCode | int | None) -> str:
    """The name of the status that a call ended with."""
    # grpc.aio's stubs promise an enum; it answers a number from one transport, and nothing where nobody set one.
    number: int | None = code.value[0] if isinstance(code, grpc.StatusCode) else code
    return Code(number).name if number else "OK"
