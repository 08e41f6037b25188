from typing import Any

from parley_bus.log import State, backoff
from parley_kit.redact import ALLOWED_LOG_FIELDS


class Lines:
    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def info(self, event: str, *_args: Any, **fields: Any) -> None:
        self.lines.append({"event": event, **fields})

    warning = info


def test_a_change_is_logged_once_with_the_error_s_type_and_never_its_text() -> None:
    log = Lines()
    state = State(log, "relay", service="consent")
    for _ in range(3):
        state.bad("failing", ValueError("canary"))
    state.good("flowing")
    state.good("flowing")
    assert log.lines == [
        {"event": "relay", "state": "failing", "error_type": "ValueError", "service": "consent"},
        {"event": "relay", "state": "flowing", "service": "consent"},
    ]


def test_every_field_may_be_logged() -> None:
    log = Lines()
    State(log, "relay", service="consent").bad("stuck", ValueError(), seq=1, event_id="x")
    assert set(log.lines[0]) <= ALLOWED_LOG_FIELDS


def test_waits_grow_and_end_at_two_seconds() -> None:
    waits = [backoff(failures) for failures in range(1, 12)]
    assert waits[0] <= 0.05
    assert max(waits) <= 2.0
    assert waits[-1] >= 1.5


def test_success_makes_the_next_wait_short_again() -> None:
    state = State(Lines(), "relay")
    for _ in range(8):
        state.bad("failing", ValueError())
    state.good("flowing")
    assert state.bad("failing", ValueError()) <= 0.05
