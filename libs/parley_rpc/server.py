"""One gRPC server as every Parley service runs it: guarded, bounded, with health and reflection."""

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NoReturn

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from structlog.typing import FilteringBoundLogger

from parley_kit.clock import Clock
from parley_kit.telemetry import SILENT, Tracer
from parley_rpc.chain import Bound, Context, Handler, refuse
from parley_rpc.channels import MAX_METADATA_BYTES, CannotListen, PlaintextRefused, is_local
from parley_rpc.health import Health
from parley_rpc.interceptors import standard
from parley_rpc.interceptors.leaving import Leaving
from parley_rpc.metrics import Metrics
from parley_rpc.principal import Authenticator, Principal
from parley_rpc.status import Unimplemented
from parley_rpc.zones import Zones

MAX_REQUEST_BYTES = 1024 * 1024


def _arriving(max_request_bytes: int) -> int:
    """
    How many bytes of a request arrive where so many are taken.

    What gRPC refuses by itself it refuses without a reason, so half as much again arrives, and the chain refuses it as TOO_LARGE.
    No more, because what has arrived is held in memory before anybody's permission is known, a hundred times for each connection.
    """
    return max_request_bytes * 3 // 2


# Why each: a default server kept half-open connections for ever, took anonymous clients' unlimited streams, and sent
# GOAWAY to clients that keep their connection alive. The age makes clients find new replicas. Of the time that an unanswered
# ping may take, gRPC 1.85 heeds only what stands under ping_timeout (a minute, unless set), so both names are set. What is
# called overload protection counts a stream that was reset until it is forgotten: without it, opening and resetting streams
# without end fills the queue in which everybody's calls wait.
OPTIONS: Mapping[str, int] = {
    "grpc.max_concurrent_streams": 100,
    "grpc.http.overload_protection": 1,
    "grpc.server_handshake_timeout_ms": 5_000,
    "grpc.http2.settings_timeout": 5_000,
    "grpc.max_connection_idle_ms": 300_000,
    "grpc.max_connection_age_ms": 300_000,
    "grpc.max_connection_age_grace_ms": 30_000,
    "grpc.keepalive_time_ms": 60_000,
    "grpc.keepalive_timeout_ms": 10_000,
    "grpc.http2.ping_timeout_ms": 10_000,
    "grpc.http2.min_ping_interval_without_data_ms": 10_000,
    "grpc.max_metadata_size": MAX_METADATA_BYTES,
    "grpc.so_reuseport": 0,
}


Declare = Callable[[Context], Principal | None]
"""Says who calls by the way they came; None leaves it to the call's token."""


@dataclass(frozen=True, slots=True)
class Registration:
    """A servicer and the generated ``add_...Servicer_to_server`` that registers it."""

    add: Callable[[Any, grpc.aio.Server], None]
    servicer: object


class Server(grpc.aio.Server):
    """
    A ``grpc.aio.Server`` that can't be opened past its guards: no handler joins later, no plaintext leaves the machine.

    Every service is SERVING from :meth:`start` to :meth:`drain`, but for what ``health`` is told meanwhile.
    """

    def __init__(self, inner: grpc.aio.Server, services: Iterable[str], health: Health, leaving: Leaving) -> None:
        self._inner = inner
        self._services = tuple(services)
        self._leaving = leaving
        self.health = health

    def add_generic_rpc_handlers(self, *_: object, **__: object) -> NoReturn:
        """Raise TypeError: a handler added now would stand outside the chain; give it to ``build_server``."""
        raise TypeError("register through build_server: a handler added later would skip the allow list")

    def add_registered_method_handlers(self, *_: object, **__: object) -> NoReturn:
        """Raise TypeError, as :meth:`add_generic_rpc_handlers`."""
        self.add_generic_rpc_handlers()

    def add_insecure_port(self, address: str) -> int:
        """Listen on ``unix:/path`` or a loopback address; the port. Raises CannotListen, and PlaintextRefused for others."""
        if not is_local(address):
            raise PlaintextRefused(address)
        with _listening(address):
            return self._inner.add_insecure_port(address)

    def add_secure_port(self, address: str, server_credentials: grpc.ServerCredentials) -> int:
        """Listen with TLS; the port. Raises CannotListen."""
        with _listening(address):
            return self._inner.add_secure_port(address, server_credentials)

    async def start(self) -> None:
        """Serve, and say so."""
        await self._inner.start()
        for service in self._services:
            self.health.tell(service, serves=True)

    async def stop(self, grace: float | None) -> None:
        """Take no new call; cut what is still under way after ``grace`` seconds."""
        await self._inner.stop(grace)

    async def drain(self, *, announce: float = 5.0, grace: float = 20.0) -> None:
        """
        Say NOT_SERVING, keep serving ``announce`` seconds so that balancers notice, then stop within ``grace``.

        Calls have ``grace`` seconds to end; streams, which wouldn't, end at once.
        """
        self.health.end()
        await asyncio.sleep(announce)
        self._leaving.end()
        await self.stop(grace)

    async def wait_for_termination(self, timeout: float | None = None) -> bool:  # noqa: ASYNC109 - grpc's signature
        """Wait until the server has stopped; True if ``timeout`` seconds came first."""
        return await self._inner.wait_for_termination(timeout)


