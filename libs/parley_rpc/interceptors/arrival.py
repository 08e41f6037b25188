"""The outermost guard: metadata within bounds, a name for the call, both in the log's context."""

import secrets

from structlog.contextvars import bind_contextvars

from parley_kit.faults import TooLarge
from parley_rpc.chain import Call, Interceptor, Next, refuse
from parley_rpc.channels import MAX_METADATA_BYTES
from parley_rpc.principal import Metadata

# RFC 9113 section 6.5.2 counts 32 bytes for each entry besides its name and value.
_ENTRY_BYTES = 32


class Arrival(Interceptor):
    """
    Refuses more than 16 KiB of metadata: a client that ignores SETTINGS can get past gRPC's own limit.

    The name is always made here. A customer's program would send one of its own along with all that it does, to every service:
    kept in their logs, that would join what is otherwise kept apart.
    """

    async def intercept(self, call: Call, proceed: Next) -> bytes | None:
        """Answer within a log context of request id and method."""
        if metadata_bytes(call.metadata) > MAX_METADATA_BYTES:
            await refuse(call.context, TooLarge(f"More than {MAX_METADATA_BYTES} bytes of metadata: send less."))
        # Never unbound: every call runs in a context of its own, on every transport.
        bind_contextvars(method=call.rpc.path[1:], request_id=secrets.token_hex(16))
        return await proceed(call)


def metadata_bytes(metadata: Metadata) -> int:
    """The size of metadata as HTTP/2 counts it."""
    return sum(len(key) + len(value) + _ENTRY_BYTES for key, value in metadata)
