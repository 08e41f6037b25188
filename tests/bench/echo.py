"""The measure of all: a bare ``grpc.aio`` server that answers as much as an exchange is answered with, and prints where."""

import asyncio
import signal
from typing import Any

import grpc

REQUEST, ANSWER = bytes(260), bytes(5260)
"""As long as ``CreateExchange`` asks for five attributes of somebody, and brings them."""


async def _echo(_request: bytes, _context: Any) -> bytes:
    return ANSWER


async def main() -> None:
    """Serve until killed."""
    server = grpc.aio.server()
    handlers: dict[str, Any] = {"Echo": grpc.unary_unary_rpc_method_handler(_echo)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("bench.Echo", handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop.set)
    await stop.wait()
    await server.stop(0)


if __name__ == "__main__":
    asyncio.run(main())
