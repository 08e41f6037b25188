"""
The chain of guards around every handler, built once per method and the same on every transport.

A call arrives as bytes and leaves as bytes, so that parsing and serialising stand inside the chain: what goes wrong
there is mapped like everything else, and nobody without permission gets as far as the parser.
"""

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

import grpc
from google.protobuf.message import Message
from grpc_status import rpc_status

from parley_kit.faults import Fault, Unavailable
from parley_rpc.principal import Metadata, Principal
from parley_rpc.status import to_status

WRITE_SECONDS = 1.0
"""
How long an answer of a stream may wait for its reader before the stream ends.

What it says was settled just before, a release's permission above all, and is a second old at the most when the next is asked
for. The answer that waits can't be taken back from gRPC: it leaves if it is read while its connection lasts.
"""

Context = grpc.aio.ServicerContext[Any, Any]
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"  # generic in its stubs only


@dataclass(frozen=True, slots=True)
class Rpc:
    """A method as the chain knows it. ``path`` is ``/package.Service/Method``; ``streams`` says it answers a stream."""

    service: str
    path: str
    decode: Callable[[bytes], Message]
    streams: bool


@dataclass(slots=True)
class Call:
    """
    One call on its way in. ``request`` is bytes until validation parses it.

    ``declared`` is the caller that an in-process channel or a certificate stands for; None where tokens decide.
    """

    rpc: Rpc
    context: Context
    metadata: Metadata
    declared: Principal | None
    request: Any


Next = Callable[[Call], Awaitable[bytes | None]]
Bound = Callable[[bytes, Context, Principal | None], Awaitable[bytes | None]]


class Interceptor(ABC):
    """One guard. Streamed answers are written to the context on the way, so both kinds of call look alike here."""

    @abstractmethod
    async def intercept(self, call: Call, proceed: Next) -> bytes | None:
        """Answer the call: by ``await proceed(call)``, or by raising a Fault instead."""


class Chain:
    """Guards in order, outermost first."""

    def __init__(self, interceptors: Iterable[Interceptor]) -> None:
        self._interceptors = tuple(interceptors)

    def bind(self, service: str, path: str, handler: Handler) -> Bound:
        """Stand before one handler. Raises TypeError for a handler that takes a stream: no guard reads those."""
        if handler.request_streaming:
            raise TypeError(f"{path} takes a stream of requests, which the chain does not guard")
        rpc = Rpc(service, path, handler.request_deserializer or bytes, handler.response_streaming)  # type: ignore[arg-type] # generated handlers always parse messages
        proceed: Next = partial(_stream if handler.response_streaming else _answer, handler)
        for interceptor in reversed(self._interceptors):
            proceed = partial(interceptor.intercept, proceed=proceed)

        async def bound(request: bytes, context: Context, declared: Principal | None) -> bytes | None:
            metadata = tuple(context.invocation_metadata() or ())
            return await proceed(Call(rpc, context, metadata, declared, request))

        return bound


async def refuse(context: Context, fault: Fault, error_id: str | None = None) -> None:
    """End the call with the fault's status and details. Raises grpc.aio.AbortError, as every abort does."""
    await context.abort_with_status(rpc_status.to_status(to_status(fault, error_id)))


async def _answer(handler: Handler, call: Call) -> bytes:
    behaviour: Any = handler.unary_unary
    serialise: Any = handler.response_serializer
    answer: bytes = serialise(await behaviour(call.request, call.context))
    return answer


async def _stream(handler: Handler, call: Call) -> None:
    behaviour: Any = handler.unary_stream
    answers: AsyncGenerator[Any] = behaviour(call.request, call.context)
    has_begun = False
    async with contextlib.aclosing(answers):
        async for answer in answers:
            await _write(call.context, answer, is_first=not has_begun)
            has_begun = True


async def _write(context: Context, answer: Any, *, is_first: bool) -> None:
    try:
        async with asyncio.timeout(WRITE_SECONDS):
            if is_first:  # else it takes the headers along, and no status can pass it while it waits
                await context.send_initial_metadata(())
            await context.write(answer)
    except TimeoutError:
        raise Unavailable("The stream was not read for too long: open it again.") from None
