import asyncio
import time
from datetime import UTC, datetime

import pytest
from prometheus_client import CollectorRegistry

from parley_kit.telemetry import Meter
from parley_rpc.metrics import Metrics

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Stopped:
    def now(self) -> datetime:
        return NOW

    def monotonic(self) -> float:
        return 0.0


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def meter(registry: CollectorRegistry) -> Meter:
    return Metrics(registry).of("consent", Stopped())


def test_service_shows_its_own_clock(registry: CollectorRegistry, meter: Meter) -> None:
    assert NOW.timestamp() == registry.get_sample_value("parley_clock_seconds", {"service": "consent"})


def test_only_the_present_state_is_one(registry: CollectorRegistry, meter: Meter) -> None:
    for state in ("flowing", "failing", "flowing"):
        meter.relay(state)
        meter.consumer("audit", "consent", state)
    for name, labels in (
        ("parley_relay_state", {"service": "consent"}),
        ("parley_consumer_state", {"stream": "audit", "group": "consent"}),
    ):
        states = {
            state: registry.get_sample_value(name, {**labels, "state": state}) for state in ("flowing", "failing")
        }
        assert {"flowing": 1, "failing": 0} == states


def test_oldest_event_goes_on_ageing_while_nobody_looks(registry: CollectorRegistry, meter: Meter) -> None:
    meter.outbox(60.0)
    ages = [registry.get_sample_value("parley_outbox_oldest_seconds", {"service": "consent"}) for _ in range(2)]
    assert 60 < (ages[0] or 0) < (ages[1] or 0) < 70


def test_empty_outbox_does_not_age(registry: CollectorRegistry, meter: Meter) -> None:
    meter.outbox(60.0)
    meter.outbox(0.0)
    assert 0 == registry.get_sample_value("parley_outbox_oldest_seconds", {"service": "consent"})


def test_dead_letters_that_are_gone_are_none(registry: CollectorRegistry, meter: Meter) -> None:
    meter.dead_letters({("consent", "audit"): 2})
    meter.dead_letters({})
    assert 0 == registry.get_sample_value("parley_dead_letters", {"stream": "audit", "group": "consent"})


def test_waits_for_a_connection_are_timed_and_those_in_use_counted(registry: CollectorRegistry, meter: Meter) -> None:
    meter.connection(0.3)
    meter.pool(lambda: 7)
    waits = {"service": "consent", "le": "0.25"}
    assert (0, 1) == (
        registry.get_sample_value("parley_pool_wait_seconds_bucket", waits),
        registry.get_sample_value("parley_pool_wait_seconds_bucket", waits | {"le": "0.5"}),
    )
    assert 7 == registry.get_sample_value("parley_pool_connections", {"service": "consent"})


async def test_loop_that_somebody_holds_up_is_late_by_that(registry: CollectorRegistry) -> None:
    watching = asyncio.create_task(Metrics(registry).watch_loop())
    await asyncio.sleep(0)
    time.sleep(0.6)  # noqa: ASYNC251 - which is the point
    while not (late := registry.get_sample_value("parley_loop_lag_seconds_sum")):  # noqa: ASYNC110 - no event
        await asyncio.sleep(0.01)
    watching.cancel()
    assert late >= 0.3  # it is looked at four times a second


async def test_task_that_is_left_behind_is_counted(registry: CollectorRegistry) -> None:
    watching = asyncio.create_task(Metrics(registry).watch_loop())
    await asyncio.sleep(0)
    before = registry.get_sample_value("parley_tasks") or 0
    left = asyncio.create_task(asyncio.sleep(60))
    assert 2 <= before == (registry.get_sample_value("parley_tasks") or 0) - 1
    left.cancel()
    watching.cancel()
