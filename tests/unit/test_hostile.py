"""Whether a server made for a test leaves nothing behind."""

import asyncio
import gc
import socket

import pytest

from tests.support import hostile


async def _to_the_end(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.read()


@pytest.mark.parametrize("rounds", range(6))
async def test_whoever_has_just_come_in_is_hung_up_on(rounds: int) -> None:
    async with hostile.listening(_to_the_end) as port:
        with socket.create_connection(("127.0.0.1", port)):
            for _ in range(rounds):
                await asyncio.sleep(0)
    gc.collect()  # a socket left open fails this test
