"""The HTTP server beside gRPC: it leaves nothing behind."""

import asyncio
import socket
import threading
import time
from typing import Any

from parley_rpc.http import listen, serving


async def _empty(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


def _connect_until_refused(address: tuple[str, int], made: list[socket.socket]) -> None:
    while True:
        try:
            made.append(socket.create_connection(address, timeout=2))
        except OSError:
            return
        time.sleep(0.0005)


def _is_closed(connection: socket.socket) -> bool:
    """Whether the other side closed it; it has two seconds."""
    with connection:
        try:
            return connection.recv(1) == b""
        except TimeoutError:
            return False
        except OSError:
            return True


async def test_connections_that_come_while_it_shuts_down_are_closed() -> None:
    for _ in range(3):
        made: list[socket.socket] = []
        listener = listen("127.0.0.1:0")
        async with serving(_empty, listener):
            knocking = threading.Thread(target=_connect_until_refused, args=(listener.getsockname(), made))
            knocking.start()
            await asyncio.sleep(0.05)
        knocking.join()
        assert made
        assert all(map(_is_closed, made))


async def test_address_is_free_again_once_the_server_is_gone() -> None:
    listener = listen("127.0.0.1:0")
    address = listener.getsockname()
    async with serving(_empty, listener):
        pass
    socket.create_server(address).close()


def test_an_answers_body_doesnt_wait_for_its_headers_to_be_acknowledged() -> None:
    with listen("127.0.0.1:0") as listener, socket.create_connection(listener.getsockname()):
        connection, _ = listener.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
