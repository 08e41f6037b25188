"""
Every service in a process of its own, on embedded or given servers.

This process owns the servers, makes keys, certificates and databases, and keeps the services' processes running. Each of them is
told its own settings and inherits nothing else; it reads its own secrets, and calls others over unix sockets with certificates.
"""

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from signal import SIGTERM
from types import MappingProxyType
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pydantic_settings import BaseSettings
from structlog.typing import FilteringBoundLogger

from parley_node.embedded.errors import ServersUnavailable
from parley_node.embedded.paths import create_sockets, sockets_of
from parley_node.embedded.postgres import listener_of
from parley_node.embedded.supervise import Launch, Supervisor, kept_running
from parley_node.home import Home, Running
from parley_node.node import Options, configure
from parley_node.provision import certify, provision
from parley_node.services import SERVICES
from parley_node.stores import Servers, dsn, prepare, servers_of
from parley_rpc import http
from parley_rpc.channels import connect
from parley_rpc.serving import Serving
from parley_rpc.settings import read_settings
from parley_rpc.zones import Zones

_INHERITED = ("PATH", "PYTHONPATH", "LANG", "LC_ALL", "TZ", "PARLEY_FAULTS")
_QUIET = {"GRPC_VERBOSITY": "NONE"}  # gRPC's own lines would stand between those of the log
_PATIENCE_S = 30.0
_POLL_S = 0.02


@dataclass(frozen=True)
class ApartNode:
    """A running node whose services run apart: where it answers, and what it stands on."""

    running: Running
    servers: Servers
    doors: "Doors"

    async def serve(self) -> None:
        """Stay: a service that dies is started again for as long as it takes."""
        await asyncio.Event().wait()


@dataclass(frozen=True)
class Doors:
    """Where services answer: each in a directory of its own, which only this user of the machine may enter."""

    root: Path
    processes: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, home: Home, processes: Mapping[str, int] = MappingProxyType({})) -> "Doors":
        """Where those of a home do."""
        return cls(sockets_of(home.root), processes)

    @property
    def address(self) -> str:
        """The public doors of all, of each service's first process."""
        return f"unix:{self.root}/{{service}}/public.sock"

    def of_service(self, service: str) -> "list[Process]":
        """A service's processes."""
        return [Process(service, number) for number in range(1, self.processes.get(service, 1) + 1)]

    def socket(self, service: str, number: int = 1) -> Path:
        """The socket of the public door of a service's process."""
        return self.root / service / f"public{_suffix(number)}.sock"

    def peer_socket(self, service: str, number: int = 1) -> Path:
        """The socket of its door for other services."""
        return self.root / service / f"peers{_suffix(number)}.sock"

    def public(self, service: str) -> str:
        """The public doors of all of a service's processes: one address, over which a channel balances."""
        return "unix:" + ",".join(str(self.socket(service, each.number)) for each in self.of_service(service))

    def peers(self, service: str) -> str:
        """Their doors for other services, likewise."""
        return "unix:" + ",".join(str(self.peer_socket(service, each.number)) for each in self.of_service(service))


@dataclass(frozen=True)
class Process:
    """One of a service's processes, of which there is one unless more are asked for."""

    service: str
    number: int = 1

    @property
    def name(self) -> str:
        """What it is called: as the service, and the second ``broker-2``."""
        return f"{self.service}{_suffix(self.number)}"


def _suffix(number: int) -> str:
    return "" if number == 1 else f"-{number}"


@asynccontextmanager
async def run_apart(
    home: Home,
    options: Options,
    log: FilteringBoundLogger,
    *,
    to_stderr: bool = False,
    told: Callable[[str], None] = lambda _step: None,
) -> AsyncIterator[ApartNode]:
    """
    Run everything, each service in a process, for the length of a block. ``told`` hears each step of starting.

    Services log to files of the home, or to this process's standard error; ``log`` is told which of them died. Raises
    ServersUnavailable when one doesn't start.
    """
    async with AsyncExitStack() as stack:
        told("keys and certificates")
        provision(home)
        certify(home, datetime.now(UTC))
        told("PostgreSQL and Valkey")
        pair = await stack.enter_async_context(servers_of(home, log))
        told("databases")
        zones, doors = Zones.load(), Doors.of(home, options.processes)
        await prepare(pair, home, zones, SERVICES)
        create_sockets(doors.root, SERVICES)
        log_listener = stack.enter_context(http.listen(f"{options.host}:{options.http_port}"))
        metrics = {name: stack.enter_context(_metrics(options, place)) for place, name in enumerate(SERVICES)}
        told(", ".join(SERVICES))
        listeners = Listeners(log_listener.fileno(), {name: each.fileno() for name, each in metrics.items()})
        children = Children(home, pair, options, zones, doors, listeners, log, to_stderr=to_stderr)
        await stack.enter_async_context(kept_running([children.supervisor(each) for each in children.all()]))
        await asyncio.gather(
            *(_serving(f"unix:{doors.socket(each.service, each.number)}", each) for each in children.all())
        )
        where = {name: f"{_url(each)}/metrics" for name, each in metrics.items()}
        now = Running(doors.address, _url(log_listener), os.getpid(), where, options.told())
        home.started(now)
        stack.callback(home.stopped)
        yield ApartNode(now, pair, doors)


