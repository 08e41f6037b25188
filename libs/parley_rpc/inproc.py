"""
The in-process channel: services that share a process call each other without a socket, and can't tell.

What a network would do stays: bytes on the way, deadlines, metadata, status details, cancellation both ways, sizes, the
same chain of guards, and no context variable across. Only what a network's client does when its server is away isn't done:
nothing is tried again, as nothing here is away alone. The caller is declared when a channel is made, not sent, so no
metadata can forge it. Unary calls only; calls between services are. One process is one memory: this is for trying and
testing, not for the separation of zones.
"""

import asyncio
import contextvars
import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, field
from typing import Any, NoReturn, Self

import grpc
from grpc.aio import AbortError, AioRpcError, Metadata
from structlog.typing import FilteringBoundLogger

from parley_kit.clock import Clock
from parley_kit.faults import Fault, Unavailable
from parley_kit.telemetry import SILENT, Tracer
from parley_rpc.chain import Bound
from parley_rpc.channels import MAX_RESPONSE_BYTES
from parley_rpc.interceptors import standard
from parley_rpc.metrics import Metrics
from parley_rpc.principal import Authenticator, Principal
from parley_rpc.server import MAX_REQUEST_BYTES, Registration, collect
from parley_rpc.status import Unimplemented, to_status
from parley_rpc.zones import Zones

_CODES = {code.value[0]: code for code in grpc.StatusCode}


@dataclass(frozen=True, slots=True)
class _Outcome:
    code: grpc.StatusCode
    details: str = ""
    response: bytes = b""
    initial: Metadata = field(default_factory=Metadata)
    trailing: Metadata = field(default_factory=Metadata)


class InprocessHub:
    """Where the services of one process are registered, and where channels to them come from."""

    def __init__(self) -> None:
        self._routes: dict[str, Bound] = {}
        self._running: dict[asyncio.Task[None], _Context] = {}
        self._closed = False

    def register(
        self,
        registrations: Iterable[Registration],
        *,
        authenticate: Authenticator,
        clock: Clock,
        zones: Zones,
        metrics: Metrics,
        log: FilteringBoundLogger,
        max_request_bytes: int = MAX_REQUEST_BYTES,
        tracer: Tracer = SILENT.tracer,
    ) -> None:
        """Serve these, behind the standard chain. Raises ValueError if one is served already."""
        chain = standard(
            authenticate=authenticate,
            clock=clock,
            zones=zones,
            metrics=metrics,
            log=log,
            max_request_bytes=max_request_bytes,
            tracer=tracer,
        )
        for service, handlers in collect(registrations).items():
            for name, handler in handlers.items():
                path = f"/{service}/{name}"
                if path in self._routes:
                    raise ValueError(f"{service} is registered twice")
                self._routes[path] = chain.bind(service, path, handler)

    def channel(self, caller: str | None = None) -> grpc.aio.Channel:
        """
        Open a channel on which the service named ``caller`` calls.

        With None nobody is declared, and callers show tokens as they would over a network.
        """
        return _Channel(self, Principal("service", caller) if caller else None)

    async def close(self) -> None:
        """Cancel what is under way and answer UNAVAILABLE from now on."""
        self._closed = True
        running = dict(self._running)
        for task, context in running.items():
            context.end(grpc.StatusCode.UNAVAILABLE, "the process is shutting down")
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    def dispatch(self, path: str, request: bytes, context: "_Context") -> asyncio.Task[None] | Fault:
        """Start the handler in a task and a context of its own, or say why not."""
        bound = self._routes.get(path)
        if self._closed:
            return Unavailable()
        if bound is None:
            return Unimplemented()
        task = asyncio.create_task(context.answer(bound, request), context=contextvars.Context())
        self._running[task] = context
        task.add_done_callback(self._running.pop)
        return task


