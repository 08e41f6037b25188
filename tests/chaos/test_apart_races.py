"""
G2 across processes: withdrawals against releases, with two brokers and two consents on the same databases.

Any one of them, or vault, stands still for 3 s in the middle: at a moment, or at a fault point. What escaped is for the
independent checker to say, which reads the marketer's history and the databases. That it can tell is shown with three broken
builds: two that settle wrongly, under the same faults, and one that sends too late, whose brokers are held before they send.
"""

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

import grpc
import pytest

from parley_node.split import ApartNode, Process
from parley_rpc.channels import RoutedChannel, client_options
from tests.support.chaos import each, listener, population, rows
from tests.support.checker import Kind
from tests.support.deaths import Deaths, pid_of, stands_still
from tests.support.history import History
from tests.support.load import checked, streams_are_read
from tests.support.races import Races, Round, acquainted, both_came_first, in_answers, in_background
from tests.support.seeds import seeded
from tests.support.servers import scratch_directory
from tests.support.waiting import until
from tests.support.world import Customer, Stubs, World, living_world, quick

pytestmark = pytest.mark.slow

PEOPLE, STILL_S = 50, 3.0
TARGETS = [Process("vault"), *(Process(service, number) for service in ("broker", "consent") for number in (1, 2))]
POINTS = {
    "broker": ["after_decide", "after_release", "before_settle", "after_settle", "before_send"],
    "consent": ["before_settle", "after_settle", "WithdrawConsent.before_commit", "WithdrawConsent.after_commit"],
    "vault": ["after_release"],
}
ONE_QUERY = (Path(__file__).parents[1] / "integration/consent/settle_in_one_query.sql").read_text("utf-8")
LOCK = "ORDER BY customer FOR UPDATE"
SLOWLY = {"consent": "consent.WithdrawConsent.before_commit=sleep:0.03"}
"""Withdrawals hold their lock for a while: that is when a settlement must wait, and see what it waited for."""
ENDLESS = "broken.second_never_ends=sleep:0"
"""Armed with this, which no code reaches, a process takes on the module below."""
BROKEN_BROKER = f"""
import os
if {ENDLESS!r} in os.environ.get("PARLEY_FAULTS", ""):
    import parley_broker.settling
    parley_broker.settling.WINDOW_S = 1e9
"""


@dataclass
class Twice:
    """A Parley with two brokers and two consents, and customers of it."""

    world: World
    node: ApartNode
    deaths: Deaths
    people: Sequence[Customer] = ()
    armed: dict[str, str] = field(default_factory=dict)
    """What a process is armed with for good, beside its plan."""
    points: dict[str, list[str]] = field(default_factory=dict)
    """By service, at which points one has yet to stand still before one does so again."""

    def faults(self, process: str) -> str:
        """The faults of a process that is being started."""
        always = SLOWLY.get(process.partition("-")[0], "")
        return ",".join(filter(None, (always, self.armed.get(process, ""), self.deaths(process))))

    async def restart(self, process: Process) -> int:
        """Start a process anew, and wait until it listens; its new id."""
        before = pid_of(self.node, process.service, process.number)
        os.kill(before, signal.SIGKILL)

        async def back() -> bool:
            with suppress(OSError):
                return listener(self.node.doors.socket(process.service, process.number)) != before
            return False

        await until(back, 30)
        return pid_of(self.node, process.service, process.number)


@pytest.fixture(scope="module")
async def twice(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Twice]:
    """All of it, and a module that breaks a process if it is armed to be broken."""
    broken = tmp_path_factory.mktemp("broken")
    (broken / "sitecustomize.py").write_text(BROKEN_BROKER, "utf-8")
    twice = Twice(None, None, Deaths())  # type: ignore[arg-type] # made below
    options = quick(processes={"broker": 2, "consent": 2}, faults=twice.faults)
    with scratch_directory() as root, pytest.MonkeyPatch.context() as environment:
        inherited = os.environ.get("PYTHONPATH")
        environment.setenv("PYTHONPATH", os.pathsep.join(filter(None, (str(broken), inherited))))
        async with living_world(root / "home", options, apart=True) as world:
            assert isinstance(world.node, ApartNode)
            doors = world.node.doors

            def balanced(service: str) -> grpc.aio.Channel:
                return grpc.aio.insecure_channel(doors.public(service), options=client_options())

            async with RoutedChannel(balanced) as channel:
                world.stubs = Stubs(channel)
                twice.world, twice.node = world, world.node
                twice.people = await population(
                    world, [{"profile.city": "Lisbon", "profile.age": "34"}] * PEOPLE, "profile.age"
                )
                yield twice


