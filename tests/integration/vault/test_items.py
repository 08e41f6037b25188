"""A customer's items: put, read, switched, deleted, told to audit; kept so that a copy of the database says nothing."""

import asyncio
import base64
from copy import copy
from typing import Any

import pytest

from parley.common.v1 import terms_pb2 as termspb
from parley.common.v1.event_envelope_pb2 import EventEnvelope
from parley.vault.v1 import vault_pb2 as vaultpb
from parley.vault.v1.vault_pb2_grpc import VaultServiceStub
from parley_bus.bus import GroupMissing
from parley_kit.faultpoints import armed
from parley_kit.faults import CallerNotAllowed, Internal, InvalidRequest, RequestIdReused, Violation
from parley_terms.faults import AttributeUnknown, InvalidValue
from parley_terms.terms import Level
from parley_vault.faults import ItemNotFound
from tests.support.calls import fault_of, request_id
from tests.support.vault import World, asks, one_of, within
from tests.support.waiting import until


def putting(*pairs: tuple[str, str], under: str = "") -> vaultpb.PutItemsRequest:
    items = [vaultpb.ItemValue(attribute=attribute, value=value) for attribute, value in pairs]
    return vaultpb.PutItemsRequest(items=items, request_id=under or request_id())


async def test_item_is_put_in_canonical_text_and_read_back(world: World) -> None:
    ada = world.person()
    answer = await ada.put(profile__age=" 042 ", interest__hiking="Yes")

    assert [("items/profile.age", 1), ("items/interest.hiking", 1)] == [(v.name, v.version) for v in answer.versions]
    item = await ada.get("profile.age")
    assert ("items/profile.age", "profile.age", "42", 1) == (item.name, item.attribute, item.value, item.version)
    assert (vaultpb.PROVENANCE_ENTERED, 0) == (item.provenance, item.discoverable_to)
    assert world.clock.now() == item.create_time.ToDatetime(tzinfo=world.clock.now().tzinfo)


async def test_every_put_is_a_version_and_history_keeps_all(world: World) -> None:
    ada = world.person()
    for age in ("41", "42", "42"):
        await ada.put(profile__age=age)
    await ada.show("profile.age")
    history = await ada.ListItemVersions(vaultpb.ListItemVersionsRequest(name="items/profile.age"))

    assert [(3, "42", 1), (2, "42", 0), (1, "41", 0)] == [
        (i.version, i.value, i.discoverable_to) for i in history.items
    ]


async def test_five_puts_at_once_with_one_request_id_are_one_version(world: World) -> None:
    ada, request = world.person(), putting(("profile.age", "42"))
    answers = await asyncio.gather(*(ada.PutItems(request) for _ in range(5)))

    assert [1] * 5 == [answer.versions[0].version for answer in answers]
    history = await ada.ListItemVersions(vaultpb.ListItemVersionsRequest(name="items/profile.age"))
    assert 1 == len(history.items)
    assert 1 == len(await world.events())


async def test_puts_at_once_with_ids_of_their_own_follow_each_other(world: World) -> None:
    ada = world.person()
    await asyncio.gather(*(ada.put(profile__age=str(age)) for age in range(8)))
    history = await ada.ListItemVersions(vaultpb.ListItemVersionsRequest(name="items/profile.age"))

    assert list(range(8, 0, -1)) == [item.version for item in history.items]


async def test_request_id_with_another_value_is_refused(world: World) -> None:
    ada, under = world.person(), request_id()
    await ada.PutItems(putting(("profile.age", "42"), under=under))

    assert RequestIdReused is type(await fault_of(ada.PutItems(putting(("profile.age", "43"), under=under))))
    assert "42" == (await ada.get("profile.age")).value


async def test_wrong_items_are_named_and_nothing_is_put(world: World) -> None:
    ada = world.person()
    unknown = await fault_of(ada.PutItems(putting(("profile.age", "42"), ("profile.shoe", "9"))))
    invalid = await fault_of(ada.PutItems(putting(("profile.age", "old"), ("profile.country", "XX"))))
    twice = await fault_of(ada.PutItems(putting(("profile.age", "42"), ("profile.age", "43"))))

    assert (AttributeUnknown, (Violation("items[1].attribute", "is not in the catalogue"),)) == (
        type(unknown),
        unknown.violations,
    )
    assert (InvalidValue, (Violation("items[0].value", "profile.age is a whole number of years"),)) == (
        type(invalid),
        invalid.violations,
    )
    assert (InvalidRequest, "items[1].attribute") == (type(twice), twice.violations[0].field)
    assert [] == list((await ada.ListItems(vaultpb.ListItemsRequest())).items)


