import pytest

from parley_audit.ticking import until_next


@pytest.mark.parametrize(("took", "next_tick"), [(0.0, 0.25), (0.1, 0.25), (0.2499, 0.25), (0.25, 0.5), (0.3, 0.5)])
def test_ticks_come_at_their_times_however_long_the_last_one_took(took: float, next_tick: float) -> None:
    assert next_tick == pytest.approx(took + until_next(1000.0 + took, 0.25))