def _metrics(options: Options, place: int) -> socket.socket:
    return http.listen(f"{options.host}:{options.metrics_port and options.metrics_port + place}")


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://{host}:{port}"


@dataclass(frozen=True)
class Listeners:
    """What this process listens on for its services, as descriptors: who comes while one is started again waits."""

    log: int
    metrics: Mapping[str, int]

    def of(self, name: str) -> tuple[int, ...]:
        """Those that one service takes over."""
        return (*((self.log,) if name == "audit" else ()), self.metrics[name])


@dataclass(frozen=True)
class Children:
    """The services' processes: what each is told, and how it is started."""

    home: Home
    pair: Servers
    options: Options
    zones: Zones
    doors: Doors
    listeners: Listeners
    log: FilteringBoundLogger
    to_stderr: bool

    def all(self) -> Iterator[Process]:
        """The processes of all services."""
        return (process for name in SERVICES for process in self.doors.of_service(name))

    def supervisor(self, process: Process) -> Supervisor:
        """Keeps one running."""
        launch, output = self.launch(process), None if self.to_stderr else self.home.log(process.name)
        lock = self.doors.root / process.service / f"lock{_suffix(process.number)}"
        return Supervisor(process.name, prepare=lambda: launch, lock=lock, output=output, log=self.log)

    def launch(self, process: Process) -> Launch:
        """How one is started."""
        told = self.environment(process.service, process.number)

        def environment() -> dict[str, str]:
            faults = self.options.faults(process.name)
            return {**told, "PARLEY_FAULTS": faults} if faults else told

        return Launch(
            command=[sys.executable, "-P", "-m", f"parley_{process.service}"],
            stop=SIGTERM,
            ready=partial(_listens, self.doors.socket(process.service, process.number)),
            environment=environment,
            descriptors=self.listeners.of(process.service),
        )

    def environment(self, name: str, number: int = 1) -> dict[str, str]:
        """All that one is told. Raises SettingsWrong."""
        config = configure(name, self.home, dsn(self.pair, self.home, name), self.options.settings.get(name, {}))
        serving = read_settings(Serving, self._serving(name, number))
        inherited = {key: os.environ[key] for key in _INHERITED if key in os.environ}
        return {**inherited, **_QUIET, **variables(config), **variables(serving)}

    def _serving(self, name: str, number: int) -> Mapping[str, Any]:
        called = any(name in self.zones.callees(caller) for caller in SERVICES)
        return {
            "public": f"unix:{self.doors.socket(name, number)}",
            "peers": f"unix:{self.doors.peer_socket(name, number)}" if called else None,
            "peer_addresses": {peer: self.doors.peers(peer) for peer in self.zones.callees(name)},
            "secrets": self.home.keys(name),
            "tls_certificate": self.home.tls_certificate(name),
            "tls_key": self.home.tls_key(name),
            "tls_authority": self.home.tls_authority,
            "valkey_url": self.pair.valkey_address,
            "valkey_user": f"parley_{name}",
            "valkey_password": self.home.valkey_password(name),
            "http": f"fd:{self.listeners.log}" if name == "audit" else None,
            "traces": self.options.traces,
            "metrics": f"fd:{self.listeners.metrics[name]}",
            "announce": 0,
            "grace": 2,
        }


def variables(settings: BaseSettings) -> dict[str, str]:
    """Settings as the environment variables that they are read from."""
    prefix, values = str(settings.model_config["env_prefix"]), settings.model_dump(mode="json", exclude_none=True)
    return {
        (prefix + name).upper(): json.dumps(value) if isinstance(value, dict) else str(value)
        for name, value in values.items()
    }


def _listens(socket: Path, pid: int) -> bool:
    return listener_of(socket) == pid


async def _serving(address: str, process: Process) -> None:
    """
    Wait until a service's process answers. Raises ServersUnavailable if it doesn't in time.

    Not until all that it needs answers, too: an audit that refuses to go on with its log is there to say so.
    """
    request = health_pb2.HealthCheckRequest()
    async with connect(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            async with asyncio.timeout(_PATIENCE_S):
                while (await stub.Check(request)).status != health_pb2.HealthCheckResponse.SERVING:  # noqa: ASYNC110 - not ours
                    await asyncio.sleep(_POLL_S)
        except (TimeoutError, grpc.RpcError) as error:
            raise ServersUnavailable(f"{process.name} started but doesn't serve: see its log") from error
