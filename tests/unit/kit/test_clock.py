from datetime import UTC

from parley_kit.clock import SystemClock


def test_machines_clock_knows_its_zone_and_never_measures_backwards() -> None:
    clock = SystemClock()

    assert UTC is clock.now().tzinfo
    assert clock.monotonic() <= clock.monotonic()
