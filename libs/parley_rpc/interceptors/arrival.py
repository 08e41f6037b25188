"""The outermost guard: metadata within bounds, a name for the call, both in the log's context."""

import re
import secrets

from structlog.contextvars import bind_contextvars

from parley_kit.faults import TooLarge
from parley_rpc.chain import Call, Interceptor, Next, refuse
from parley_rpc.channels import MAX_METADATA_BYTES
from parley_rpc.principal import Metadata

# RFC 9113 section 6.5.2 counts 32 bytes for each entry besides its name and value.
_ENTRY_BYTES = 32
_REQUEST_ID = re.compile(r"[0-9a-z-]{20,40}")
_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")


class Arrival(Interceptor):
    """
    Refuses more than 16 KiB of metadata: a client that ignores SETTINGS can get past gRPC's own limit.

    The caller's ``x-request-id`` is kept if it looks like an id, since it goes into the log; else one is made.
    """

    async def intercept(self, call: Call, proceed: Next) -> bytes | None:
        """Answer within a log context of request id, trace id and method."""
        if metadata_bytes(call.metadata) > MAX_METADATA_BYTES:
            await refuse(call.context, TooLarge(f"More than {MAX_METADATA_BYTES} bytes of metadata: send less."))
        # Never unbound: every call runs in a context of its own, on every transport.
        bind_contextvars(method=call.rpc.path[1:], **_names(call.metadata))
        return await proceed(call)


def metadata_bytes(metadata: Metadata) -> int:
    """The size of metadata as HTTP/2 counts it."""
    return sum(len(key) + len(value) + _ENTRY_BYTES for key, value in metadata)


def _names(metadata: Metadata) -> dict[str, str]:
    names: dict[str, str] = {}
    for key, value in metadata:
        if key == "x-request-id" and isinstance(value, str) and _REQUEST_ID.fullmatch(value):
            names["request_id"] = value
        elif key == "traceparent" and isinstance(value, str) and (trace := _TRACEPARENT.fullmatch(value)):
            names["trace_id"] = trace[1]
    if "request_id" not in names:
        names["request_id"] = secrets.token_hex(16)
    return names
