import os
import signal
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from parley_kit import faultpoints
from parley_kit.faultpoints import ahead, arm_from, armed, reach


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    before = dict(faultpoints._armed)
    faultpoints._armed.clear()
    yield
    faultpoints._armed.clear()
    faultpoints._armed.update(before)


async def test_point_that_is_not_armed_does_nothing() -> None:
    await reach("a.b")


async def test_point_is_armed_for_the_length_of_a_block() -> None:
    reached = []

    async def action() -> None:
        reached.append(True)

    with armed("a.b", action):
        await reach("a.b")
        await reach("a.c")
    await reach("a.b")

    assert [True] == reached


async def test_what_is_armed_may_break_what_reaches_it_and_is_disarmed_all_the_same() -> None:
    async def broken() -> None:
        raise OSError("broken")

    with pytest.raises(OSError, match="broken"), armed("a.b", broken):
        await reach("a.b")
    await reach("a.b")


async def test_points_are_armed_from_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    killed: list[tuple[int, int]] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    # Only what this module sees: others sleep on the same loop.
    monkeypatch.setattr(faultpoints, "asyncio", SimpleNamespace(sleep=sleep))
    told: list[tuple[int, bytes]] = []
    system = SimpleNamespace(
        getpid=os.getpid,
        write=lambda file, text: told.append((file, text)),
        kill=lambda pid, number: killed.append((pid, number)),
    )
    monkeypatch.setattr(faultpoints, "os", system)
    arm_from(" a.b = sleep:0.5 ,c.d=kill,")
    for point in ("a.b", "c.d", "e.f"):
        await reach(point)

    assert ([0.5], [(os.getpid(), signal.SIGKILL)]) == (slept, killed)
    assert [(2, b'{"event": "fault", "point": "c.d"}\n')] == told


async def test_point_is_armed_for_some_of_the_times_that_it_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    monkeypatch.setattr(
        faultpoints,
        "os",
        SimpleNamespace(getpid=os.getpid, write=lambda *_: None, kill=lambda _pid, number: sent.append(number)),
    )
    arm_from("a.b=stop@2+4,c.d=kill@3")
    for _ in range(5):
        await reach("a.b")
        await reach("c.d")

    assert [signal.SIGSTOP, signal.SIGKILL, signal.SIGSTOP] == sent


def test_empty_list_arms_nothing() -> None:
    arm_from("")

    assert {} == faultpoints._armed


@pytest.mark.parametrize(
    "spec",
    ["a.b", "a.b=", "a.b=stopped", "a.b=sleep", "a.b=sleep:soon", "a.b=kill,c.d=oops", "a.b=kill@soon", "a.b=kill@1+"],
)
def test_action_that_is_none_is_refused(spec: str) -> None:
    with pytest.raises(ValueError, match=r"unknown fault action|could not convert|invalid literal"):
        arm_from(spec)


def test_clock_runs_ahead_only_if_it_is_armed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faultpoints, "_ahead", {})
    arm_from("a.clock=ahead:600,b.clock=ahead:-1.5")

    assert (600, -1.5, 0) == (ahead("a.clock"), ahead("b.clock"), ahead("c.clock"))
    assert {} == faultpoints._armed
