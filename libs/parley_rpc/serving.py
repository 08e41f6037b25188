"""
One service in a process of its own: what `parley serve` runs, and Kubernetes.

It has two doors. Customers, marketers and staff come to the public one and show tokens. Services come to the peers' one and show
certificates; a token there says nothing. All it is told comes from the environment; secrets are files.
"""

import asyncio
import gc
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeVar

from prometheus_client import CollectorRegistry
from pydantic import AnyHttpUrl, Field, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict
from structlog.typing import FilteringBoundLogger

from parley_bus.bus import Bus
from parley_crypto.certificates import CertificateUnusable
from parley_crypto.keyfiles import KeyFileUnusable, read_secret
from parley_crypto.trust import Trust, TrustUnusable
from parley_db.database import DatabaseUnusable
from parley_db.migrate import MigrationError
from parley_kit.clock import Clock, SystemClock
from parley_kit.faultpoints import ahead, arm_from
from parley_kit.faults import Unavailable
from parley_kit.telemetry import SILENT, Telemetry, Tracer
from parley_rpc import http
from parley_rpc.calling import calling
from parley_rpc.channels import CannotListen, PlaintextRefused, is_local
from parley_rpc.confine import ConfinementFailed, Listened, confine, is_open_to_all, named_in
from parley_rpc.descriptors import allow_many
from parley_rpc.health import follow
from parley_rpc.logs import adopt_libraries, logger
from parley_rpc.metrics import Metrics
from parley_rpc.peers import Credentials, Peers, by_certificate
from parley_rpc.platform import Platform, Service, Task
from parley_rpc.principal import Authenticator
from parley_rpc.server import Server, build_server
from parley_rpc.settings import SettingsWrong, read_settings
from parley_rpc.tokens import bearer
from parley_rpc.zones import Zones

PEER_REQUEST_BYTES = 4 * 1024 * 1024
"""Services send batches."""

_CREDENTIALS = "PARLEY_SERVE_TLS_CERTIFICATE, _KEY and _AUTHORITY"
_AWAY_S = 1.0
_LAST_WORDS = timedelta(seconds=5)
"""For what is left to close once all calls are over."""


class Serving(BaseSettings):
    """Read from ``PARLEY_SERVE_*`` in the environment; secrets are file paths."""

    model_config = SettingsConfigDict(env_prefix="PARLEY_SERVE_", frozen=True)

    public: Annotated[str, Listened()]
    """Where customers, marketers and staff call: `unix:/path`, or `host:port`, with TLS unless it is on this machine."""

    peers: Annotated[str | None, Listened()] = None
    """Where other services call, with certificates: `unix:/path` or `host:port`. Without it none can."""

    peer_addresses: dict[str, str] = Field(default_factory=dict)
    """Where the services are that this one calls, as a JSON object: `{"vault": "dns:///vault:9090"}`."""

    secrets: Path
    """The directory of this service's secrets: of everybody's, the only one that its process can read from."""

    tls_certificate: Path | None = None
    """Says who this service is: a certificate (PEM) with the names `spiffe://parley/SERVICE` and, for DNS, `SERVICE`."""

    tls_key: Path | None = None
    """The key of that certificate (PEM)."""

    tls_authority: Path | None = None
    """Who signs services' certificates (PEM)."""

    valkey_url: str
    """Where Valkey or Redis is; it names no user."""

    valkey_user: str
    """This service's user there."""

    valkey_password: Path
    """Holds that user's password."""

    http: str | None = None
    """Where audit serves its log: `host:port`, or `fd:N` for a socket that whoever starts it listens on already."""

    metrics: str | None = None
    """Where metrics are served (Prometheus), to whoever gets there: `host:port`, or `fd:N` as above. Without it nowhere."""

    traces: AnyHttpUrl | None = None
    """Where spans are sent (OpenTelemetry, OTLP over HTTP): `http://host:4318/v1/traces`. Without it none are made."""

    announce: timedelta = Field(default=timedelta(seconds=5), ge=timedelta(0))
    """How long it goes on after saying that it stops, so that balancers notice."""

    grace: timedelta = Field(default=timedelta(seconds=20), ge=timedelta(0))
    """How long calls that are under way then have to end; streams end at once."""

    @field_validator("secrets")
    @classmethod
    def _kept_apart(cls, secrets: Path) -> Path:
        if is_open_to_all(secrets):
            raise PydanticCustomError("open_to_all", "in /etc and /usr every service may read: keep them elsewhere")
        return secrets

    def credentials(self) -> Credentials | None:
        """What services are known by; None where it isn't set. Raises SettingsWrong and KeyFileUnusable."""
        if self.tls_certificate is None or self.tls_key is None or self.tls_authority is None:
            if self.tls_certificate or self.tls_key or self.tls_authority:
                raise SettingsWrong(f"{_CREDENTIALS}: set all three or none")
            return None
        try:
            return Credentials.load(self.tls_certificate, self.tls_key, self.tls_authority)
        except OSError as error:
            raise SettingsWrong(f"{_CREDENTIALS}: {error.filename}: {error.strerror}") from error
        except CertificateUnusable as error:
            raise SettingsWrong(f"{_CREDENTIALS}: {error}") from None


