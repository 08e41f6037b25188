"""
Every service in one process, on embedded or given servers.

They talk over the in-process channel, which keeps what a network would: bytes, deadlines, guards and who is calling. One process
is one memory: this is for trying and testing, not for the separation of zones.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from types import MappingProxyType
from typing import Any

import grpc
from prometheus_client import CollectorRegistry
from pydantic_settings import BaseSettings
from structlog.typing import FilteringBoundLogger

import parley_audit.app
import parley_audit.config
import parley_broker.app
import parley_broker.config
import parley_consent.app
import parley_consent.config
import parley_identity.app
import parley_identity.config
import parley_vault.app
import parley_vault.config
from parley_bus.bus import Bus
from parley_crypto.keyfiles import read_secret
from parley_crypto.trust import Trust
from parley_kit.clock import Clock, SystemClock
from parley_kit.faultpoints import ahead
from parley_kit.telemetry import Telemetry, Tracer
from parley_node.home import Home, Running
from parley_node.provision import ORIGIN, provision, zone_keys
from parley_node.services import SERVICES
from parley_node.stores import Servers, dsn, prepare, servers_of
from parley_rpc import http
from parley_rpc.calling import calling
from parley_rpc.health import follow
from parley_rpc.inproc import InprocessHub
from parley_rpc.metrics import Metrics
from parley_rpc.platform import Platform, Service
from parley_rpc.server import Server, build_server
from parley_rpc.serving import PEER_REQUEST_BYTES, running, tracing
from parley_rpc.settings import SettingsWrong, read_settings
from parley_rpc.tokens import bearer
from parley_rpc.zones import Zones


@dataclass(frozen=True)
class Options:
    """
    How a node is run.

    Port 0 is any free one. Services that run apart serve their metrics from ``metrics_port`` on, one after the other.
    ``traces`` is where spans are sent. ``settings`` overrides services' settings by service and name.
    """

    host: str = "127.0.0.1"
    port: int = 7400
    http_port: int = 7401
    metrics_port: int = 0
    traces: str | None = None
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    processes: Mapping[str, int] = field(default_factory=dict)
    """How many processes a service has where services run apart; one where nothing is said."""
    faults: Callable[[str], str] = lambda _process: ""
    """For tests: the fault points that a process (``broker``, ``broker-2``) is armed with, asked for at each start of it."""

    def told(self) -> Sequence[str]:
        """What tells `parley up` of these, but for what is so by default."""
        given = {name: getattr(self, name) for name in ("host", "port", "http_port", "metrics_port", "traces")}
        return [
            word
            for name, value in given.items()
            if value != getattr(Options, name) and "@" not in str(value)  # a password in a URL is kept nowhere
            for word in (f"--{name.replace('_', '-')}", str(value))
        ]


@dataclass(frozen=True)
class Node:
    """A running node: where it answers, what it stands on, and how to call it from within."""

    running: Running
    servers: Servers
    services: Mapping[str, Service]
    hub: InprocessHub
    tasks: asyncio.Task[None]

    async def serve(self) -> None:
        """Stay until a task ends, which none should: its error comes out here."""
        await self.tasks


@asynccontextmanager
async def run(
    home: Home,
    options: Options,
    log: FilteringBoundLogger,
    *,
    clock: Clock | None = None,
    tracer: Tracer | None = None,
    told: Callable[[str], None] = lambda _step: None,
) -> AsyncIterator[Node]:
    """
    Run everything for the length of a block. ``told`` hears each step of starting, for whoever watches.

    Given a ``clock``, all services go by it; given a ``tracer``, it has their spans.
    """
    async with AsyncExitStack() as stack:
        told("keys")
        provision(home)
        told("PostgreSQL and Valkey")
        pair = await stack.enter_async_context(servers_of(home, log))
        told("databases")
        zones = Zones.load()
        await prepare(pair, home, zones, SERVICES)
        hub, metrics = InprocessHub(), Metrics(CollectorRegistry())
        if tracer is None:
            tracer = await stack.enter_async_context(tracing(options.traces, "parley"))
        authenticate = bearer(Trust.load(home.trust), clock or SystemClock())
        stack.push_async_callback(hub.close)
        services: dict[str, Service] = {}
        for name in SERVICES:
            told(name)
            bus = await stack.enter_async_context(_bus(pair, home, name))
            own_clock = clock or SystemClock(timedelta(seconds=ahead(f"{name}.clock")))
            telemetry = Telemetry(metrics.of(name, own_clock), tracer)
            channel = calling(_channels(hub, name), own_clock, tracer)
            platform = Platform(own_clock, bus, channel, log.bind(service=name), telemetry)
            service = await stack.enter_async_context(_build(name, home, pair, platform, options))
            services[name] = service
            hub.register(
                service.registrations,
                authenticate=authenticate,
                clock=own_clock,
                zones=zones,
                metrics=metrics,
                log=platform.log,
                max_request_bytes=PEER_REQUEST_BYTES,
                tracer=tracer,
            )
        server = build_server(
            [registration for service in services.values() for registration in service.registrations],
            authenticate=authenticate,
            clock=clock or SystemClock(),
            zones=zones,
            metrics=metrics,
            log=log,
            tracer=tracer,
        )
        healths = [partial(follow, [server.health], name, service.pings) for name, service in services.items()]
        tasks = await stack.enter_async_context(running(services, metrics.watch_loop, *healths))
        told("the log and metrics over HTTP")
        log_address = await stack.enter_async_context(_http(services["audit"].http, options.host, options.http_port))
        metrics_address = await stack.enter_async_context(_http(metrics.app(), options.host, options.metrics_port))
        told("gRPC")
        address = await stack.enter_async_context(_grpc(server, options))
        metrics_of = dict.fromkeys(SERVICES, f"{metrics_address}/metrics")
        now = Running(address, log_address, os.getpid(), metrics_of, options.told())
        home.started(now)
        stack.callback(home.stopped)
        yield Node(now, pair, services, hub, tasks)


def _http(app: Any, host: str, port: int) -> AbstractAsyncContextManager[str]:
    return http.serving(app, http.listen(f"{host}:{port}"))


def _channels(hub: InprocessHub, me: str) -> Callable[[str], grpc.aio.Channel]:
    """In one process every service is on the hub; what differs is who calls."""
    return lambda _service: hub.channel(me)


def _bus(pair: Servers, home: Home, name: str) -> AbstractAsyncContextManager[Bus]:
    password = read_secret(home.valkey_password(name))
    return Bus.open(pair.valkey_address, user=f"parley_{name}", password=password)


def _build(
    name: str, home: Home, pair: Servers, platform: Platform, options: Options
) -> AbstractAsyncContextManager[Service]:
    _config, build = _BUILDERS[name]
    return build(configure(name, home, dsn(pair, home, name), options.settings.get(name, {})), platform)


def configure(name: str, home: Home, postgres_dsn: str, given: Mapping[str, Any] = MappingProxyType({})) -> Any:
    """
    A service's settings on this home: keys and database, what is given, the environment for the rest. Raises SettingsWrong.

    Also for what the environment says and nobody would heed, because it is the home's to say.
    """
    (config, _build), own = _BUILDERS[name], _settings(name, home, postgres_dsn)
    refuse_set(config, own)
    return read_settings(config, {**own, **given})


def check_settings(home: Home) -> None:
    """Read every service's settings on this home, before anything is started. Raises SettingsWrong."""
    for name in SERVICES:
        configure(name, home, "postgresql:///not-known-yet")


