"""Convoys: who comes close together goes on together, and nobody waits for company where nobody is under way."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from parley_kit import convoy
from parley_kit.convoy import Convoys


class Road:
    """Notes who set out in the same moment; each arrives when it is let."""

    def __init__(self) -> None:
        self.convoys = Convoys()
        self.out: list[set[str]] = []
        self._now: set[str] | None = None
        self._let: dict[str, asyncio.Event] = {}
        self._all: set[asyncio.Task[None]] = set()

    def go(self, *names: str) -> list[asyncio.Task[None]]:
        """Have some come."""
        tasks = [asyncio.create_task(self._go(name)) for name in names]
        self._all.update(tasks)
        return tasks

    async def _go(self, name: str) -> None:
        self._let[name] = asyncio.Event()
        async with self.convoys.joined():
            if self._now is None:
                self._now = set()
                self.out.append(self._now)
                asyncio.get_running_loop().call_soon(self._passed)
            self._now.add(name)
            await self._let[name].wait()

    def _passed(self) -> None:
        self._now = None

    async def arrive(self, *names: str) -> None:
        """Let some arrive."""
        for name in names:
            self._let[name].set()
        await turns()

    @property
    def under_way(self) -> set[str]:
        """Everybody who has set out."""
        return set().union(*self.out)

    async def close(self) -> None:
        """Have everybody arrive."""
        for task in self._all:
            task.cancel()
        await asyncio.gather(*self._all, return_exceptions=True)
        await turns()


async def turns() -> None:
    """Let the loop do what is due by now."""
    for _ in range(12):
        await asyncio.sleep(0)


async def eventually(condition: Callable[[], object]) -> None:
    """Wait until something is true."""
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - several things may make it true
            await asyncio.sleep(0.001)


@pytest.fixture
async def road(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Road]:
    """An empty road; whoever is still on it at the end is called off."""
    monkeypatch.setattr(convoy, "PATIENCE_S", 60)
    road = Road()
    yield road
    await road.close()


async def test_who_finds_nobody_under_way_sets_out_at_once(road: Road) -> None:
    road.go("first")
    await turns()
    assert road.out == [{"first"}]


async def test_those_who_come_meanwhile_set_out_together_once_all_are_home(road: Road) -> None:
    road.go("a", "b")
    await turns()
    road.go("c")
    await turns()
    road.go("d", "e")
    await road.arrive("a")
    assert road.out == [{"a", "b"}]
    await road.arrive("b")
    await eventually(lambda: len(road.out) == 2)
    assert road.out == [{"a", "b"}, {"c", "d", "e"}]


async def test_who_takes_long_keeps_nobody_else_waiting(road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convoy, "PATIENCE_S", 0)
    late = road.go("late")
    await turns()
    road.go("a", "b")
    await turns()
    assert road.out == [{"late"}, {"a", "b"}]
    monkeypatch.setattr(convoy, "PATIENCE_S", 60)
    road.go("c")
    await road.arrive("late")
    assert late[0].done()


async def test_who_gives_up_on_the_way_or_before_holds_nobody_up(road: Road) -> None:
    (under_way,) = road.go("under way")
    await turns()
    waits, _ = road.go("gives up", "waits")
    await turns()
    waits.cancel()
    under_way.cancel()
    await eventually(lambda: len(road.out) == 2)
    assert road.out == [{"under way"}, {"waits"}]


@pytest.mark.parametrize("later", range(8))
async def test_whenever_somebody_gives_up_the_next_set_out(road: Road, later: int) -> None:
    (first,), (called,) = road.go("first"), road.go("called")
    first.cancel()
    for _ in range(later):
        await asyncio.sleep(0)
    called.cancel()
    road.go("next")
    await eventually(lambda: "next" in road.under_way)


async def test_failure_of_one_is_theirs_alone(road: Road) -> None:
    async def fail() -> None:
        async with road.convoys.joined():
            raise ValueError("theirs")

    failing = asyncio.create_task(fail())
    road.go("a")
    with pytest.raises(ValueError, match="theirs"):
        await failing
    await turns()
    road.go("b")
    await road.arrive("a")
    await eventually(lambda: len(road.out) == 2)


class Busy:
    """An event loop in which there is always something to do that takes a while."""

    def __init__(self, takes: float) -> None:
        self.done = 0
        self._takes = takes
        self._task = asyncio.create_task(self._work())

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            until = loop.time() + self._takes
            while loop.time() < until:
                self.done += 1
            await asyncio.sleep(0)

    async def stop(self) -> None:
        """Let it be."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


@pytest.fixture
async def busy() -> AsyncIterator[Busy]:
    """Something else to do, all the time."""
    busy = Busy(takes=0.002)
    yield busy
    await busy.stop()


async def test_where_there_is_something_else_to_do_company_is_waited_for(
    road: Road, busy: Busy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convoy, "LINGER_S", 60)
    road.go("a", "b")
    await turns()
    road.go("c")
    await road.arrive("a", "b")
    road.go("d")
    await turns()
    assert road.out == [{"a", "b"}]
    await busy.stop()
    await eventually(lambda: len(road.out) == 2)
    assert road.out[1] == {"c", "d"}


async def test_company_is_waited_for_no_longer_than_a_moment(
    road: Road, busy: Busy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convoy, "LINGER_S", 0)
    road.go("a", "b")
    await turns()
    road.go("c")
    await road.arrive("a", "b")
    assert road.out == [{"a", "b"}, {"c"}]
    assert busy.done


async def test_where_all_is_quiet_nobody_is_waited_for(road: Road, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convoy, "LINGER_S", 60)
    road.go("a", "b")
    await turns()
    road.go("c")
    await road.arrive("a", "b")
    await eventually(lambda: len(road.out) == 2)
    assert road.out[1] == {"c"}


async def test_nothing_is_left_running_once_all_are_home(road: Road) -> None:
    before = asyncio.all_tasks()
    tasks = road.go("a", "b")
    await turns()
    await road.arrive("a", "b")
    await asyncio.gather(*tasks)
    await eventually(lambda: not asyncio.all_tasks() - before)