async def race(twice: Twice, around: Round, races: Races, still: Awaitable[None]) -> None:
    """Race, while something stands still in the middle."""
    racing = asyncio.ensure_future(races(around))
    standing = asyncio.ensure_future(still)
    try:
        await racing
        if around.stood:  # its twin may have done without it meanwhile
            await standing
    finally:
        standing.cancel()
        await asyncio.gather(standing, return_exceptions=True)
    await until(lambda: streams_are_read(twice.world), 30)


async def at_a_moment(twice: Twice, around: Round, process: Process, rng: Random) -> None:
    """Stop a process once some have withdrawn."""
    some, pid = rng.randint(1, PEOPLE // 2), pid_of(twice.node, process.service, process.number)

    async def enough() -> bool:
        return around.withdrawals >= some

    await until(enough, 60)
    await _stand(around, process, pid, time.monotonic())


async def at_a_point(twice: Twice, around: Round, process: Process, pid: int) -> None:
    """Let a process go on that stands still at the point that it was armed with."""

    async def there() -> bool:
        return stands_still(pid)

    await until(there, 60)
    await _stand(around, process, pid, time.monotonic())


async def _stand(around: Round, process: Process, pid: int, since: float) -> None:
    os.kill(pid, signal.SIGSTOP)
    around.stood += 1
    try:
        await asyncio.sleep(STILL_S)
    finally:
        os.kill(pid, signal.SIGCONT)
        assert around.history is not None
        around.history.stopped(process.name, since)


async def arm(twice: Twice, process: Process, rng: Random, times: int) -> int:
    """Start a process anew, armed to stand still at a point of its service's when it comes by; its id."""
    left = twice.points.setdefault(process.service, [])
    left[:] = left or rng.sample(POINTS[process.service], len(POINTS[process.service]))
    point = left.pop()
    armed = f"{process.service}.{point}=stop@{rng.randint(1, times)}"
    print(f"{process.name}: {armed}")
    twice.deaths.plans[process.name] = [armed]
    return await twice.restart(process)


async def one_round(
    twice: Twice, history: History, races: Races, process: Process, rng: Random, *, pointed: bool
) -> Round:
    """Everybody's withdrawal against a release, with one process that stands still."""
    around = await acquainted(twice.world, twice.people, history)
    if pointed:
        pid = await arm(twice, process, rng, 3 if races is in_answers else 1)  # in the background it comes by seldom
        await race(twice, around, races, at_a_point(twice, around, process, pid))
        await twice.restart(process)  # had it not come by its point, it would stand still later, with nobody to wake it
    else:
        await race(twice, around, races, at_a_moment(twice, around, process, rng))
    return around


async def test_nothing_escapes_withdrawals_while_one_of_two_stands_still(twice: Twice, history: History) -> None:
    rng = seeded()
    await one_round(twice, history, rng.choice([in_answers, in_background]), rng.choice(TARGETS), rng, pointed=False)
    assert [] == await checked(twice.world, history)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("races", [in_answers, in_background])
async def test_nothing_escapes_500_withdrawals_while_any_one_stands_still(
    twice: Twice, history: History, races: Races
) -> None:
    rng, before, after, at_points = seeded(), 0, 0, 0
    for process in TARGETS:
        for pointed in (False, True):
            around, came_by = await _until_it_stood(twice, history, races, process, rng, pointed=pointed)
            made, overtaken = both_came_first(around)
            assert (PEOPLE, PEOPLE) == (around.withdrawals, around.asked)  # each was asked for, and withdrawn
            print(f"{process.name}: {made} releases came before the withdrawal, {overtaken} were overtaken")
            before, after, at_points = before + made, after + overtaken, at_points + came_by
    assert before + after == 500
    assert min(before, after) >= 25  # or the two hardly ever met
    assert at_points >= 3  # of five; where its twin does the work, a process comes by none
    assert [] == await checked(twice.world, history)


async def _until_it_stood(
    twice: Twice, history: History, races: Races, process: Process, rng: Random, *, pointed: bool
) -> tuple[Round, bool]:
    """
    A round in whose middle a process stood still, and whether that was at a point.

    Where its twin does the work and it comes by no point, it stands still at a moment.
    """
    for still_pointed in (*[pointed] * 3, False):
        around = await one_round(twice, history, races, process, rng, pointed=still_pointed)
        if around.stood:
            return around, still_pointed
        print(f"{process.name} didn't stand still, once more")
    raise AssertionError(f"{process.name} never stood still")


# --- Broken builds ---------------------------------------------------------------------------------------------------------


async def _escapes(twice: Twice, history: History) -> bool:
    return Kind.ESCAPED in {violation.kind for violation in await checked(twice.world, history)}


def without_lock(whole: str) -> str:
    """A settlement that doesn't wait for a withdrawal."""
    assert LOCK in whole
    return whole.replace(LOCK, "ORDER BY customer")


def in_one_query(_whole: str) -> str:
    """A settlement that waits, and then reads what was before."""
    return ONE_QUERY


@pytest.mark.parametrize("broken", [without_lock, in_one_query])
async def test_races_across_processes_find_a_broken_settle_out(
    twice: Twice, history: History, broken: Callable[[str], str]
) -> None:
    definition = "SELECT pg_get_functiondef('settle(settle_batch[], settle_release[], interval)'::regprocedure) AS text"
    ((whole,),) = await rows(twice.world, "consent", definition)
    rng, found = seeded(), 0
    for number, races in enumerate((in_background, in_answers) * 3, 1):
        around = replace(await acquainted(twice.world, twice.people, history), patience=10.0)
        process = rng.choice(TARGETS)
        await rows(twice.world, "consent", broken(whole))
        try:
            with suppress(TimeoutError):  # a broken build may never come to its end
                await race(twice, around, races, at_a_moment(twice, around, process, rng))
        finally:
            await rows(twice.world, "consent", whole)
        assert around.stood
        if await _escapes(twice, history):
            found = number * PEOPLE
            break
    print(f"found after {found} races, with {process.name} standing still")
    assert found


@pytest.mark.parametrize("endless", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["broken", "whole"])
async def test_held_withdrawals_across_processes_find_a_broker_out_whose_second_never_ends(
    twice: Twice, history: History, endless: bool
) -> None:
    brokers = [process for process in TARGETS if process.service == "broker"]
    around = await acquainted(twice.world, twice.people, history)
    await around.tidy()
    for process in brokers:
        twice.armed[process.name] = ",".join(["broker.before_send=sleep:4@1", *([ENDLESS] if endless else [])])
        await twice.restart(process)
    try:
        async with around.following():
            everyone = [one.pseudonym for one in around.known]
            await asyncio.gather(*(around.ask(*everyone[n::5]) for n in range(5)))
            await until(lambda: _placed(twice, around))
            await each(around.withdraw, around.known)
            await until(lambda: _nothing_left(twice, around), 30)
        assert endless == await _escapes(twice, history)
    finally:
        twice.armed.clear()
        for process in brokers:
            await twice.restart(process)


async def _placed(twice: Twice, around: Round) -> bool:
    """Whether everybody's release has its place on the feed, and was settled a moment ago."""
    query = "SELECT count(*) FROM deliveries WHERE marketer = $1 AND exchange_id <> ''"
    ((count,),) = await rows(twice.world, "broker", query, around.marketer.name)
    return bool(count == PEOPLE)


async def _nothing_left(twice: Twice, around: Round) -> bool:
    """Whether whatever is on the feed was sent, or may not be sent any more."""
    query = "SELECT pseudonym FROM deliveries WHERE marketer = $1 AND exchange_id <> ''"
    waiting = {row["pseudonym"] for row in await rows(twice.world, "broker", query, around.marketer.name)}
    return waiting <= {*around.received.values()}