class _Context(grpc.aio.ServicerContext[Any, Any]):
    """What a handler sees of a call, and what becomes of it."""

    def __init__(self, metadata: Metadata, deadline: float | None, declared: Principal | None) -> None:
        self._metadata, self._deadline, self._declared = metadata, deadline, declared
        self._initial, self._trailing = Metadata(), Metadata()
        self._code, self._details = grpc.StatusCode.OK, ""
        self.outcome: asyncio.Future[_Outcome] = asyncio.get_running_loop().create_future()
        self._callbacks: list[Callable[[Any], Any]] = []

    async def answer(self, bound: Bound, request: bytes) -> None:
        response = b""
        try:
            response = await bound(request, self, self._declared) or b""
        except AbortError:
            pass
        except asyncio.CancelledError:
            self.end(grpc.StatusCode.CANCELLED, "the handler was cancelled")
            raise
        except Exception:  # noqa: BLE001 - the chain maps all but what goes wrong in its own outer guards
            self._code, self._details = grpc.StatusCode.UNKNOWN, ""
        finally:
            for callback in self._callbacks:
                callback(self)
        self._settle(_Outcome(self._code, self._details, response, self._initial, self._trailing))

    def end(self, code: grpc.StatusCode, details: str) -> None:
        """End the call from outside the handler; the first end counts."""
        self._settle(_Outcome(code, details, b"", self._initial))

    def refuse(self, fault: Fault) -> None:
        status = to_status(fault)
        trailing = Metadata(("grpc-status-details-bin", status.SerializeToString()))
        self._settle(_Outcome(_CODES[status.code], status.message, trailing=trailing))

    def _settle(self, outcome: _Outcome) -> None:
        if not self.outcome.done():
            self.outcome.set_result(outcome)

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()) -> NoReturn:
        self._code, self._details = code, details
        self._trailing = Metadata(*(trailing_metadata or self._trailing))
        raise AbortError

    async def abort_with_status(self, status: grpc.Status) -> NoReturn:
        await self.abort(status.code, status.details, status.trailing_metadata)

    async def send_initial_metadata(self, initial_metadata: Any) -> None:
        self._initial = Metadata(*initial_metadata)

    def set_trailing_metadata(self, trailing_metadata: Any) -> None:
        self._trailing = Metadata(*trailing_metadata)

    def set_code(self, code: grpc.StatusCode) -> None:
        self._code = code

    def set_details(self, details: str) -> None:
        self._details = details

    def invocation_metadata(self) -> Metadata:
        return self._metadata

    def time_remaining(self) -> float | None:  # type: ignore[override] # the stubs forget calls without a deadline
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def trailing_metadata(self) -> Metadata:
        return self._trailing

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details

    def cancelled(self) -> bool:
        return self.done() and self.outcome.result().code is grpc.StatusCode.CANCELLED

    def done(self) -> bool:
        return self.outcome.done()

    def add_done_callback(self, callback: Callable[[Any], Any]) -> None:
        self._callbacks.append(callback)

    def peer(self) -> str:
        return "inprocess:"

    def peer_identities(self) -> None:
        return None

    def peer_identity_key(self) -> None:
        return None

    def auth_context(self) -> dict[str, Iterable[bytes]]:
        return {}

    def set_compression(self, compression: grpc.Compression) -> None:
        """Nothing is compressed on the way through memory."""

    def disable_next_message_compression(self) -> None:
        """As :meth:`set_compression`."""

    async def read(self) -> NoReturn:
        raise NotImplementedError(_UNARY_ONLY)

    async def write(self, message: Any) -> NoReturn:
        raise NotImplementedError(_UNARY_ONLY)


