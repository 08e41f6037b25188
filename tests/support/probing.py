"""Calls made over and over while something is away: how they are refused, and how soon they go through again."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc

from parley_rpc.status import fault_from
from tests.support.waiting import until


@dataclass
class Probe:
    """
    One kind of call, made over and over by a client that repeats nothing, and comes back when it was told to, or too soon.

    What failed, and when the last one went through.
    """

    call: Callable[[], Awaitable[Any]]
    """Answers False where it went through in vain."""
    is_hasty: bool = False
    refused: list[grpc.aio.AioRpcError] = field(default_factory=list)
    begun: float = 0.0
    """When the last call that went through was begun."""
    answered: int = 0
    """How many went through."""

    async def run(self) -> None:
        """Call, for ever."""
        while True:
            begun, pause = time.monotonic(), 0.02  # two cores
            try:
                if await self.call() is not False:
                    self.begun, self.answered = begun, self.answered + 1
            except grpc.aio.AioRpcError as error:
                self.refused.append(error)
                pause = pause if self.is_hasty else fault_from(error).retry_after or pause
            await asyncio.sleep(pause)


async def served(probes: Mapping[str, Probe], since: float) -> float:
    """Wait until every call goes through that is begun from now on; how long that took."""

    async def all_served() -> bool:
        return all(probe.begun > since for probe in probes.values())

    await until(all_served, 30)
    return time.monotonic() - since


def kind(error: grpc.aio.AioRpcError) -> tuple[Any, type, bool]:
    """How a call was refused: the status, the fault, and whether it says when to come back."""
    fault = fault_from(error)
    return error.code(), type(fault), fault.retry_after is not None
