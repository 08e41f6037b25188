"""Imports: all or none, the same again changes nothing, and nothing is discoverable before its customer has seen it."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from parley.vault.v1 import vault_pb2 as vaultpb
from parley_kit.faults import CallerNotAllowed, InvalidRequest, Violation
from parley_terms.faults import AttributeUnknown, InvalidValue
from parley_vault.faults import ItemNotFound
from tests.support.calls import fault_of, request_id
from tests.support.vault import Person, World, asks, one_of

IMPORTED, OBSERVED = vaultpb.PROVENANCE_IMPORTED, vaultpb.PROVENANCE_OBSERVED
Rows = list[tuple[str, str]]


def entry(person: Person, rows: Rows, provenance: vaultpb.Provenance.ValueType = IMPORTED) -> vaultpb.ImportEntry:
    items = [vaultpb.ImportedItem(attribute=name, value=value, provenance=provenance) for name, value in rows]
    return vaultpb.ImportEntry(vault_ref=person.ref(pseudonym="", marketer=""), items=items)


async def importing(world: World, *entries: vaultpb.ImportEntry) -> int:
    answer = await world.importer(vaultpb.ImportItemsRequest(entries=entries, request_id=request_id()))
    return int(answer.new_versions)


async def test_imported_items_are_their_customers_and_not_discoverable(world: World) -> None:
    people = [world.person() for _ in range(20)]
    rows: Rows = [("profile.age", "042"), ("interest.music", "yes")]

    assert 40 == await importing(world, *(entry(person, rows) for person in people))
    items = (await people[3].ListItems(vaultpb.ListItemsRequest())).items
    assert [("interest.music", "true", 1, IMPORTED, 0), ("profile.age", "42", 1, IMPORTED, 0)] == [
        (item.attribute, item.value, item.version, item.provenance, item.discoverable_to) for item in items
    ]
    assert [] == await world.match(asks("interest.music", one_of("true")))
    assert [] == await world.events()


async def test_same_value_again_is_no_new_version(world: World) -> None:
    ada, bob = world.person(), world.person()
    await importing(world, entry(ada, [("profile.age", "42"), ("profile.city", "Rome")]))

    assert 0 == await importing(world, entry(ada, [("profile.age", "42"), ("profile.city", "Rome")]))
    assert 2 == await importing(world, entry(ada, [("profile.age", "43")]), entry(bob, [("profile.age", "42")]))
    assert 1 == await importing(world, entry(ada, [("profile.age", "43")], OBSERVED))
    assert (3, OBSERVED) == ((await ada.get("profile.age")).version, (await ada.get("profile.age")).provenance)


async def _put(ada: Person) -> None:
    await ada.put(profile__age="42")


async def _show(ada: Person) -> None:
    await ada.show("interest.music")


async def _delete(ada: Person) -> None:
    await ada.delete("interest.music")


async def _delete_nothing(ada: Person) -> None:
    await ada.delete("profile.city")


async def state(world: World, person: Person) -> tuple[object, ...]:
    """All that an import could change: the person's items, who matches, and what was told."""
    items = (await person.ListItems(vaultpb.ListItemsRequest())).items
    matching = await world.match(asks("interest.music", one_of("false", "true")))
    return list(items), matching, await world.events()


@pytest.mark.parametrize("act", [_put, _show, _delete, _delete_nothing])
async def test_no_import_changes_the_bank_of_an_owner_who_has_acted(
    world: World, act: Callable[[Person], Awaitable[None]]
) -> None:
    ada, bob = world.person(), world.person()
    await importing(world, entry(ada, [("interest.music", "yes")]))
    await act(ada)
    before = await state(world, ada)

    for rows in ([("interest.music", "no")], [("profile.city", "Rome")], []):
        fault = await fault_of(importing(world, entry(bob, [("profile.age", "42")]), entry(ada, rows)))
        assert InvalidRequest is type(fault)
        assert (Violation("entries[1].vault_ref", "its owner keeps this bank now"),) == fault.violations
    assert before == await state(world, ada)
    assert ([], before[1], before[2]) == await state(world, bob)


