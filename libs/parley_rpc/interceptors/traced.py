"""A span for every call that is answered, where spans are made at all."""

import asyncio

from structlog.contextvars import bind_contextvars

from parley_kit.faults import Code
from parley_kit.telemetry import Tracer, is_traceparent, traceparent
from parley_rpc.chain import Call, Interceptor, Next
from parley_rpc.interceptors.measure import status_name
from parley_rpc.principal import Metadata


class Traced(Interceptor):
    """
    Goes on with a service's trace, and begins one for everybody else.

    A customer's program would send one trace along with all that it does, to every service: kept, that would join what is
    otherwise kept apart.
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer

    async def intercept(self, call: Call, proceed: Next) -> bytes | None:
        """Answer within a span, and name its trace in the log."""
        is_peer = call.declared is not None and call.declared.kind == "service"
        with self._tracer.served(call.rpc.path[1:], _sent(call.metadata) if is_peer else "") as ended:
            bind_contextvars(trace_id=traceparent.get()[3:35])
            code = ""
            try:
                return await proceed(call)
            except asyncio.CancelledError:
                code = Code.CANCELLED.name
                raise
            finally:
                ended(code or status_name(call.context.code()))


def _sent(metadata: Metadata) -> str:
    found = [value for key, value in metadata if key == "traceparent" and is_traceparent(value)]
    return str(found[0]) if len(found) == 1 else ""
