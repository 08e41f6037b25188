"""Convoys: who comes close together goes on together, and nobody waits for company where nobody has just set out."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from parley_kit import convoy
from parley_kit.convoy import Convoys


class Road:
    """Notes who set out in the same turn of the event loop."""

    def __init__(self) -> None:
        self.convoys = Convoys()
        self.out: list[set[str]] = []
        self._now: set[str] | None = None

    def go(self, *names: str) -> list[asyncio.Task[None]]:
        """Have some come."""
        return [asyncio.create_task(self._go(name)) for name in names]

    async def _go(self, name: str) -> None:
        await self.convoys.join()
        if self._now is None:
            self._now = set()
            self.out.append(self._now)
            asyncio.get_running_loop().call_soon(self._passed)
        self._now.add(name)

    def _passed(self) -> None:
        self._now = None

    @property
    def under_way(self) -> set[str]:
        """Everybody who has set out."""
        return set().union(*self.out)


class Busy:
    """An event loop in which there is always something to do that takes a while."""

    def __init__(self) -> None:
        self._task = asyncio.create_task(self._work())

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            until = loop.time() + 0.002
            while loop.time() < until:
                pass
            await asyncio.sleep(0)

    async def stop(self) -> None:
        """Let it be."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def turns() -> None:
    """Let the loop do what is due by now."""
    for _ in range(12):
        await asyncio.sleep(0)


async def eventually(condition: Callable[[], object]) -> None:
    """Wait until something is true."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - several things may make it true
            await asyncio.sleep(0.001)


@pytest.fixture
def road(monkeypatch: pytest.MonkeyPatch) -> Road:
    """An empty road, on which only a calm loop lets the next set out."""
    monkeypatch.setattr(convoy, "PAUSE_S", 60)
    monkeypatch.setattr(convoy, "LINGER_S", 60)
    return Road()


@pytest.fixture
async def busy() -> AsyncIterator[Busy]:
    """Something else to do, all the time."""
    busy = Busy()
    yield busy
    await busy.stop()


async def test_who_comes_when_nobody_has_just_set_out_sets_out_at_once(road: Road, busy: Busy) -> None:
    road.go("first")
    await turns()
    assert road.out == [{"first"}]


async def test_those_who_come_right_behind_one_alone_set_out_together_a_moment_later(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convoy, "PAUSE_S", 0.05)
    road.go("first")
    await turns()
    road.go("b")
    await turns()
    road.go("c")
    await eventually(lambda: len(road.out) == 2)
    assert road.out == [{"first"}, {"b", "c"}]


async def test_those_who_come_right_behind_several_set_out_together_once_there_is_little_to_do(
    road: Road, busy: Busy
) -> None:
    road.go("a", "b")
    await turns()
    road.go("c")
    await turns()
    road.go("d", "e")
    await turns()
    assert road.out == [{"a", "b"}]
    await busy.stop()
    await eventually(lambda: len(road.out) == 2)
    assert road.out[1] == {"c", "d", "e"}


@pytest.mark.parametrize(("first", "patient"), [(["a"], "PAUSE_S"), (["a", "b"], "LINGER_S")], ids=["one", "several"])
async def test_however_busy_it_is_nobody_waits_for_long(
    road: Road,
    busy: Busy,
    monkeypatch: pytest.MonkeyPatch,
    first: list[str],
    patient: str,
) -> None:
    monkeypatch.setattr(convoy, patient, 0)
    road.go(*first)
    await turns()
    road.go("c")
    await turns()
    assert road.out == [set(first), {"c"}]


async def test_who_gives_up_is_not_waited_for(road: Road) -> None:
    road.go("under way", "beside")
    await turns()
    gives_up, _ = road.go("gives up", "waits")
    await turns()
    gives_up.cancel()
    await eventually(lambda: "waits" in road.under_way)
    assert road.out == [{"under way", "beside"}, {"waits"}]


@pytest.mark.parametrize("later", range(8))
async def test_whenever_somebody_gives_up_the_next_set_out(
    road: Road, monkeypatch: pytest.MonkeyPatch, later: int
) -> None:
    monkeypatch.setattr(convoy, "PAUSE_S", 0.001)
    (called,) = road.go("called")
    for _ in range(later):
        await asyncio.sleep(0)
    called.cancel()
    road.go("next")
    await eventually(lambda: "next" in road.under_way)
