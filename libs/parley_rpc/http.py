"""A service's HTTP, for what is public by nature: served beside gRPC, by the same process."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from parley_rpc.channels import CannotListen

PATIENCE_S = 10.0
MOST_CONNECTIONS = 256
"""At a time. Those of everybody together must leave descriptors to what the process is there for."""

_INHERITED = "fd:"


def listen(address: str) -> socket.socket:
    """
    Listen on ``host:port``, or take over the listening socket ``fd:N`` of whoever started this process.

    Such a socket outlives the process: who comes while it is started again waits instead of being refused. Raises CannotListen.
    """
    try:
        if address.startswith(_INHERITED):
            return socket.socket(fileno=int(address.removeprefix(_INHERITED)))
        host, _, port = address.rpartition(":")
        listener = socket.create_server((host, int(port)))
    except (OSError, ValueError, OverflowError) as error:
        raise CannotListen(address) from error
    # Connections inherit it. Without it an answer's body waits for the acknowledgement of its headers, some 40 ms.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


@asynccontextmanager
async def serving(app: Any, listener: socket.socket) -> AsyncIterator[str]:
    """Serve an ASGI application on a socket for the length of a block; answers its URL."""
    config = uvicorn.Config(
        app, http=_Hurried, ws="none", log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=1
    )
    server = _Server(config)
    serving_ = asyncio.create_task(server.serve(sockets=[listener]), name="http")
    host, port = listener.getsockname()[:2]
    try:
        yield f"http://{host}:{port}"
    finally:
        server.should_exit = True
        await serving_
        listener.close()
        # What is left came meanwhile, or its answer wasn't ready within the second.
        for left in list(server.server_state.connections):
            left.transport.abort()
        await asyncio.sleep(0)  # they are closed in the next turn


class _Hurried(H11Protocol):
    """
    Hangs up on whoever asks for nothing new within so many seconds, and on who is one too many.

    Anybody may connect, and each takes a descriptor.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as its base class has it
        super().connection_made(transport)
        self._watch(None)
        if len(self.connections) > MOST_CONNECTIONS:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._watching.cancel()
        super().connection_lost(exc)

    def _watch(self, seen: object) -> None:
        self._watching = self.loop.call_later(PATIENCE_S, self._look, seen)

    def _look(self, seen: object) -> None:
        # The same request as before: it isn't whole yet, or its answer isn't read, or there is none.
        if self.cycle is seen:
            self.transport.abort()
        else:
            self._watch(self.cycle)


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to whoever runs the process."""
        yield
