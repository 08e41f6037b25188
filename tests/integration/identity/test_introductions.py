"""Introductions: one pseudonym per customer and legal entity, one sealed ref per service."""

import asyncio
import time
from collections.abc import Sequence
from datetime import timedelta

import pytest

from parley.identity.v1 import identity_pb2 as identitypb
from parley_crypto.subject_ref import RefInvalid, SubjectRef, open_ref
from tests.support.identity import Party, World, rows

NOTHING = identitypb.Introduction()


async def pseudonym(world: World, marketer: Party, subject: str) -> str:
    (introduction,) = await world.introduce(marketer, [world.candidate(subject, marketer.name)])
    return introduction.pseudonym


async def imported(world: World, count: int) -> Sequence[str]:
    """Vault's ids of complete accounts."""
    keys = [str(number) for number in range(count)]
    opened = await world.open_imported("may", keys)
    await world.complete_imported("may", keys)
    return [open_ref(world.ring("vault"), "vault", account.vault_ref).subject for account in opened]


async def test_each_service_can_open_its_own_ref_and_none_of_the_others(world: World) -> None:
    customer, marketer = await world.register_customer(), await world.register_marketer()
    tokens = await world.tokens(customer)
    candidate = world.candidate(tokens["vault"].subject, marketer.name)

    (introduction,) = await world.introduce(marketer, [candidate])

    alias = introduction.pseudonym
    subjects = {name: token.subject for name, token in tokens.items()}
    subjects["identity"] = customer.name.removeprefix("customers/")
    expected = {name: SubjectRef(subject, "local", alias, marketer.name) for name, subject in subjects.items()}
    assert expected == world.opened(introduction)
    with pytest.raises(RefInvalid):
        open_ref(world.ring("vault"), "vault", introduction.consent_ref)


async def test_pseudonym_is_the_same_every_time_and_the_refs_never(world: World) -> None:
    marketer = await world.register_marketer()
    (subject,) = await imported(world, 1)
    candidate = world.candidate(subject, marketer.name)

    (first,), (second,) = await world.introduce(marketer, [candidate]), await world.introduce(marketer, [candidate])

    assert first.pseudonym == second.pseudonym
    assert first.vault_ref != second.vault_ref
    assert [(1,)] == await rows(world, "SELECT count(*) FROM introductions")


async def test_two_marketers_know_a_customer_by_two_names_and_one_entity_by_one(world: World) -> None:
    one = await world.register_marketer("Hiker's Friend GmbH")
    same = await world.register_marketer(" HIKER'S  FRIEND gmbh")
    other = await world.register_marketer("Boots AG")
    (subject,) = await imported(world, 1)

    names = [await pseudonym(world, marketer, subject) for marketer in (one, same, other)]

    assert names[0] == names[1]
    assert names[0] != names[2]
    assert [(3,)] == await rows(world, "SELECT count(*) FROM introductions")


async def test_raised_epoch_is_a_new_pseudonym_with_that_entity_alone(world: World) -> None:
    one, other = await world.register_marketer("Friend"), await world.register_marketer("Boots AG")
    (subject,) = await imported(world, 1)
    before = [await pseudonym(world, marketer, subject) for marketer in (one, other)]

    await rows(world, "INSERT INTO epochs SELECT customer, 'friend', 1 FROM customers")

    after = [await pseudonym(world, marketer, subject) for marketer in (one, other)]
    assert [False, True] == [was == now for was, now in zip(before, after, strict=True)]


async def test_incomplete_account_is_introduced_to_nobody(world: World) -> None:
    marketer = await world.register_marketer()
    (account,) = await world.open_imported("may", ["r"])
    subject = open_ref(world.ring("vault"), "vault", account.vault_ref).subject

    assert [NOTHING] == await world.introduce(marketer, [world.candidate(subject, marketer.name)])
    await world.complete_imported("may", ["r"])
    assert await pseudonym(world, marketer, subject)


async def test_candidates_that_are_not_for_this_are_answered_with_nothing_in_their_place(world: World) -> None:
    marketer, other = await world.register_marketer(), await world.register_marketer("Boots AG")
    first, last = await imported(world, 2)
    good = world.candidate(first, marketer.name)
    candidates = [
        good,
        world.candidate(first, marketer.name, "another exchange"),
        world.candidate(first, other.name),
        world.candidate("a" * 26, marketer.name),
        b"",
        b"garbage",
        good[:-1] + bytes([good[-1] ^ 1]),
        good[:30],
        world.candidate(last, marketer.name),
    ]

    introduced = await world.introduce(marketer, candidates)

    assert [True, *[False] * 7, True] == [bool(introduction.pseudonym) for introduction in introduced]
    assert [NOTHING] * 7 == list(introduced[1:8])
    assert introduced[0].pseudonym != introduced[8].pseudonym


async def test_suspended_marketer_is_introduced_to_nobody(world: World) -> None:
    marketer = await world.register_marketer()
    (subject,) = await imported(world, 1)
    await world.update(marketer, suspended=True)

    assert "" == await pseudonym(world, marketer, subject)
    assert [] == await rows(world, "SELECT customer FROM introductions")


async def test_introduction_is_kept_with_who_when_and_as_whom(world: World) -> None:
    marketer = await world.register_marketer()
    (subject,) = await imported(world, 1)
    at = world.clock.now()
    alias = await pseudonym(world, marketer, subject)
    world.clock.move(timedelta(minutes=1))
    await pseudonym(world, marketer, subject)

    kept = "SELECT 'marketers/' || marketer, pseudonym, introduced_at FROM introductions"
    assert [(marketer.name, alias, at)] == await rows(world, kept)


async def test_thousand_candidates_take_well_under_a_second(world: World) -> None:
    marketer = await world.register_marketer()
    subjects = await imported(world, 1000)
    candidates = [world.candidate(subject, marketer.name) for subject in subjects]

    started = time.perf_counter()
    introduced = await world.introduce(marketer, candidates)
    seconds = time.perf_counter() - started

    print(f"1,000 introductions in {seconds:.3f} s")
    assert 1000 == len({introduction.pseudonym for introduction in introduced})
    assert seconds < 2  # a fifth of that on a quiet machine


async def test_same_candidates_in_two_orders_at_once_are_introduced_alike(world: World) -> None:
    marketer = await world.register_marketer()
    candidates = [world.candidate(subject, marketer.name) for subject in await imported(world, 100)]

    orders = [candidates, candidates[::-1]] * 2
    answers = await asyncio.gather(*(world.introduce(marketer, order) for order in orders))

    names = [[introduction.pseudonym for introduction in answer] for answer in answers]
    assert [names[0], names[0][::-1]] * 2 == names
    assert [(100,)] == await rows(world, "SELECT count(*) FROM introductions")
