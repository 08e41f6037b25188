"""Who is found: by discoverable items only, at the marketer's level, in an order that says nothing, as long as it holds."""

import asyncio
import io
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Iterable
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

from parley.common.v1 import terms_pb2 as termspb
from parley.vault.v1 import vault_pb2 as vaultpb
from parley_crypto.keyring import KeyRing
from parley_crypto.signing import Signer
from parley_crypto.subject_ref import CandidateRef, open_candidate
from parley_kit.faults import InvalidRequest, Unauthenticated
from parley_kit.ids import new_id
from parley_rpc.logs import logger
from parley_terms.faults import AttributeUnknown, InvalidValue
from parley_terms.terms import Criteria, Level
from parley_vault import catalogue
from parley_vault.domain.matching import Index
from parley_vault.finding import DatabaseFellBack, Finder
from parley_vault.safe import Kept, Safe
from parley_vault.store import Store
from tests.integration.vault.conftest import Start
from tests.support.calls import fault_of
from tests.support.vault import EXCHANGE, MARKETER, Person, World, all_of, asks, none_of, one_of, within
from tests.support.waiting import until

MUSIC = asks("interest.music", one_of("true"))


async def test_only_who_made_the_item_discoverable_is_found(world: World) -> None:
    ada, bob = world.person(), world.person()
    await ada.put(interest__music="yes")
    await bob.put(interest__music="yes")
    await ada.show("interest.music")

    assert [ada.subject] == await world.match(MUSIC)


async def test_candidate_is_sealed_to_identity_for_this_exchange_and_marketer(world: World) -> None:
    ada = world.person()
    await ada.put(interest__music="yes")
    await ada.show("interest.music")
    answer = await world.match_page(MUSIC)

    ref = open_candidate(world.keys.ring("candidate"), answer.candidate_refs[0])
    assert CandidateRef(ada.subject, EXCHANGE, MARKETER) == ref
    again = await world.match_page(MUSIC)
    assert answer.candidate_refs[0] != again.candidate_refs[0]
    assert ada.subject.encode() not in answer.SerializeToString()


@pytest.mark.parametrize("chosen", Level)
@pytest.mark.parametrize("marketer", Level)
async def test_item_is_matched_on_from_its_level_up(world: World, chosen: Level, marketer: Level) -> None:
    ada = world.person()
    await ada.put(interest__music="yes")
    await ada.show("interest.music", level=chosen)

    assert ([ada.subject] if marketer >= chosen else []) == await world.match(MUSIC, marketer)
    assert [] == await world.match(none_of(MUSIC), marketer)


async def test_catalogue_keeps_an_item_from_marketers_below_its_level(world: World) -> None:
    ada = world.person()
    await ada.put(finance__income="100")
    await ada.show("finance.income")
    rich = asks("finance.income", within("50"))

    assert [] == await world.match(rich, Level.UNVERIFIED)
    assert [ada.subject] == await world.match(rich, Level.VERIFIED)


async def test_not_leaves_out_who_can_not_be_asked(world: World) -> None:
    ada, bob, eve = (world.person() for _ in range(3))
    for person, likes in ((ada, "yes"), (bob, "no"), (eve, "no")):
        await person.put(interest__music=likes, profile__age="42")
        await person.show("profile.age")
    await ada.show("interest.music")
    await bob.show("interest.music")

    assert [bob.subject] == await world.match(none_of(MUSIC))
    assert [ada.subject] == await world.match(all_of(MUSIC, asks("profile.age", within("40", "50"))))
    assert {ada.subject, bob.subject, eve.subject} == set(await world.match(asks("profile.age", within("42", "42"))))


async def test_put_delete_and_switch_count_at_once(world: World) -> None:
    ada = world.person()
    await ada.put(interest__music="yes")
    await ada.show("interest.music")
    assert [ada.subject] == await world.match(MUSIC)
    await ada.put(interest__music="no")
    assert [] == await world.match(MUSIC)
    await ada.put(interest__music="yes")
    assert [ada.subject] == await world.match(MUSIC)
    await ada.show("interest.music", level=None)
    assert [] == await world.match(MUSIC)
    await ada.show("interest.music")
    await ada.delete("interest.music")
    assert [] == await world.match(MUSIC)


async def test_pages_hold_everyone_once_in_an_order_of_the_exchange(world: World) -> None:
    people = await world.musical(25)
    pages, token = [], ""
    for _ in range(4):
        page = await world.match_page(MUSIC, page_size=7, page_token=token)
        pages.append(world.subjects(page.candidate_refs))
        token = page.next_page_token

    assert ([7, 7, 7, 4], "") == ([len(page) for page in pages], token)
    flat = [subject for page in pages for subject in page]
    assert {person.subject for person in people} == set(flat)
    assert flat == await world.match(MUSIC)
    orders = {tuple(await world.match(MUSIC, exchange=f"{EXCHANGE}{number}")) for number in range(3)}
    assert len(orders | {tuple(flat), tuple(sorted(flat)), tuple(person.subject for person in people)}) == 6


