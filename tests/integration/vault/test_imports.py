"""Imports: all or none, the same again changes nothing, and nothing is discoverable before its customer has seen it."""

import secrets

from parley.vault.v1 import vault_pb2 as vaultpb
from parley_kit.faults import CallerNotAllowed, InvalidRequest
from parley_terms.faults import AttributeUnknown, InvalidValue
from tests.support.vault import Person, World, asks, fault_of, one_of

IMPORTED, OBSERVED = vaultpb.PROVENANCE_IMPORTED, vaultpb.PROVENANCE_OBSERVED
Rows = list[tuple[str, str]]


def entry(person: Person, rows: Rows, provenance: vaultpb.Provenance.ValueType = IMPORTED) -> vaultpb.ImportEntry:
    items = [vaultpb.ImportedItem(attribute=name, value=value, provenance=provenance) for name, value in rows]
    return vaultpb.ImportEntry(vault_ref=person.ref(pseudonym="", marketer=""), items=items)


async def importing(world: World, *entries: vaultpb.ImportEntry) -> int:
    answer = await world.importer(vaultpb.ImportItemsRequest(entries=entries))
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


async def test_new_import_hides_what_its_customer_had_made_discoverable(world: World) -> None:
    ada, likes = world.person(), asks("interest.music", one_of("true"))
    await ada.put(interest__music="yes")
    await ada.show("interest.music")
    await importing(world, entry(ada, [("interest.music", "yes")]))

    assert [] == await world.match(likes)
    await ada.show("interest.music")
    assert 0 == await importing(world, entry(ada, [("interest.music", "yes")]))
    assert [ada.subject] == await world.match(likes)


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
    request = vaultpb.ImportItemsRequest(entries=[entry(ada, [("profile.age", "42")])])

    assert CallerNotAllowed is type(await fault_of(ada.ImportItems(request)))
    assert CallerNotAllowed is type(await fault_of(world.broker.ImportItems(request)))
