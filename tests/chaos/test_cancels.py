"""
G12: whoever cancels, or runs out of time, at any moment of a call asks again and gets the one outcome that it had.

Calls are cancelled and deadlines end at moments drawn from a seed, while fault points everywhere on the way take a random time.
Each request, of every mutation that there is, is then repeated until it is answered, and once more. Nothing may be left of any of
them: no second outcome, no task, no connection that isn't back in its pool.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from random import Random
from typing import Any

import grpc
import pytest

from parley_db.connections import Connections
from parley_kit.faultpoints import armed
from tests.support.chaos import each, population
from tests.support.history import History
from tests.support.load import Backend, checked, streams_are_read
from tests.support.mutations import MAKERS, MUTATIONS, Cast, effects, effects_of
from tests.support.seeds import seeded
from tests.support.servers import scratch_directory
from tests.support.waiting import until
from tests.support.world import Caller, Marketer, World, between, by_criteria, living_world, terms, to_known

pytestmark = pytest.mark.slow

PEOPLE, AT_ONCE, LONGEST_S = 12, 16, 0.25
GRACE_S = 0.25
"""How long after its deadline a call may end."""
RETRYABLE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED)
POINTS = [
    *(
        f"broker.{point}"
        for point in ("after_create", "after_decide", "after_release", "before_settle", "after_settle")
    ),
    *("consent.before_settle", "consent.after_settle", "vault.after_release"),
    *(f"{rpc}.{point}" for rpc in MUTATIONS for point in ("before_commit", "after_commit")),
]


@pytest.fixture(scope="module")
async def here() -> AsyncIterator[World]:
    """A node in this process, where every task can be seen."""
    with scratch_directory() as root:
        async with living_world(root / "home", apart=False) as world:
            yield world


@dataclass
class Call:
    """A mutation that may be repeated: who asks what."""

    caller: Caller
    rpc: str
    request: Any
    noted: bool
    """Whether it is an exchange that the history tells of."""
    outcomes: set[bytes] = field(default_factory=set)
    """What its answers say that it did."""

    async def make(self, **options: Any) -> Any:
        """Make it, once. Raises grpc.aio.AioRpcError."""
        service, _, method = self.rpc.partition(".")
        return await self.caller.call(service, method, self.request, **options)


@dataclass
class Impatient:
    """Callers who give up, and come back."""

    history: History
    rng: Random
    ended: Counter[str] = field(default_factory=Counter)
    overdue: list[float] = field(default_factory=list)
    given_up_in: set[str] = field(default_factory=set)
    """RPCs that somebody gave up in."""

    @property
    def given_up(self) -> int:
        """How many their callers had had enough of; without those that were refused."""
        return self.ended["cancelled"] + self.ended["DEADLINE_EXCEEDED"]

    async def make(self, call: Call) -> None:
        """Give up once, at a random moment; then repeat until there is an answer, and once more."""
        with_deadline = self.rng.random() < 0.5
        seconds = self.rng.uniform(0.1 if with_deadline else 0, LONGEST_S)  # less time than that is refused at once
        self._asked(call)
        begun = time.monotonic()
        try:
            if with_deadline:
                answer = await call.make(timeout=seconds)
            else:
                answer = await asyncio.wait_for(call.make(), seconds)
        except TimeoutError:
            self._gave_up(call, "cancelled")
        except grpc.aio.AioRpcError as error:
            if error.code() not in (grpc.StatusCode.DEADLINE_EXCEEDED, *RETRYABLE):
                raise
            self._gave_up(call, error.code().name)
            self.overdue.append(time.monotonic() - begun - seconds)
        else:
            self.ended["answered"] += 1
            self._answered(call, answer)
        for _ in range(2):
            await self._until_answered(call)
        assert 1 == len(call.outcomes), call.rpc

    async def _until_answered(self, call: Call) -> None:
        while True:
            self._asked(call)
            with suppress_retryable():
                return self._answered(call, await call.make(timeout=10))

    def _gave_up(self, call: Call, how: str) -> None:
        self.ended[how] += 1
        self.given_up_in.add(call.rpc)

    def _asked(self, call: Call) -> None:
        if call.noted:
            self.history.asked(call.caller.name, call.request.request_id, 1)

    def _answered(self, call: Call, answer: Any) -> None:
        if call.noted:
            self.history.answered(call.caller.name, call.request.request_id, answer.exchange.name)
            if answer.HasField("delivery"):
                self.history.delivered(call.caller.name, answer.delivery)
                answer.ClearField("delivery")  # it is settled anew each time, and may not be ready at once
        call.outcomes.add(answer.SerializeToString(deterministic=True))


@contextmanager
def suppress_retryable() -> Iterator[None]:
    """Let pass what a client repeats: the first try may still be under way."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        if error.code() not in RETRYABLE:
            raise


