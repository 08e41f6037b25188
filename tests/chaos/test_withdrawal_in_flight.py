"""
G2, end to end: after a withdrawal's answer no marketer gets what the answer doesn't name, whatever is held, frozen or killed.

Races run on a whole node: a marketer asks customers it knows, in the answer or in the background, while they withdraw.
Counted at both ends: releases that reached the marketer, and rows of consent's settlements. That the count can tell is shown
with two broken builds.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from parley_broker.settling import Settling
from tests.support.chaos import each, frozen, held, rows
from tests.support.crashes import kill_listener
from tests.support.races import Races, Round, acquainted, both_came_first, in_answers, in_background
from tests.support.waiting import until
from tests.support.world import Customer, World

ONE_QUERY = (Path(__file__).parents[1] / "integration/consent/settle_in_one_query.sql").read_text("utf-8")
HELD_S = 3.0
"""Longer than the second within which a settled release may be sent."""


@pytest.fixture(scope="module")
async def everybody(world: World, people: Sequence[Customer]) -> Round:
    """One round to take parts of."""
    return await acquainted(world, people)


@pytest.mark.slow
async def test_nothing_escapes_500_withdrawals(world: World, people: Sequence[Customer]) -> None:
    before = after = 0
    for races in (in_answers, in_background) * 2:
        around = await acquainted(world, people)
        await races(around)
        assert set() == await around.violations()
        made, overtaken = both_came_first(around)
        before, after = before + made, after + overtaken
    print(f"{before} releases came before the withdrawal, {after} were overtaken")
    assert len(people) * 4 == before + after
    assert min(before, after) >= 25  # or the two hardly ever met


@pytest.mark.parametrize("in_answer", [True, False], ids=["answer", "feed"])
@pytest.mark.parametrize("point", ["broker.after_release", "broker.before_settle", "broker.before_send"])
async def test_nothing_escapes_withdrawals_while_the_broker_is_held(
    everybody: Round, point: str, in_answer: bool
) -> None:
    around = everybody.part(10)
    await _held_withdrawals(around, point, in_answer=in_answer)
    assert set() == await around.violations()
    assert {} == around.received  # all answers came while the release was held: it is too late for any


async def _held_withdrawals(around: Round, point: str, *, in_answer: bool) -> None:
    everyone = [one.pseudonym for one in around.known]
    await around.tidy()
    async with around.racing(), held(point, HELD_S) as hold:
        asked = [[name] for name in everyone] if in_answer else [everyone]
        asking = asyncio.gather(*(around.ask(*names, in_answer=in_answer) for names in asked))
        await hold.there.wait()
        await each(around.withdraw, around.known)
        await hold.end()
        await asking


@contextmanager
def killed(path: Path) -> Iterator[None]:
    """Kill the process behind a socket as a block begins; its supervisor brings it back."""
    kill_listener(path)
    yield


@pytest.mark.parametrize("races", [in_answers, in_background])
@pytest.mark.parametrize("down", [frozen, killed])
async def test_nothing_escapes_withdrawals_while_valkey_is_down(
    world: World, everybody: Round, races: Races, down: Callable[[Path], AbstractContextManager[None]]
) -> None:
    around = everybody.part(12)
    with down(world.node.servers.where.valkey_socket):  # type: ignore[union-attr] # embedded here
        await races(around)  # every withdrawal is answered, or this raises
    assert set() == await around.violations()


# --- Broken builds ---------------------------------------------------------------------------------------------------------


async def test_races_find_a_settle_of_one_query_out(world: World, people: Sequence[Customer]) -> None:
    (whole,) = await rows(
        world,
        "consent",
        "SELECT pg_get_functiondef('settle(settle_batch[], settle_release[], interval)'::regprocedure) AS text",
    )
    found: set[str] = set()
    for races in (in_background, in_answers) * 3:
        around = replace(await acquainted(world, people), patience=8.0)
        await rows(world, "consent", ONE_QUERY)
        try:
            with suppress(TimeoutError):  # a broken build may never come to its end
                await races(around)
        finally:
            await rows(world, "consent", whole["text"])
        if found := await around.violations():
            break
    assert found


async def test_held_withdrawals_find_a_broker_out_whose_second_never_ends(
    everybody: Round, monkeypatch: pytest.MonkeyPatch
) -> None:
    around = everybody.part(10)
    await around.tidy()
    with monkeypatch.context() as broken:
        broken.setattr(Settling, "is_fresh", lambda _self, _settled: True)
        everyone = [one.pseudonym for one in around.known]
        async with around.following(), held("broker.before_send", HELD_S) as hold:
            await around.ask(*everyone)
            await hold.there.wait()
            await each(around.withdraw, around.known)
            await hold.end()
            await until(lambda: _received(around))
    await around.finish()
    assert around.received  # though every withdrawal was answered before


async def _received(around: Round) -> bool:
    return bool(around.received)