class Config(Protocol):
    """What is asked of every service's settings."""

    @property
    def trust(self) -> Path:
        """The key set that tokens are checked with."""


C = TypeVar("C", bound=BaseSettings)
Build = Callable[[Any, Platform], AbstractAsyncContextManager[Service]]


_NOT_DEFECTS = (
    *(SettingsWrong, ConfinementFailed, KeyFileUnusable, TrustUnusable, MigrationError),
    *(DatabaseUnusable, PlaintextRefused, CannotListen),
)


def arm() -> None:
    """Arm the fault points that ``PARLEY_FAULTS`` in the environment names. Raises SettingsWrong."""
    try:
        arm_from(os.environ.get("PARLEY_FAULTS", ""))
    except ValueError as error:
        raise SettingsWrong(f"PARLEY_FAULTS: {error}") from None


def main(name: str, config: type[C], build: Build) -> None:
    """Serve until SIGTERM or SIGINT; ends the process. What stops a start is said in a sentence, a defect by its types."""
    log = logger(name)
    adopt_libraries(log)
    allow_many()
    try:
        settings, own, zones = read_settings(Serving), read_settings(config), Zones.load()
        arm()
        if confine(named_in([settings, own])):  # before any thread, and before any key is read
            log.info("confined")
        else:
            log.warning("not_confined")
        asyncio.run(serve(name, own, build, settings=settings, zones=zones, log=log))  # type: ignore[arg-type] # every Config has a trust
    except _NOT_DEFECTS as error:
        sys.exit(f"{name}: {error}")
    except Exception:
        log.exception("ended")
        sys.exit(1)


async def serve(
    name: str, config: Config, build: Build, *, settings: Serving, zones: Zones, log: FilteringBoundLogger
) -> None:
    """Serve one service until the process is told to stop. Raises what a task of it raises, and none should."""
    told = _signals()
    async with AsyncExitStack() as stack:
        clock, metrics = SystemClock(timedelta(seconds=ahead(f"{name}.clock"))), Metrics(CollectorRegistry())
        tracer = await stack.enter_async_context(
            tracing(str(settings.traces) if settings.traces else None, f"parley-{name}")
        )
        guards = Guards(bearer(Trust.load(config.trust), clock), clock, zones, metrics, log, tracer)
        telemetry = Telemetry(metrics.of(name, clock), tracer)
        credentials = settings.credentials()
        bus = await stack.enter_async_context(_bus(settings))
        peers = await stack.enter_async_context(_peers(settings, credentials))
        platform = Platform(clock, bus, calling(peers.channel, clock, tracer), log, telemetry)
        service = await _begun(lambda: stack.enter_async_context(build(config, platform)), told, log)
        if service is None:
            return
        doors = _doors(service, settings, guards, credentials)
        health = partial(follow, [door.health for door in doors], name, service.pings)
        tasks = await stack.enter_async_context(running({name: service}, metrics.watch_loop, health))
        await stack.enter_async_context(_http(service.http, settings.http))
        await stack.enter_async_context(_http(metrics.app(), settings.metrics))
        await stack.enter_async_context(_open(doors, settings))
        log.info("serving")
        await _either(told.wait(), tasks)
        log.info("stopping")
        _watch(settings.announce + settings.grace + _LAST_WORDS)


async def _begun(
    begin: Callable[[], Awaitable[Service]], told: asyncio.Event, log: FilteringBoundLogger
) -> Service | None:
    """Begin once what the service stands on is there, so that all start in any order; None where it is told to stop before."""
    waits = False
    while not told.is_set():
        try:
            return await begin()
        except Unavailable as fault:
            if not waits:
                log.warning("waiting", error_type=f"{type(fault).__name__} < {type(fault.__cause__).__name__}")
            waits = True
        with suppress(TimeoutError):
            await asyncio.wait_for(told.wait(), _AWAY_S)
    return None


@dataclass(frozen=True)
class Guards:
    """What stands before a service's handlers at each of its doors."""

    authenticate: Authenticator
    clock: Clock
    zones: Zones
    metrics: Metrics
    log: FilteringBoundLogger
    tracer: Tracer

    def server(self, service: Service, **more: Any) -> Server:
        """A server at which all of a service's RPCs can be called."""
        return build_server(
            service.registrations,
            authenticate=self.authenticate,
            clock=self.clock,
            zones=self.zones,
            metrics=self.metrics,
            log=self.log,
            tracer=self.tracer,
            **more,
        )