def refuse_set(kind: type[BaseSettings], names: Iterable[str]) -> None:
    """Refuse settings that the environment has and nobody would heed. Raises SettingsWrong, which names one."""
    prefix = str(kind.model_config["env_prefix"])
    unheeded = {(prefix + name).upper() for name in names}
    for variable in os.environ:
        if variable.upper() in unheeded:
            raise SettingsWrong(f"{variable}: is for `parley serve`; `parley up` sets it by itself")


_BUILDERS: Mapping[str, tuple[type[BaseSettings], Callable[..., AbstractAsyncContextManager[Service]]]] = {
    "identity": (parley_identity.config.Config, parley_identity.app.build),
    "vault": (parley_vault.config.Config, parley_vault.app.build),
    "consent": (parley_consent.config.Config, parley_consent.app.build),
    "broker": (parley_broker.config.Config, parley_broker.app.build),
    "audit": (parley_audit.config.Config, parley_audit.app.build),
}


def _settings(name: str, home: Home, postgres_dsn: str) -> dict[str, Any]:
    """A service's settings on this home: its own keys, and nobody else's."""
    common = {"postgres_dsn": postgres_dsn, "trust": home.trust, **zone_keys(home, name)}
    if name == "identity":
        return {**common, "operators": home.staff}
    if name == "audit":
        return {**common, "origin": ORIGIN, "published": home.published}
    return common


@asynccontextmanager
async def _grpc(server: Server, options: Options) -> AsyncIterator[str]:
    port = server.add_insecure_port(f"{options.host}:{options.port}")
    await server.start()
    try:
        yield f"{options.host}:{port}"
    finally:
        await server.drain(announce=0.0, grace=2.0)


def fast_notices() -> Mapping[str, Mapping[str, Any]]:
    """Settings for trying Parley: notices of withdrawal come within seconds, which would join them to the act."""
    return {"consent": {"longest_notice_delay": timedelta(seconds=2)}}
