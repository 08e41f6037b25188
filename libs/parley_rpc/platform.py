"""What a service is given, and what it gives back: the two sides of every composition root."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
from structlog.typing import FilteringBoundLogger

from parley_bus.bus import Bus
from parley_kit.clock import Clock
from parley_kit.telemetry import Telemetry
from parley_rpc.health import Ping
from parley_rpc.server import Registration

Task = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Platform:
    """What every service stands on. ``channel(name)`` is a channel to that service on which this one calls."""

    clock: Clock
    bus: Bus
    channel: Callable[[str], grpc.aio.Channel]
    log: FilteringBoundLogger
    telemetry: Telemetry = field(default_factory=Telemetry)


@dataclass(frozen=True)
class Service:
    """
    One service, assembled.

    ``tasks`` run for as long as it does; each is a coroutine function that never returns. ``pings`` raise where something is away
    that it can't answer without: its health says so meanwhile. ``http`` is an ASGI application for what is served over HTTP,
    if anything.
    """

    registrations: Sequence[Registration]
    tasks: Mapping[str, Task]
    pings: Mapping[str, Ping]
    http: Any = None
