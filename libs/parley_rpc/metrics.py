"""
What a process counts, for Prometheus. No label ever holds anything of a customer, a marketer or an exchange.

``docs/metrics.md`` is made from :data:`DESCRIBED`.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, make_asgi_app

from parley_kit.clock import Clock
from parley_kit.telemetry import Meter

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_LAG_EVERY_S = 0.25

DESCRIBED: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "parley_rpc_calls_total": ("Calls answered, by the gRPC status that the caller got.", ("method", "code")),
    "parley_rpc_duration_seconds": ("Time to answer a call; histogram.", ("method",)),
    "parley_decisions_total": ("Customers that consent decided about: allowed, asked, refused, later.", ("outcome",)),
    "parley_settlements_total": (
        "Answers of consent to the question whether a release may be sent: settled, or the reason why not.",
        ("outcome",),
    ),
    "parley_withdrawals_total": ("Consents that their customers ended, by a withdrawal or an objection.", ()),
    "parley_outbox_oldest_seconds": (
        "Age of a service's oldest event that a reader hasn't acknowledged yet; 0 without one.",
        ("service",),
    ),
    "parley_stream_lag": ("Events of a service that a group of readers hasn't acknowledged yet.", ("stream", "group")),
    "parley_relay_state": ("1 for the state that a service's relay is in, 0 for states it left.", ("service", "state")),
    "parley_consumer_state": (
        "1 for the state that a reader of a stream is in, 0 for states it left.",
        ("stream", "group", "state"),
    ),
    "parley_dead_letters": ("Events that a reader has set aside, and nobody has replayed.", ("stream", "group")),
    "parley_pool_wait_seconds": (
        "Time that somebody waited for a connection to the database; histogram.",
        ("service",),
    ),
    "parley_pool_connections": ("Connections to the database that are in use.", ("service",)),
    "parley_tasks": (
        "What the process has under way (asyncio's tasks): with nothing to do it comes back to the same.",
        (),
    ),
    "parley_loop_lag_seconds": ("How late the process's event loop is with what is due; histogram.", ()),
    "parley_clock_seconds": ("A service's clock, in seconds since 1970.", ("service",)),
}
"""Every metric: what it says, and its labels."""


class Metrics:
    """
    What one process counts, in a registry of the owner's own.

    ``method`` is ``package.Service/Method``, only ever one that is served, and ``code`` a gRPC status by name.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._calls = _counter("parley_rpc_calls_total", registry)
        self._seconds = _histogram("parley_rpc_duration_seconds", registry)
        self._tasks = _gauge("parley_tasks", registry)
        self._loop_lag = _histogram("parley_loop_lag_seconds", registry)
        self._instruments = _Instruments(registry)

    def answered(self, method: str, code: str, seconds: float) -> None:
        """Count one call that ended with the gRPC status ``code`` (its name) after ``seconds``."""
        self._calls.labels(method, code).inc()
        self._seconds.labels(method).observe(seconds)

    def of(self, service: str, clock: Clock) -> Meter:
        """What one service of this process counts with; its clock is shown to whoever looks."""
        return _ServiceMeter(service, clock, self._instruments)

    async def watch_loop(self) -> None:
        """Measure, for ever, how late the event loop wakes what is due; and show how many tasks it has."""
        loop = asyncio.get_running_loop()
        self._tasks.set_function(lambda: len(asyncio.all_tasks(loop)))
        while True:
            due = time.monotonic() + _LAG_EVERY_S
            await asyncio.sleep(_LAG_EVERY_S)
            self._loop_lag.observe(max(0.0, time.monotonic() - due))

    def app(self) -> Any:
        """An ASGI application that answers a scrape."""
        return make_asgi_app(self.registry)


class _Instruments:
    """What the services of a process share."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.decisions = _counter("parley_decisions_total", registry)
        self.settlements = _counter("parley_settlements_total", registry)
        self.withdrawals = _counter("parley_withdrawals_total", registry)
        self.outbox = _gauge("parley_outbox_oldest_seconds", registry)
        self.lag = _gauge("parley_stream_lag", registry)
        self.relay = _gauge("parley_relay_state", registry)
        self.consumer = _gauge("parley_consumer_state", registry)
        self.dead = _gauge("parley_dead_letters", registry)
        self.pool_wait = _histogram("parley_pool_wait_seconds", registry)
        self.pool = _gauge("parley_pool_connections", registry)
        self.clock = _gauge("parley_clock_seconds", registry)


class _ServiceMeter(Meter):
    def __init__(self, service: str, clock: Clock, instruments: _Instruments) -> None:
        self._service, self._instruments = service, instruments
        self._pool_wait = instruments.pool_wait.labels(service)
        self._relay = _States(lambda state: instruments.relay.labels(service, state))
        self._consumers: dict[tuple[str, str], _States] = {}
        self._dead: set[tuple[str, str]] = set()
        instruments.clock.labels(service).set_function(lambda: clock.now().timestamp())

    def connection(self, waited_s: float) -> None:
        self._pool_wait.observe(waited_s)

    def pool(self, used: Callable[[], int]) -> None:
        self._instruments.pool.labels(self._service).set_function(used)

    def relay(self, state: str) -> None:
        self._relay.enter(state)

    def consumer(self, stream: str, group: str, state: str) -> None:
        key = (stream, group)
        if key not in self._consumers:
            self._consumers[key] = _States(lambda state: self._instruments.consumer.labels(stream, group, state))
        self._consumers[key].enter(state)

    def lag(self, group: str, events: int) -> None:
        self._instruments.lag.labels(self._service, group).set(events)

    def outbox(self, oldest_s: float) -> None:
        # It goes on ageing until somebody looks again: a database that can't be asked must not look like an empty outbox.
        seen = time.monotonic()
        self._instruments.outbox.labels(self._service).set_function(
            lambda: oldest_s and oldest_s + time.monotonic() - seen
        )

    def dead_letters(self, counts: Mapping[tuple[str, str], int]) -> None:
        for reader, stream in self._dead | set(counts):
            self._instruments.dead.labels(stream, reader).set(counts.get((reader, stream), 0))
        self._dead |= set(counts)

    def decided(self, outcomes: Mapping[str, int]) -> None:
        _add(self._instruments.decisions, outcomes)

    def settled(self, outcomes: Mapping[str, int]) -> None:
        _add(self._instruments.settlements, outcomes)

    def withdrawn(self, consents: int) -> None:
        self._instruments.withdrawals.inc(consents)


class _States:
    """One gauge for each state that something was in: 1 for the present one."""

    def __init__(self, gauge: Callable[[str], Gauge]) -> None:
        self._gauge = gauge
        self._now: Gauge | None = None

    def enter(self, state: str) -> None:
        if self._now is not None:
            self._now.set(0)
        self._now = self._gauge(state)
        self._now.set(1)


def _add(counter: Counter, outcomes: Mapping[str, int]) -> None:
    for outcome, count in outcomes.items():
        counter.labels(outcome).inc(count)


def _counter(name: str, registry: CollectorRegistry) -> Counter:
    said, labels = DESCRIBED[name]
    return Counter(name, said, labels, registry=registry)


def _gauge(name: str, registry: CollectorRegistry) -> Gauge:
    said, labels = DESCRIBED[name]
    return Gauge(name, said, labels, registry=registry)


def _histogram(name: str, registry: CollectorRegistry) -> Histogram:
    said, labels = DESCRIBED[name]
    return Histogram(name, said, labels, registry=registry, buckets=_SECONDS)