@contextlib.contextmanager
def _listening(address: str) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:  # all that gRPC raises
        raise CannotListen(address) from error


def build_server(
    registrations: Iterable[Registration],
    *,
    authenticate: Authenticator,
    clock: Clock,
    zones: Zones,
    metrics: Metrics,
    log: FilteringBoundLogger,
    max_request_bytes: int = MAX_REQUEST_BYTES,
    declare: Declare = lambda _context: None,
    options: Mapping[str, int] = MappingProxyType({}),
    tracer: Tracer = SILENT.tracer,
) -> Server:
    """
    Make a server with its services behind the standard chain. It still needs a port and :meth:`Server.start`.

    Where ``declare`` says who calls, tokens are not looked at. ``options`` are channel arguments of gRPC's that stand in place
    of :data:`OPTIONS`, as where a test can't wait so long.

    Raises ValueError for a service registered twice, TypeError for a method that takes a stream of requests.
    """
    arriving = {"grpc.max_receive_message_length": _arriving(max_request_bytes)}
    inner = grpc.aio.server(options=[*{**OPTIONS, **arriving, **options}.items()])
    health, leaving = Health(), Leaving()
    checks = Registration(health_pb2_grpc.add_HealthServicer_to_server, health)
    chain = standard(
        authenticate=authenticate,
        clock=clock,
        zones=zones,
        metrics=metrics,
        log=log,
        max_request_bytes=max_request_bytes,
        tracer=tracer,
        leaving=leaving,
    )
    services = collect([*registrations, checks])
    for service, handlers in services.items():
        guarded = {
            name: _serving(handler, chain.bind(service, f"/{service}/{name}", handler), declare)
            for name, handler in handlers.items()
        }
        # Not as "registered" methods, too: with each call gRPC would wait anew for a task of every method that is served.
        inner.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, guarded)])
    # Reflection is the one service outside the chain: it takes a stream of requests and answers what is public anyway.
    reflection.enable_server_reflection([*services, reflection.SERVICE_NAME], inner)
    inner.add_generic_rpc_handlers([_Unknown()])
    return Server(inner, services, health, leaving)


def collect(registrations: Iterable[Registration]) -> dict[str, dict[str, Handler]]:
    """The handlers of each service, by method name. Raises ValueError for a service registered twice."""
    collector = _Collector()
    for registration in registrations:
        # The generated function calls one method of a server, which is all that the collector has.
        registration.add(registration.servicer, collector)  # type: ignore[arg-type]
    return collector.services


class _Collector:
    def __init__(self) -> None:
        self.services: dict[str, dict[str, Handler]] = {}

    def add_registered_method_handlers(self, service_name: str, method_handlers: Mapping[str, Handler]) -> None:
        if service_name in self.services:
            raise ValueError(f"{service_name} is registered twice")
        self.services[service_name] = dict(method_handlers)

    def add_generic_rpc_handlers(self, generic_rpc_handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        """The same handlers again, by the older way of registering."""


class _Unknown(grpc.GenericRpcHandler):
    """Answers methods that nobody serves, so that this refusal has its details like any other."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler:  # noqa: ARG002 - grpc's signature
        return grpc.unary_unary_rpc_method_handler(_unimplemented)


async def _unimplemented(_request: bytes, context: Context) -> None:
    await refuse(context, Unimplemented())


def _serving(handler: Handler, bound: Bound, declare: Declare) -> Handler:
    async def serve(request: bytes, context: Context) -> bytes | None:
        with contextlib.suppress(grpc.aio.AbortError):  # the status is on its way: grpc would log the unwinding
            return await bound(request, context, declare(context))
        return None

    if handler.response_streaming:
        return grpc.unary_stream_rpc_method_handler(serve, response_serializer=handler.response_serializer)
    return grpc.unary_unary_rpc_method_handler(serve)
