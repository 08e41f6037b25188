"""Calls as tests make them, and what they end with."""

import uuid
from collections.abc import Awaitable
from typing import Any

import grpc
import pytest

from parley_kit.faults import Fault
from parley_rpc.status import fault_from


def request_id() -> str:
    """A fresh request id."""
    return str(uuid.uuid4())


async def fault_of(call: Awaitable[Any]) -> Fault:
    """The fault that a call ends with."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return fault_from(caught.value)