async def test_items_come_in_pages_by_attribute(world: World) -> None:
    ada = world.person()
    await ada.put(profile__age="42", finance__income="100", contact__email="ada@canary.example", interest__music="no")
    first = await ada.ListItems(vaultpb.ListItemsRequest(page_size=3))
    second = await ada.ListItems(vaultpb.ListItemsRequest(page_size=3, page_token=first.next_page_token))

    assert ["contact.email", "finance.income", "interest.music"] == [item.attribute for item in first.items]
    assert ["profile.age"] == [item.attribute for item in second.items]
    assert second.next_page_token == ""
    for token in ("ü", "AA==", "w7w="):  # NUL, and ü
        fault = await fault_of(ada.ListItems(vaultpb.ListItemsRequest(page_token=token)))
        assert (InvalidRequest, "page_token") == (type(fault), fault.violations[0].field), token


async def test_repeat_of_a_deletion_leaves_what_was_put_since(world: World) -> None:
    ada = world.person()
    await ada.put(profile__city="Lisbon")
    delete = vaultpb.DeleteItemRequest(name="items/profile.city", request_id=request_id())
    first = await ada.DeleteItem(delete)
    await ada.put(profile__city="Porto")
    assert (first, "Porto") == (await ada.DeleteItem(delete), (await ada.get("profile.city")).value)


async def test_repeat_of_a_switch_switches_nothing_back_and_keeps_no_value_for_it(world: World) -> None:
    ada = world.person()
    await ada.put(profile__city="Lisbon")
    show = vaultpb.SetDiscoverableRequest(name="items/profile.city", discoverable_to=1, request_id=request_id())  # type: ignore[arg-type] # an enum's number
    assert 1 == (await ada.SetDiscoverable(show)).discoverable_to
    await ada.show("profile.city", level=None)
    assert 0 == (await ada.SetDiscoverable(show)).discoverable_to == (await ada.get("profile.city")).discoverable_to
    kept = await world.db.fetch("SELECT response FROM requests WHERE request_id = $1", show.request_id)
    assert [b""] == [row["response"] for row in kept]


async def test_others_items_are_as_if_they_were_not_there(world: World) -> None:
    ada, bob = world.person(), world.person()
    await ada.put(profile__age="42")
    asked = {
        "GetItem": vaultpb.GetItemRequest(name="items/profile.age"),
        "ListItemVersions": vaultpb.ListItemVersionsRequest(name="items/profile.age"),
        "SetDiscoverable": vaultpb.SetDiscoverableRequest(
            name="items/profile.age", discoverable_to=termspb.VERIFICATION_LEVEL_VERIFIED, request_id=request_id()
        ),
    }
    for rpc, request in asked.items():
        theirs = await fault_of(getattr(bob, rpc)(request))
        absent: Any = copy(request)
        absent.name = "items/profile.city"
        nobodys = await fault_of(getattr(bob, rpc)(absent))
        assert (ItemNotFound, theirs.message) == (type(theirs), nobodys.message)
    await bob.delete("profile.age")
    assert "42" == (await ada.get("profile.age")).value
    assert [] == list((await bob.ListItems(vaultpb.ListItemsRequest())).items)


async def test_deleted_item_is_gone_with_its_history_and_its_switch(world: World) -> None:
    ada = world.person()
    await ada.put(profile__age="41")
    await ada.put(profile__age="42")
    await ada.show("profile.age")
    await ada.delete("profile.age")
    await ada.delete("profile.age")

    assert ItemNotFound is type(await fault_of(ada.get("profile.age")))
    assert 0 == await world.db.fetchval("SELECT count(*) FROM items")
    await ada.put(profile__age="43")
    assert 0 == (await ada.get("profile.age")).discoverable_to
    assert [] == await world.match(asks("profile.age", within("0")))


async def test_every_act_is_one_event_for_audit_without_values(world: World) -> None:
    ada = world.person()
    await ada.put(profile__age="42", profile__city="Canaryville")
    await ada.show("profile.age", level=Level.VERIFIED)
    await ada.show("profile.age", level=Level.VERIFIED)  # changes nothing, so it is none
    await ada.show("profile.age", level=None)
    await ada.delete("profile.age")
    events = await world.events()

    assert [
        ("vault:items:put", [{"attribute": "profile.age", "version": 1}, {"attribute": "profile.city", "version": 1}]),
        ("vault:items:discoverable", [{"attribute": "profile.age", "version": 1, "to": "verified"}]),
        ("vault:items:discoverable", [{"attribute": "profile.age", "version": 1, "to": "nobody"}]),
        ("vault:items:deleted", [{"attribute": "profile.age", "version": 1}]),
    ] == [(detail["kind"], detail["items"]) for _, detail in events]
    assert {b"audit:" + ada.subject.encode()} == {ref for ref, _ in events}


