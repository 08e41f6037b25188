"""Whether a server made for a test leaves nothing behind, and hides nothing."""

import asyncio
import gc
import socket
from collections.abc import Awaitable, Callable

import pytest

from tests.support import hostile
from tests.support.waiting import until

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def _to_the_end(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def _badly(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.read()
    raise ValueError


async def _visited(serve: Serve, visitors: int = 1, then: Exception | None = None) -> None:
    """Serve so many until all have come in, and have the block fail if it is to."""
    came: list[asyncio.StreamWriter] = []

    async def noting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.append(writer)
        await serve(reader, writer)

    async def all_came() -> bool:
        return len(came) == visitors

    clients = [socket.socket() for _ in range(visitors)]
    try:
        async with hostile.listening(noting) as port:
            for client in clients:
                client.connect(("127.0.0.1", port))
            await until(all_came)
            if then:
                raise then
    finally:
        for client in clients:
            client.close()


@pytest.mark.parametrize("rounds", range(6))
async def test_whoever_has_just_come_in_is_hung_up_on(rounds: int) -> None:
    async with hostile.listening(_to_the_end) as port:
        with socket.create_connection(("127.0.0.1", port)):
            for _ in range(rounds):
                await asyncio.sleep(0)
    gc.collect()  # a socket left open fails this test


async def test_everybody_has_gone_although_one_was_served_badly() -> None:
    gone = []

    async def badly_at_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        gone.append(writer)
        if len(gone) == 1:
            await _badly(reader, writer)
        await reader.read()
        await asyncio.sleep(0.05)
        gone.clear()

    with pytest.raises(ValueError, match=r"^$"):
        await _visited(badly_at_first, visitors=2)
    assert [] == gone


async def test_what_a_test_fails_with_is_not_hidden_by_what_serving_failed_with() -> None:
    with pytest.raises(KeyError):
        await _visited(_badly, then=KeyError())


async def test_whoever_is_served_on_after_hanging_up_fails_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    async def for_ever(_reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(hostile, "_PATIENCE_S", 0.05)
    with pytest.raises(TimeoutError, match="1 connections"):
        await _visited(for_ever)