async def test_whoever_hides_between_two_pages_is_not_on_the_second(world: World) -> None:
    people = await world.musical(9)
    first = await world.match_page(MUSIC, page_size=4)
    gone = next(person for person in people if person.subject not in world.subjects(first.candidate_refs))
    await gone.show("interest.music", level=None)

    second = await world.match_page(MUSIC, page_size=4, page_token=first.next_page_token)

    assert ("", 4) == (second.next_page_token, len(second.candidate_refs))
    assert gone.subject not in world.subjects(second.candidate_refs)


async def test_everybody_is_looked_for_once_for_all_pages(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.musical(9)
    looked, find = list[Criteria](), Index.find

    def noted(index: Index, criteria: Criteria, level: Level) -> set[str]:
        looked.append(criteria)
        return find(index, criteria, level)

    monkeypatch.setattr(Index, "find", noted)
    for times in (1, 2):
        token = ""
        for _ in range(5):
            page = await world.match_page(MUSIC, page_size=2, page_token=token)
            token = page.next_page_token

        assert ("", times) == (token, len(looked))


async def test_newcomers_are_found_on_later_pages(world: World) -> None:
    people = await world.musical(6)
    token = (await world.match_page(MUSIC, page_size=1)).next_page_token
    people += await world.musical(20)

    found = set(await world.match(MUSIC, page_size=100, page_token=token))

    assert found == set((await world.match(MUSIC))[-len(found) :])
    assert found & {person.subject for person in people[6:]}


async def test_searches_by_other_words_of_one_exchange_are_kept_apart(world: World) -> None:
    musical, others = await world.musical(3), [world.person() for _ in range(3)]
    for person in others:
        await person.put(interest__music="no")
        await person.show("interest.music")

    await world.match_page(MUSIC, page_size=1)
    found = await world.match_page(none_of(MUSIC), page_size=10)

    assert {person.subject for person in others} == set(world.subjects(found.candidate_refs))
    assert {person.subject for person in musical} == set(await world.match(MUSIC))


async def test_match_after_a_restart_is_as_before(start: Start) -> None:
    criteria = all_of(asks("profile.age", within("30", "45")), none_of(MUSIC))
    async with start() as world:
        for age in range(25, 50):
            person = world.person()
            await person.put(profile__age=str(age), interest__music="yes" if age % 2 else "no", profile__city="Rome")
            await person.show("profile.age", "interest.music", level=Level(age % 3 + 1))
            if age == 36:
                await person.show("interest.music", level=None)
        before = [await world.match(criteria, level) for level in Level]
    async with start() as world:
        after = [await world.match(criteria, level) for level in Level]

    assert before == after
    assert [2, 4, 7] == [len(found) for found in before]
    assert '"count": 49' in world.logged.getvalue()


async def test_row_that_was_moved_is_not_matched_on_after_a_restart(start: Start) -> None:
    async with start() as world:
        ada, bob = world.person(), world.person()
        for person in (ada, bob):
            await person.put(interest__music="yes")
            await person.show("interest.music")
        sql = "UPDATE items AS i SET ciphertext = j.ciphertext FROM items AS j WHERE i.subject = $1 AND j.subject = $2"
        await world.db.execute(sql, ada.subject, bob.subject)
    async with start() as world:
        assert [bob.subject] == await world.match(MUSIC)
        assert "item_refused" in world.logged.getvalue()


@pytest.mark.parametrize(
    ("criteria", "kind", "path"),
    [
        (asks("profile.shoe", one_of("9")), AttributeUnknown, "criteria.test.attribute"),
        (asks("profile.age", one_of("old")), InvalidValue, "criteria.test.question"),
        (asks("profile.age", one_of("042")), InvalidValue, "criteria.test.question"),
        (asks("profile.job", within("a", "b")), InvalidValue, "criteria.test.question"),
        (asks("profile.age", within()), InvalidValue, "criteria.test.question"),
        (
            all_of(MUSIC, none_of(asks("profile.shoe", one_of("9")))),
            AttributeUnknown,
            "criteria.all_of.criteria[1].not.test.attribute",
        ),
        (termspb.Criteria(), InvalidRequest, "criteria"),
        (all_of(*(all_of(*[MUSIC] * 13) for _ in range(5))), InvalidRequest, "criteria"),
    ],
)
async def test_question_that_does_not_fit_is_named(world: World, criteria: Any, kind: type, path: str) -> None:
    fault = await fault_of(world.match(criteria))

    assert (kind, path) == (type(fault), fault.violations[0].field)


async def test_card_that_identity_did_not_sign_or_that_is_over_finds_nobody(world: World) -> None:
    forged = world.card(signer=Signer(secrets.token_bytes(32)))
    old = world.card()
    request: dict[str, Any] = {"exchange": EXCHANGE, "criteria": MUSIC}

    assert Unauthenticated is type(
        await fault_of(world.broker.Match(vaultpb.MatchRequest(marketer_card=forged, **request)))
    )
    world.clock.at += timedelta(hours=1)
    assert Unauthenticated is type(
        await fault_of(world.broker.Match(vaultpb.MatchRequest(marketer_card=old, **request)))
    )


async def test_token_of_another_kind_is_refused(world: World) -> None:
    fault = await fault_of(world.match_page(MUSIC, page_token="not/one"))

    assert (InvalidRequest, "page_token") == (type(fault), fault.violations[0].field)


async def test_log_of_a_rebuild_counts_and_names_nobody(start: Start) -> None:
    async with start() as world:
        people = [world.person() for _ in range(3)]
        for person in people:
            await person.put(interest__music="yes")
            await person.show("interest.music")
    async with start() as world:
        assert "index_rebuilt" in world.logged.getvalue()
        assert not any(person.subject in world.logged.getvalue() for person in people)
    assert all(one != other for one, other in pairwise(people))


# --- Several processes ----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def two_vaults(start: Start) -> AsyncIterator[tuple[World, World]]:
    """Two of them on one database, each of which listens to the other."""
    async with start() as one, start() as other:
        yield one, other


async def test_what_is_shown_changed_or_hidden_through_one_process_is_so_in_the_other(start: Start) -> None:
    async with two_vaults(start) as (one, other):
        person = one.person()
        await person.put(interest__music="yes")

        await person.show("interest.music")
        await until(lambda: equals(other.match(MUSIC), [person.subject]))
        await person.put(interest__music="no")
        await until(lambda: equals(other.match(MUSIC), []))
        await person.put(interest__music="yes")
        await until(lambda: equals(other.match(MUSIC), [person.subject]))
        await person.show("interest.music", level=None)
        await until(lambda: equals(other.match(MUSIC), []))


async def test_whoever_changes_something_else_matches_throughout_in_the_other_process(start: Start) -> None:
    async with two_vaults(start) as (one, other):
        person = one.person()
        await person.put(interest__music="yes")
        await person.show("interest.music")
        await until(lambda: equals(other.match(MUSIC), [person.subject]))
        acting = asyncio.create_task(acts(person, 100))
        while not acting.done():
            assert [person.subject] == await other.match(MUSIC)
        await acting


async def acts(person: Person, times: int) -> None:
    for number in range(times):
        await person.put(profile__age=str(20 + number % 50))


async def test_a_change_that_commits_after_a_later_one_was_heard_of_is_not_missed(start: Start) -> None:
    async with start() as one:
        store, early, late = Store(one.db), new_id(), new_id()
        since = await store.now()
        async with one.db.tx("test.early") as slow:
            await store.own(slow, early, b"", one.clock.now(), puts=True)
            async with one.db.tx("test.late") as quick:
                await store.own(quick, late, b"", one.clock.now(), puts=True)
            then, named = await store.changed(since)
            assert {late} == {subject for subject, _ in named}
        _, named = await store.changed(then)
        assert early in {subject for subject, _ in named}


async def test_nobody_is_read_again_and_again_while_some_transaction_stays_open(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with start() as one:
        finder, person, read = finder_of(one), one.person(), Counter[str]()
        await finder.rebuild()
        reading = Store.discoverable_of

        async def counting(store: Store, subjects: Iterable[str]) -> list[Kept]:
            if store is finder._store:
                read.update(subjects)
            return await reading(store, subjects)

        monkeypatch.setattr(Store, "discoverable_of", counting)
        async with one.db.tx("test.open") as tx:
            await tx.fetchval("SELECT pg_current_xact_id()::text")
            for _ in range(2):
                await person.put(interest__music="yes")
                for _ in range(3):
                    await finder.hear()
    assert {person.subject: 2} == read


async def test_database_that_fell_back_behind_what_was_read_ends_the_process(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with start() as one:
        now = await Store(one.db).now()
        monkeypatch.setattr(Store, "now", lambda _: answering(now + 1_000))
        with pytest.raises(DatabaseFellBack):
            await finder_of(one).rebuild()


async def answering(place: int) -> int:
    return place


def finder_of(world: World) -> Finder:
    """One more index on a vault's database."""
    safe = Safe(KeyRing.load(world.config.master_key))
    return Finder(Store(world.db), safe, catalogue.load(), logger("vault", io.StringIO()))


async def equals(found: Awaitable[object], wanted: object) -> bool:
    return wanted == await found