async def test_events_reach_the_reader_that_audit_is(world: World) -> None:
    ada = world.person()
    await ada.put(profile__age="42")

    async def arrived() -> bool:
        try:
            entries = (await world.bus.read(world.bus.stream("vault"), "audit", "one", 10)).entries
        except GroupMissing:
            return False
        return ["parley.vault.v1.ItemsChanged"] == [EventEnvelope.FromString(entry.envelope).type for entry in entries]

    await until(arrived)


async def test_only_customers_act_on_items(world: World) -> None:
    request = vaultpb.GetItemRequest(name="items/profile.age")

    assert CallerNotAllowed is type(await fault_of(world.broker.GetItem(request)))
    assert CallerNotAllowed is type(await fault_of(world.person().Match(vaultpb.MatchRequest())))


async def test_anyone_reads_the_catalogue(world: World) -> None:
    answer = await VaultServiceStub(world.hub.channel()).ListAttributes(vaultpb.ListAttributesRequest())
    age = next(one for one in answer.attributes if one.name == "profile.age")

    assert (vaultpb.VALUE_TYPE_INTEGER, "years", "130") == (age.type, age.unit, age.max)
    income = next(one for one in answer.attributes if one.name == "finance.income")
    assert termspb.VERIFICATION_LEVEL_VERIFIED == income.least_level


async def test_copy_of_the_database_holds_no_value(world: World) -> None:
    ada = world.person()
    await ada.put(profile__city="Canaryville", contact__email="ada@canary.example")
    await ada.show("profile.city", "contact.email")
    dump = await _dump(world)

    for canary in (b"Canaryville", b"canary.example"):
        for spelt in (canary, base64.b64encode(canary), canary.hex().encode(), canary.lower()):
            assert spelt not in dump
    assert b"profile.city" in dump  # the search does find what is there
    assert b"Canary" not in world.logged.getvalue().encode()


async def _dump(world: World) -> bytes:
    tables = await world.db.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    rows = [row for table in tables for row in await world.db.fetch(f'SELECT t.* FROM "{table[0]}" AS t')]
    cells = [cell for row in rows for cell in row.values()]
    return b"\n".join(cell if isinstance(cell, bytes) else str(cell).encode() for cell in cells)


async def test_equal_values_look_different_and_lengths_alike(world: World) -> None:
    people = [world.person() for _ in range(3)]
    for person, value in zip(people, ("single", "single", "partnered"), strict=True):
        await person.put(profile__marital_status=value)
    sealed = [row["ciphertext"] for row in await world.db.fetch("SELECT ciphertext FROM items")]

    assert 3 == len(set(sealed))
    assert 1 == len({len(one) for one in sealed})


@pytest.mark.parametrize("moved", ["subject", "attribute", "version", "data key", "item and data key"])
async def test_row_that_was_moved_to_another_place_is_refused(world: World, moved: str) -> None:
    ada, bob = world.person(), world.person()
    for person in (ada, ada, bob, bob):
        await person.put(interest__music="yes", interest__hiking="no")
    copy = (
        "UPDATE items AS i SET ciphertext = j.ciphertext FROM items AS j"
        " WHERE (i.subject, i.attribute, i.version) = ($1, 'interest.music', 2) AND (j.subject, j.attribute, j.version) = "
    )
    item = copy + "($2, 'interest.music', 2)"
    key = "UPDATE subjects AS s SET dek = t.dek FROM subjects AS t WHERE s.subject = $1 AND t.subject = $2"
    moves = {
        "subject": [item],
        "attribute": [copy + "($1, 'interest.hiking', 2) AND $2 <> ''"],
        "version": [copy + "($1, 'interest.music', 1) AND $2 <> ''"],
        "data key": [key],
        "item and data key": [item, key],
    }
    for sql in moves[moved]:
        await world.db.execute(sql, ada.subject, bob.subject)

    fault = await fault_of(ada.get("interest.music"))
    assert (Internal, ["error_id"]) == (type(fault), list(fault.metadata))
    assert "yes" not in world.logged.getvalue()


async def test_item_whose_answer_was_lost_is_matched_on_all_the_same(world: World) -> None:
    """The commit is done when the caller goes away: the index must not stay behind."""
    ada = world.person()
    await ada.put(interest__music="yes")
    await ada.show("interest.music")
    committed, hold = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        committed.set()
        await hold.wait()

    with armed("vault.PutItems.after_commit", wait):
        call = asyncio.ensure_future(ada.put(interest__music="no"))
        await committed.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    async def found() -> bool:
        return [ada.subject] == await world.match(asks("interest.music", one_of("false")))

    await until(found)
    assert [] == await world.match(asks("interest.music", one_of("true")))
