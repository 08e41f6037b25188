"""
G12: whoever cancels, or runs out of time, at any moment of a call asks again and gets the one outcome that it had.

Calls are cancelled and deadlines end at moments drawn from a seed, while fault points everywhere on the way take a random time.
Each request is then repeated until it is answered, and once more. Nothing may be left of any of them: no second outcome, no task,
no connection that isn't back in its pool.
"""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from random import Random
from typing import Any

import grpc
import pytest

from parley.consent.v1 import consent_pb2 as consentpb
from parley_db.connections import Connections
from parley_kit.faultpoints import armed
from tests.support.calls import request_id
from tests.support.chaos import ALLOW, each, population
from tests.support.history import History
from tests.support.load import Backend, checked, seeded, streams_are_read
from tests.support.servers import scratch_directory
from tests.support.waiting import until
from tests.support.world import Customer, Marketer, World, between, by_criteria, living_world, terms, to_known

pytestmark = pytest.mark.slow

PEOPLE, AT_ONCE, LONGEST_S = 12, 8, 0.25
POINTS = [
    *(
        "broker.after_create",
        "broker.after_decide",
        "broker.after_release",
        "broker.before_settle",
        "broker.after_settle",
    ),
    *("consent.before_settle", "consent.after_settle", "consent.CreateRule.before_commit", "vault.after_release"),
]


@pytest.fixture(scope="module")
async def here() -> AsyncIterator[World]:
    """A node in this process, where every task can be seen."""
    with scratch_directory() as root:
        async with living_world(root / "home", apart=False) as world:
            yield world


@dataclass
class Call:
    """A mutation that may be repeated: who asks what, and what of the answer is its outcome."""

    caller: Customer | Marketer
    service: str
    method: str
    request: Any
    customers: int | None
    outcome: Callable[[Any], Any]


@dataclass
class Impatient:
    """Callers who give up, and come back."""

    history: History
    rng: Random
    ended: Counter[str] = field(default_factory=Counter)
    overdue: list[float] = field(default_factory=list)

    @property
    def given_up(self) -> int:
        """How many had no answer."""
        return self.ended.total() - self.ended["answered"]

    async def make(self, call: Call) -> None:
        """Give up once, at a random moment; then repeat until there is an answer, and once more."""
        with_deadline = self.rng.random() < 0.5
        seconds = self.rng.uniform(0.1 if with_deadline else 0, LONGEST_S)  # less time than that is refused at once
        self._asked(call)
        begun = time.monotonic()
        try:
            if with_deadline:
                answer = await call.caller.call(call.service, call.method, call.request, timeout=seconds)
            else:
                answer = await asyncio.wait_for(call.caller.call(call.service, call.method, call.request), seconds)
        except TimeoutError:
            self.ended["cancelled"] += 1
        except grpc.aio.AioRpcError as error:
            self.ended[error.code().name] += 1
            self.overdue.append(time.monotonic() - begun - seconds)
        else:
            self.ended["answered"] += 1
            self._answered(call, answer)
        first, second = [await self._until_answered(call) for _ in range(2)]
        assert call.outcome(first) == call.outcome(second)

    async def _until_answered(self, call: Call) -> Any:
        while True:
            self._asked(call)
            with suppress_retryable():
                answer = await call.caller.call(call.service, call.method, call.request, timeout=10)
                self._answered(call, answer)
                return answer

    def _asked(self, call: Call) -> None:
        if call.service == "broker":
            self.history.asked(call.caller.name, call.request.request_id, call.customers)

    def _answered(self, call: Call, answer: Any) -> None:
        self.history.answered(call.caller.name, call.request.request_id, call.outcome(answer))
        if call.service == "broker" and answer.HasField("delivery"):
            self.history.delivered(call.caller.name, answer.delivery)


@contextmanager
def suppress_retryable() -> Iterator[None]:
    """Let pass what a client repeats: the first try may still be under way."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED):
            raise


def _name(answer: Any) -> str:
    return str(answer.name)


def _exchange(answer: Any) -> str:
    return str(answer.exchange.name)


@dataclass(frozen=True)
class Cast:
    """A marketer and those it knows."""

    marketer: Marketer
    people: Sequence[Customer]
    pseudonyms: Sequence[str]

    def draw(self, rng: Random) -> Call:
        """Some call."""
        asked = terms("profile.city", valid_for=timedelta(days=20))
        kind = rng.choice(("in the answer", "in the background", "rule"))
        if kind == "rule":
            rule = consentpb.Rule(
                effect=consentpb.RuleEffect.ValueType(ALLOW),
                scope=consentpb.RuleScope(everyone=consentpb.Everyone()),
                terms=terms("profile.city", "profile.age", valid_for=timedelta(days=300), decide_within=None),
            )
            request: Any = consentpb.CreateRuleRequest(rule=rule, request_id=request_id())
            return Call(rng.choice(self.people), "consent", "CreateRule", request, None, _name)
        request = to_known(asked, rng.choice(self.pseudonyms), in_answer=kind == "in the answer")
        return Call(self.marketer, "broker", "CreateExchange", request, 1, _exchange)


async def _cast(world: World, history: History) -> Cast:
    people = await population(world, [{"profile.city": "Lisbon", "profile.age": "34"}] * PEOPLE, "profile.age")
    marketer = await world.marketer()
    request = by_criteria(terms("profile.city"), between("profile.age", "34", "34"))
    history.asked(marketer.name, request.request_id)
    history.answered(marketer.name, request.request_id, (await marketer.ask(request)).exchange.name)
    deliveries = await marketer.collect(PEOPLE)
    for delivery in deliveries:
        history.delivered(marketer.name, delivery)
    await marketer.acknowledge(*deliveries)
    return Cast(marketer, people, [delivery.release.pseudonym for delivery in deliveries])


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


@pytest.mark.timeout(900)
@pytest.mark.parametrize("calls", [50, pytest.param(1000, marks=pytest.mark.slow)])
async def test_whoever_gives_up_and_asks_again_gets_the_one_outcome(
    here: World, history: History, calls: int, caplog: pytest.LogCaptureFixture
) -> None:
    rng = seeded()
    cast = await _cast(here, history)
    await until(lambda: streams_are_read(here))
    before, impatient = _tasks(), Impatient(history, rng)
    with _slow_everywhere(rng):
        while impatient.given_up < calls:
            await each(impatient.make, [cast.draw(rng) for _ in range(50)], AT_ONCE)
    print(dict(impatient.ended), f"{max(impatient.overdue, default=0):.3f} s past the deadline at most")
    assert min(impatient.ended["cancelled"], impatient.ended["DEADLINE_EXCEEDED"]) >= calls / 10
    await _collect_all(here, cast.marketer, history)
    await until(partial(_is_as_before, here, before), 30)
    assert [] == [record for record in caplog.records if record.name == "asyncio"]  # a transaction left open, above all
    assert [] == await checked(here, history)


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