@dataclass(frozen=True)
class Troupe:
    """A marketer and those it knows, whose exchanges are written down; and others, who make every other mutation."""

    marketer: Marketer
    pseudonyms: Sequence[str]
    cast: Cast

    @asynccontextmanager
    async def call(self, rpc: str, rng: Random) -> AsyncIterator[Call]:
        """Some call of an RPC, in its turn."""
        if rpc == "broker.CreateExchange":
            asked, in_answer = terms("profile.city", valid_for=timedelta(days=20)), rng.random() < 0.5
            request = to_known(asked, rng.choice(self.pseudonyms), in_answer=in_answer)
            yield Call(self.marketer, rpc, request, noted=True)
        else:
            async with self.cast.mutation(rpc) as made:
                yield Call(made.caller, rpc, made.request, noted=False)

    async def sign_in(self) -> None:
        """Sign everybody in anew."""
        await self.marketer.sign_in()
        await self.cast.sign_in()


async def _troupe(world: World, history: History) -> Troupe:
    await population(world, [{"profile.city": "Lisbon", "profile.age": "117"}] * PEOPLE, "profile.age")
    marketer = await world.marketer()
    request = by_criteria(terms("profile.city"), between("profile.age", "117", "117"))
    history.asked(marketer.name, request.request_id)
    history.answered(marketer.name, request.request_id, (await marketer.ask(request)).exchange.name)
    deliveries = await marketer.collect(PEOPLE)
    for delivery in deliveries:
        history.delivered(marketer.name, delivery)
    await marketer.acknowledge(*deliveries)
    return Troupe(marketer, [delivery.release.pseudonym for delivery in deliveries], await Cast.of(world, AT_ONCE))


@contextmanager
def _slow_everywhere(rng: Random) -> Iterator[None]:
    async def wait() -> None:
        await asyncio.sleep(rng.uniform(0, 0.15))

    with ExitStack() as stack:
        for point in POINTS:
            stack.enter_context(armed(point, wait))
        yield


def _tasks() -> Counter[str]:
    """What runs here, by what it runs."""
    return Counter(getattr(task.get_coro(), "__qualname__", "?") for task in asyncio.all_tasks())


def _pools(world: World) -> Sequence[Connections]:
    pings: list[Any] = [service.pings["postgres"] for service in world.services.values()]
    return [ping.__self__._connections for ping in pings]


def _borrowed(world: World) -> int:
    """How many connections aren't back: by asyncpg's own account, less those that are kept at hand."""
    return sum(each._pool.get_size() - each._pool.get_idle_size() - len(each._at_hand) for each in _pools(world))


async def test_connection_that_is_not_given_back_is_noticed(here: World) -> None:
    """The control of what comes next, whatever the pool itself says is lent."""

    async def none_borrowed() -> bool:
        return not _borrowed(here)

    for connections in _pools(here):
        await until(none_borrowed)
        kept, lent = await connections.take(), connections.lent
        connections.lent = 0
        assert 1 <= _borrowed(here)
        connections.lent = lent
        await connections.give_back(kept, is_good=True)


def test_every_mutation_is_given_up_in() -> None:
    assert {*map(str, MUTATIONS)} == {*MAKERS}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("calls", [50, pytest.param(1000, marks=pytest.mark.slow)])
async def test_whoever_gives_up_and_asks_again_gets_the_one_outcome(
    here: World, history: History, calls: int, caplog: pytest.LogCaptureFixture
) -> None:
    rng = seeded()
    troupe = await _troupe(here, history)
    await until(lambda: streams_are_read(here))
    before, impatient, rpcs = _tasks(), Impatient(history, rng), [*map(str, MUTATIONS)]
    there, made = await effects(here), Counter[str]()

    async def some(rpc: str) -> None:
        async with troupe.call(rpc, rng) as call:
            await impatient.make(call)

    with _slow_everywhere(rng):
        while impatient.given_up < calls:
            drawn = rpcs + ["broker.CreateExchange"] * len(rpcs)
            made.update(drawn)
            await each(some, rng.sample(drawn, len(drawn)), AT_ONCE)
            await troupe.sign_in()
    print(dict(impatient.ended), f"{max(impatient.overdue, default=0):.3f} s past the deadline at most")
    assert min(impatient.ended["cancelled"], impatient.ended["DEADLINE_EXCEEDED"]) >= calls / 5
    assert max(impatient.overdue) <= GRACE_S
    assert calls < 1000 or set() == {*rpcs} - impatient.given_up_in
    await _collect_all(here, troupe.marketer, history)
    await until(partial(_is_as_before, here, before), 30)
    assert [] == [record for record in caplog.records if record.name == "asyncio"]  # a transaction left open, above all
    assert [] == await checked(here, history)
    assert effects_of(made) == await effects(here) - there


async def _collect_all(world: World, marketer: Marketer, history: History) -> None:
    """Take everything off the feed, and let all come to its end."""
    backend = Backend(marketer, history, 0)
    async with backend.working():
        await backend.finish(world, 120)
        await until(lambda: streams_are_read(world), 30)


async def _is_as_before(world: World, before: Counter[str]) -> bool:
    """Whether nothing runs that didn't before, and every connection is back."""
    grown = _tasks() - before
    return not grown.total() and not _borrowed(world)