async def test_owner_who_never_was_imported_is_not_imported_into(world: World) -> None:
    ada = world.person()
    await ada.put(interest__music="yes")
    await ada.show("interest.music")

    assert InvalidRequest is type(await fault_of(importing(world, entry(ada, [("interest.music", "no")]))))
    assert [ada.subject] == await world.match(asks("interest.music", one_of("true")))


@pytest.mark.parametrize(
    "look",
    [
        lambda ada: ada.get("profile.age"),
        lambda ada: ada.ListItems(vaultpb.ListItemsRequest()),
        lambda ada: ada.ListItemVersions(vaultpb.ListItemVersionsRequest(name="items/profile.age")),
    ],
    ids=["item", "items", "versions"],
)
async def test_what_its_owner_has_seen_is_nobody_else_s_to_change(world: World, look: Any) -> None:
    ada = world.person()
    await importing(world, entry(ada, [("profile.age", "42")]))
    await look(ada)

    assert InvalidRequest is type(await fault_of(importing(world, entry(ada, [("profile.age", "43")]))))
    assert "42" == (await ada.get("profile.age")).value


async def test_bank_that_its_owner_has_seen_empty_is_nobody_else_s_to_fill(world: World) -> None:
    ada = world.person()
    assert [] == list((await ada.ListItems(vaultpb.ListItemsRequest())).items)

    assert InvalidRequest is type(await fault_of(importing(world, entry(ada, [("profile.age", "43")]))))
    assert [] == list((await ada.ListItems(vaultpb.ListItemsRequest())).items)


async def test_owner_who_has_done_nothing_yet_is_imported_into_still(world: World) -> None:
    ada = world.person()
    await importing(world, entry(ada, [("profile.age", "42")]))
    assert ItemNotFound is type(await fault_of(ada.show("profile.city")))

    assert 1 == await importing(world, entry(ada, [("profile.age", "43")]))


async def test_import_beside_its_owners_first_act_never_comes_out_on_top(world: World) -> None:
    for _ in range(10):
        ada = world.person()
        put = importing(world, entry(ada, [("profile.age", "7")]))
        await asyncio.gather(ada.put(profile__age="42"), put, return_exceptions=True)
        assert "42" == (await ada.get("profile.age")).value


@pytest.mark.parametrize("names", [{"pseudonym": ""}, {"marketer": ""}, {}])
async def test_reference_of_an_introduction_imports_nothing(world: World, names: dict[str, str]) -> None:
    ada = world.person()
    wrong = entry(ada, [("profile.age", "42")])
    wrong.vault_ref = ada.ref(**names)
    fault = await fault_of(importing(world, wrong))

    assert (Violation("entries[0].vault_ref", "is no importer's reference"),) == fault.violations
    assert 0 == await world.db.fetchval("SELECT count(*) FROM items")


async def test_wrong_import_is_named_and_nothing_of_the_call_is_put(world: World) -> None:
    ada, bob = world.person(), world.person()
    good = entry(ada, [("profile.age", "42")])
    cases = [
        (
            entry(bob, [("profile.city", "Rome"), ("profile.shoe", "9")]),
            AttributeUnknown,
            "entries[1].items[1].attribute",
        ),
        (entry(bob, [("profile.age", "old")]), InvalidValue, "entries[1].items[0].value"),
        (
            entry(bob, [("profile.age", "4")], vaultpb.PROVENANCE_ENTERED),
            InvalidRequest,
            "entries[1].items[0].provenance",
        ),
        (entry(ada, [("profile.age", "43")]), InvalidRequest, "entries[1].items[0].attribute"),
        (vaultpb.ImportEntry(vault_ref=secrets.token_bytes(253)), InvalidRequest, "entries[1].vault_ref"),
    ]
    for wrong, kind, path in cases:
        fault = await fault_of(importing(world, good, wrong))
        assert (kind, path) == (type(fault), fault.violations[0].field)
    assert 0 == await world.db.fetchval("SELECT count(*) FROM items")


async def test_only_importers_import(world: World) -> None:
    ada = world.person()
    request = vaultpb.ImportItemsRequest(entries=[entry(ada, [("profile.age", "42")])], request_id=request_id())

    assert CallerNotAllowed is type(await fault_of(ada.ImportItems(request)))
    assert CallerNotAllowed is type(await fault_of(world.broker.ImportItems(request)))
