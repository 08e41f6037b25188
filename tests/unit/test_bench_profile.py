"""The chart of an exchange: which steps count, when they are said to begin, and that they are still there to be timed."""

from collections.abc import Sequence

from parley_db.queries import load
from tests.bench.profile import FIRST, LAST, NEXT, STEPS, Step, chart, exchanges, medians
from tests.bench.steps import CALLS, STATEMENTS


def _exchange(at: float, but: str = "") -> Sequence[Step]:
    """Steps that take a millisecond each, one after the other."""
    return [Step(name, at + n / 1000, at + (n + 1) / 1000) for n, name in enumerate(STEPS) if name != but]


def test_steps_are_said_from_when_the_request_was_there() -> None:
    (first, second) = exchanges([*_exchange(7), *_exchange(8), *_exchange(9)])
    assert {FIRST: (0, 1), NEXT: (1000, 1000)} == {
        name: tuple(round(moment * 1000) for moment in first[name]) for name in (FIRST, NEXT)
    }
    assert first.keys() == second.keys() == {*STEPS, NEXT}


def test_exchange_that_lacks_a_step_or_has_one_twice_is_left_out() -> None:
    twice = Step(STEPS[1], 8.5, 8.6)
    assert [] == [*exchanges([*_exchange(7, but=STEPS[2]), *_exchange(8), twice, *_exchange(9)])]


def test_order_in_which_steps_ended_is_no_matter() -> None:
    noted = [*_exchange(7), *_exchange(8)]
    assert [*exchanges(noted)] == [*exchanges(reversed(noted))]


def test_chart_has_every_step_and_what_the_backend_does_in_between() -> None:
    drawn = chart(medians([*exchanges([*_exchange(7), *_exchange(8)])]))
    bars = [line.strip() for line in drawn.splitlines() if " :" in line]
    assert len(STEPS) + 2 == len(bars)
    assert "CreateExchange :0, 100" in bars
    assert f"the way there and back, opens it, checks signatures :100, {STEPS.index(LAST)}00" in bars


def test_what_is_timed_is_there() -> None:
    assert all(name.partition(".")[2] in vars(owner) for name, owner in CALLS.items())
    assert all(hasattr(load(f"parley_{service}"), name) for name, service in STATEMENTS.items())
