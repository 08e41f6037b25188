from datetime import UTC, timedelta

from parley_kit.clock import SystemClock


def test_machines_clock_knows_its_zone_and_never_measures_backwards() -> None:
    clock = SystemClock()

    assert UTC is clock.now().tzinfo
    assert clock.monotonic() <= clock.monotonic()


def test_clock_can_be_set_wrong() -> None:
    ahead = SystemClock(timedelta(minutes=10)).now() - SystemClock().now()

    assert timedelta(minutes=9, seconds=59) < ahead <= timedelta(minutes=10)