@asynccontextmanager
async def running(services: Mapping[str, Service], *more: Task) -> AsyncIterator[asyncio.Task[None]]:
    """
    Run services' tasks, and ``more``, for the length of a block.

    The first that fails ends the others, and its error comes out here.
    """

    async def together() -> None:
        async with asyncio.TaskGroup() as group:
            for body in more:
                group.create_task(_forever(body))
            for name, service in services.items():
                for task, body in service.tasks.items():
                    group.create_task(_forever(body), name=f"{name}.{task}")

    # What is here by now stays as long as the services: modules, descriptors, vault's index. To look for garbage in all of it
    # would stop everybody for a tenth of a second every few thousand customers.
    gc.collect()
    gc.freeze()
    tasks = asyncio.create_task(together(), name="services")
    try:
        yield tasks
    finally:
        tasks.cancel()
        await asyncio.gather(tasks, return_exceptions=True)
        gc.unfreeze()


async def _forever(body: Task) -> None:
    await body()


@asynccontextmanager
async def tracing(endpoint: str | None, name: str) -> AsyncIterator[Tracer]:
    """What makes spans for a process of a name, if somebody takes them. Raises SettingsWrong where that isn't installed."""
    if endpoint is None:
        yield SILENT.tracer
        return
    try:
        otlp = import_module("parley_rpc.tracing")  # nobody else pays for loading it
        spans = otlp.sending(endpoint, name)
    except ImportError as error:
        raise SettingsWrong("to send traces needs `pip install '.[otel]'` in Parley's folder") from error
    try:
        yield spans
    finally:
        await asyncio.to_thread(spans.close)


def _bus(settings: Serving) -> AbstractAsyncContextManager[Bus]:
    password = read_secret(settings.valkey_password)
    return Bus.open(settings.valkey_url, user=settings.valkey_user, password=password)


@asynccontextmanager
async def _peers(settings: Serving, credentials: Credentials | None) -> AsyncIterator[Peers]:
    peers = Peers(settings.peer_addresses, credentials.client() if credentials else None)
    try:
        yield peers
    finally:
        await peers.close()


@asynccontextmanager
async def _http(app: Any, address: str | None) -> AsyncIterator[None]:
    """What is served beside gRPC, where settings say so."""
    if app is None or address is None:
        yield
        return
    async with http.serving(app, http.listen(address)):
        yield


def _doors(service: Service, settings: Serving, guards: Guards, credentials: Credentials | None) -> list[Server]:
    doors = [_public(service, settings, guards, credentials)]
    if settings.peers:
        doors.append(_inner(service, settings.peers, guards, credentials))
    return doors


@asynccontextmanager
async def _open(doors: Sequence[Server], settings: Serving) -> AsyncIterator[None]:
    """Doors that are open for the length of a block, and drained at its end."""
    for door in doors:
        await door.start()
    try:
        yield
    finally:
        announce, grace = settings.announce.total_seconds(), settings.grace.total_seconds()
        await asyncio.gather(*(door.drain(announce=announce, grace=grace) for door in doors))


def _public(service: Service, settings: Serving, guards: Guards, credentials: Credentials | None) -> Server:
    door = guards.server(service)
    if is_local(settings.public):
        door.add_insecure_port(settings.public)
    else:
        door.add_secure_port(settings.public, _required(credentials, "PARLEY_SERVE_PUBLIC").server(callers=False))
    return door


def _inner(service: Service, address: str, guards: Guards, credentials: Credentials | None) -> Server:
    door = guards.server(service, max_request_bytes=PEER_REQUEST_BYTES, declare=by_certificate(guards.zones))
    door.add_secure_port(address, _required(credentials, "PARLEY_SERVE_PEERS").server())
    return door


def _required(credentials: Credentials | None, setting: str) -> Credentials:
    if credentials is None:
        raise SettingsWrong(f"{setting}: needs {_CREDENTIALS}")
    return credentials


def _signals() -> asyncio.Event:
    """Hears SIGTERM and SIGINT: gRPC's own way with Ctrl-C waits for ever while a call is under way."""
    told = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    return told


async def _either(told: Coroutine[Any, Any, Any], tasks: asyncio.Task[None]) -> None:
    """Wait for the one, or for the other to end, whose error comes out."""
    stopping = asyncio.create_task(told)
    await asyncio.wait({stopping, tasks}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if tasks.done():
        tasks.result()


def _watch(patience: timedelta) -> None:
    """End the process by force if it isn't gone by then."""
    timer = threading.Timer(patience.total_seconds(), os._exit, (1,))
    timer.daemon = True
    timer.start()
