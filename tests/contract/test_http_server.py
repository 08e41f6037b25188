"""The HTTP server beside gRPC: it leaves nothing behind."""

import asyncio
import socket
import threading
import time
from contextlib import suppress
from typing import Any

import pytest

from parley_rpc import http
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


def _read_to_the_end(connection: socket.socket) -> int:
    """How much was on its way before the other side hung up; each part has two seconds."""
    connection.settimeout(2)
    found = 0
    with connection, suppress(ConnectionResetError):
        while part := connection.recv(1 << 20):
            found += len(part)
    return found


async def _ends(connection: socket.socket) -> bool:
    """Whether the other side hangs up; it has two seconds."""
    connection.settimeout(2)
    return await asyncio.to_thread(_is_closed, connection)


@pytest.mark.parametrize(
    "said",
    [b"", b"GET /a HTTP/1.1\r\nHost: a\r\n", b"GET /a HTTP/1.1\r\nHost: a\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n"],
)
async def test_connection_that_asks_for_nothing_is_hung_up_on(said: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "PATIENCE_S", 0.2)
    listener = listen("127.0.0.1:0")
    async with serving(_empty, listener):
        silent = socket.create_connection(listener.getsockname())
        silent.sendall(said)
        if said.count(b"GET") == 2:
            assert (await asyncio.to_thread(silent.recv, 4096)).startswith(b"HTTP/1.1 204")
        assert await _ends(silent)


async def test_connections_are_so_many_at_most_and_whoever_comes_once_one_is_gone_is_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http, "MOST_CONNECTIONS", 2)
    listener = listen("127.0.0.1:0")
    async with serving(_empty, listener):
        silent = [socket.create_connection(listener.getsockname()) for _ in range(2)]
        await asyncio.sleep(0.05)
        assert await _ends(socket.create_connection(listener.getsockname()))
        silent.pop().close()
        await asyncio.sleep(0.05)
        with socket.create_connection(listener.getsockname()) as asking:
            asking.sendall(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await asyncio.to_thread(asking.recv, 4096)).startswith(b"HTTP/1.1 204")
        silent.pop().close()


async def test_connection_whose_answer_nobody_reads_is_hung_up_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "PATIENCE_S", 0.2)
    sent = asyncio.Event()

    async def long(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(1000):
            await send({"type": "http.response.body", "body": bytes(65_536), "more_body": True})
        await send({"type": "http.response.body"})
        sent.set()

    listener = listen("127.0.0.1:0")
    async with serving(long, listener):
        idle = socket.create_connection(listener.getsockname())
        idle.sendall(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n")
        await asyncio.wait_for(sent.wait(), 10)  # into nothing, once it is hung up on
        assert await asyncio.to_thread(_read_to_the_end, idle) < 1000 * 65_536


async def test_connection_that_goes_on_asking_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[tuple[Any, object]] = []
    look = http._Hurried._look
    monkeypatch.setattr(http._Hurried, "_watch", lambda self, seen: looked.append((self, seen)))
    listener = listen("127.0.0.1:0")
    async with serving(_empty, listener):
        busy = socket.create_connection(listener.getsockname())
        for _ in range(3):
            busy.sendall(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await asyncio.to_thread(busy.recv, 4096)).startswith(b"HTTP/1.1 204")
            look(*looked[-1])  # its patience is over once more
        busy.sendall(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await asyncio.to_thread(busy.recv, 4096)).startswith(b"HTTP/1.1 204")
        busy.close()
    assert 4 == len(looked)


def test_an_answers_body_doesnt_wait_for_its_headers_to_be_acknowledged() -> None:
    with listen("127.0.0.1:0") as listener, socket.create_connection(listener.getsockname()):
        connection, _ = listener.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