class _Call(grpc.aio.UnaryUnaryCall[Any, Any]):
    """A call under way, as its caller sees it."""

    def __init__(
        self,
        context: _Context,
        started: asyncio.Task[None] | Fault,
        timeout: float | None,
        deserialise: Callable[[bytes], Any],
    ) -> None:
        self._context, self._deserialise = context, deserialise
        self._cancelled_here = False
        self._task = None if isinstance(started, Fault) else started
        if isinstance(started, Fault):
            context.refuse(started)
        elif timeout is not None:
            timer = asyncio.get_running_loop().call_later(timeout, self._expire)
            context.outcome.add_done_callback(lambda _: timer.cancel())

    def __await__(self) -> Generator[Any, None, Any]:
        try:
            outcome = yield from asyncio.shield(self._context.outcome).__await__()
        except asyncio.CancelledError:
            self.cancel()
            raise
        if self._cancelled_here:
            raise asyncio.CancelledError
        if outcome.code is not grpc.StatusCode.OK:
            raise AioRpcError(outcome.code, outcome.initial, outcome.trailing, outcome.details)
        if len(outcome.response) > MAX_RESPONSE_BYTES:
            raise AioRpcError(grpc.StatusCode.RESOURCE_EXHAUSTED, details="the response is larger than allowed")
        return self._deserialise(outcome.response)

    def _expire(self) -> None:
        self._end(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")

    def _end(self, code: grpc.StatusCode, details: str) -> None:
        self._context.end(code, details)
        if self._task is not None:
            self._task.cancel()

    def cancel(self) -> bool:
        if self.done():
            return False
        self._cancelled_here = True
        self._end(grpc.StatusCode.CANCELLED, "Locally cancelled by application!")
        return True

    def cancelled(self) -> bool:
        return self._context.cancelled()

    def done(self) -> bool:
        return self._context.done()

    def time_remaining(self) -> float | None:
        return self._context.time_remaining()

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self._context.outcome.add_done_callback(lambda _: callback(self))

    async def _outcome(self) -> _Outcome:
        return await asyncio.shield(self._context.outcome)

    async def initial_metadata(self) -> Metadata:
        return (await self._outcome()).initial

    async def trailing_metadata(self) -> Metadata:
        return (await self._outcome()).trailing

    async def code(self) -> grpc.StatusCode:
        return (await self._outcome()).code

    async def details(self) -> str:
        return (await self._outcome()).details

    async def wait_for_connection(self) -> None:
        """There is nothing to wait for."""


class _Unary(grpc.aio.UnaryUnaryMultiCallable[Any, Any]):
    def __init__(
        self,
        hub: InprocessHub,
        declared: Principal | None,
        path: str,
        serialise: Callable[[Any], bytes],
        deserialise: Callable[[bytes], Any],
    ) -> None:
        self._hub, self._declared, self._path = hub, declared, path
        self._serialise, self._deserialise = serialise, deserialise

    def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,  # noqa: ARG002 - nothing to authenticate to but ourselves
        wait_for_ready: bool | None = None,  # noqa: ARG002 - always ready
        compression: grpc.Compression | None = None,  # noqa: ARG002 - nothing to compress for
    ) -> _Call:
        deadline = None if timeout is None else time.monotonic() + timeout
        context = _Context(Metadata(*(metadata or ())), deadline, self._declared)
        started = self._hub.dispatch(self._path, self._serialise(request), context)
        return _Call(context, started, timeout, self._deserialise)


_UNARY_ONLY = "The in-process channel carries unary calls only: open a unix socket for this method."


def _refuse_streams(*_: Any, **__: Any) -> NoReturn:
    raise NotImplementedError(_UNARY_ONLY)


class _Channel(grpc.aio.Channel):
    def __init__(self, hub: InprocessHub, declared: Principal | None) -> None:
        self._hub, self._declared = hub, declared

    def unary_unary(  # type: ignore[override] # grpc's stubs leave out what generated code passes
        self,
        method: str,
        request_serializer: Callable[[Any], bytes] = bytes,
        response_deserializer: Callable[[bytes], Any] = bytes,
        _registered_method: bool = False,
    ) -> _Unary:
        return _Unary(self._hub, self._declared, method, request_serializer, response_deserializer)

    def unary_stream(self, *_: Any, **__: Any) -> Any:
        return _refuse_streams  # stubs make all their callables at once: only a call is refused

    def stream_unary(self, *_: Any, **__: Any) -> Any:
        return _refuse_streams

    def stream_stream(self, *_: Any, **__: Any) -> Any:
        return _refuse_streams

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        """Nothing is held: the hub owns what runs."""

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:  # noqa: ARG002 - grpc's signature
        return grpc.ChannelConnectivity.READY

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """The state never changes, so waiting for the one it has never ends."""
        if last_observed_state is grpc.ChannelConnectivity.READY:
            await asyncio.get_running_loop().create_future()

    async def channel_ready(self) -> None:
        """It always is."""
