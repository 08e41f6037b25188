"""What leaves: what a permit of consent's names, for whom it names, sealed to whom it names; nothing else ever."""

import secrets
from datetime import timedelta
from typing import Any

import pytest

from parley.common.v1 import permit_pb2 as permitpb
from parley.common.v1 import terms_pb2 as termspb
from parley.vault.v1 import vault_pb2 as vaultpb
from parley_crypto.signing import Sealer, SealInvalid, Signer
from parley_terms.wire import timestamp
from tests.support.vault import ANSWER, MARKETER, Person, World, answer, exact, one_of, within

AGE, MUSIC = exact("profile.age"), answer("interest.music", one_of("true"))


async def ada_of(world: World) -> Person:
    ada = world.person()
    await ada.put(profile__age="42", interest__music="yes", finance__income="90000", profile__city="Canaryville")
    return ada


async def test_marketer_reads_what_the_permit_names_and_nothing_else(world: World) -> None:
    ada = await ada_of(world)
    permit = world.permit(ada, [AGE, MUSIC, answer("finance.income", within("100000")), exact("contact.email")])
    permit.terms.timing.validity.end_time.CopyFrom(timestamp(world.clock.now() + timedelta(days=30)))
    [read] = await world.release((ada.ref(), permit))

    assert {
        "release": permit.release_id,
        "exchange": permit.exchange,
        "marketer": MARKETER,
        "pseudonym": ada.pseudonym,
        "consent": permit.consent,
        "fields": [
            {"attribute": "profile.age", "form": "exact", "value": "42"},
            {"attribute": "interest.music", "form": "answer", "question": {"one_of": ["true"]}, "answer": True},
            {"attribute": "finance.income", "form": "answer", "question": {"min": "100000"}, "answer": False},
        ],
        "expires": "2031-06-03T12:00:00.000000Z",
        "kid": world.keys.vault.key_id,
    } == read


async def test_release_is_sealed_to_the_marketer_alone(world: World) -> None:
    ada = await ada_of(world)
    response = await world.broker.Release(world.asking([(ada.ref(), world.permit(ada, [exact("profile.city")]))]))

    assert b"Canaryville" not in response.SerializeToString()
    assert ada.subject.encode() not in response.SerializeToString()
    with pytest.raises(SealInvalid):
        Sealer(secrets.token_bytes(32)).open(response.outcomes[0].sealed_release)


async def test_repeat_is_a_retry_and_leaves_no_record(world: World) -> None:
    ada = await ada_of(world)
    before = await _rows(world)
    request = world.asking([(ada.ref(), world.permit(ada, [AGE]))])
    first, second = [(await world.broker.Release(request)).outcomes[0] for _ in range(2)]

    assert world.read(first) == world.read(second)
    assert before == await _rows(world)


async def _rows(world: World) -> list[int]:
    tables = await world.db.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY tablename")
    return [await world.db.fetchval(f'SELECT count(*) FROM "{row[0]}"') for row in tables]


async def test_newest_version_is_released_and_a_deleted_item_is_absent(world: World) -> None:
    ada = await ada_of(world)
    await ada.put(profile__age="43")
    await ada.delete("interest.music")
    [read] = await world.release((ada.ref(), world.permit(ada, [AGE, MUSIC])))

    assert [{"attribute": "profile.age", "form": "exact", "value": "43"}] == read["fields"]


async def test_what_was_put_since_a_permit_s_moment_is_absent_and_so_is_what_it_was_before(world: World) -> None:
    ada, then = await ada_of(world), world.clock.now()
    world.clock.move(timedelta(seconds=1))
    await ada.put(profile__age="43")
    fields = [AGE, exact("profile.city")]
    again, anew = world.permit(ada, fields, unchanged_since=timestamp(then)), world.permit(ada, fields)

    reads = await world.release((ada.ref(), again), (ada.ref(), anew))

    assert [["Canaryville"], ["43", "Canaryville"]] == [[field["value"] for field in read["fields"]] for read in reads]


@pytest.mark.parametrize(("level", "given"), [(1, 1), (2, 2)])
async def test_marketer_that_lost_its_level_is_not_given_what_takes_it(world: World, level: Any, given: int) -> None:
    ada = await ada_of(world)
    permit = world.permit(ada, [AGE, exact("finance.income")])
    permit.marketer_level = level

    [read] = await world.release((ada.ref(), permit))

    assert ["profile.age", "finance.income"][:given] == [field["attribute"] for field in read["fields"]]


async def test_batch_of_many_is_answered_in_order(world: World) -> None:
    people = [world.person() for _ in range(30)]
    for age, person in enumerate(people):
        await person.put(profile__age=str(age))
    entries = [(person.ref(), world.permit(person, [AGE])) for person in people]
    entries[7] = (people[8].ref(), entries[7][1])
    entries[9][1].expire_time.CopyFrom(timestamp(world.clock.now()))
    outcomes = await world.release(*entries)

    assert ("PERMIT_INVALID", "PERMIT_EXPIRED") == (outcomes[7], outcomes[9])
    for age, outcome in enumerate(outcomes):
        if age not in (7, 9):
            assert [str(age)] == [field["value"] for field in outcome["fields"]]
            assert people[age].pseudonym == outcome["pseudonym"]


@pytest.mark.parametrize(
    "change",
    [
        {"pseudonym": "another"},
        {"marketer": "marketers/another"},
        {"vault_host": "elsewhere"},
        {"sealing_key": bytes(32)},
        {"sealing_key": b"short"},
        {"fields": [termspb.Field(attribute="profile.city", form=termspb.FORM_BANDED)]},
        {"fields": [termspb.Field(attribute="profile.city", form=ANSWER)]},
        {"fields": [termspb.Field(attribute="profile.city")]},
    ],
    ids=["pseudonym", "marketer", "host", "weak key", "short key", "banded", "no question", "no form"],
)
async def test_permit_for_another_or_for_what_can_not_be_given_opens_nothing(world: World, change: Any) -> None:
    ada = await ada_of(world)

    assert ["PERMIT_INVALID"] == await world.release((ada.ref(), world.permit(ada, **({"fields": [AGE]} | change))))


@pytest.mark.parametrize("change", [{"pseudonym": "another"}, {"marketer": "marketers/another"}, {"pseudonym": ""}])
async def test_ref_for_another_opens_nothing(world: World, change: dict[str, str]) -> None:
    ada = await ada_of(world)

    assert ["PERMIT_INVALID"] == await world.release((ada.ref(**change), world.permit(ada, [AGE])))


async def test_ref_that_identity_did_not_seal_opens_nothing(world: World) -> None:
    ada = await ada_of(world)

    assert ["PERMIT_INVALID"] == await world.release((secrets.token_bytes(253), world.permit(ada, [AGE])))


async def test_permit_is_over_after_its_life(world: World) -> None:
    ada = await ada_of(world)
    request = world.asking([(ada.ref(), world.permit(ada, [AGE]))])
    world.clock.at += timedelta(seconds=29)
    assert (await world.broker.Release(request)).outcomes[0].refusal == ""
    world.clock.at += timedelta(seconds=1)

    assert "PERMIT_EXPIRED" == (await world.broker.Release(request)).outcomes[0].refusal


async def test_permit_that_consent_did_not_sign_opens_nothing(world: World) -> None:
    ada = await ada_of(world)
    entry = (ada.ref(), world.permit(ada, [AGE]))
    forged = world.asking([entry], signer=Signer(secrets.token_bytes(32)))
    unknown = world.asking([entry])
    unknown.batch.key_id = world.keys.identity.key_id

    for request in (forged, unknown):
        assert "PERMIT_INVALID" == (await world.broker.Release(request)).outcomes[0].refusal


async def test_permit_that_was_changed_or_moved_opens_nothing(world: World) -> None:
    ada = await ada_of(world)
    request = world.asking([(ada.ref(), world.permit(ada, [AGE])), (ada.ref(), world.permit(ada, [MUSIC]))])
    more = permitpb.PermitBody.FromString(request.entries[0].permit.body)
    more.fields.append(exact("finance.income"))
    changed, moved, bare = (vaultpb.ReleaseRequest() for _ in range(3))
    for copy in (changed, moved, bare):
        copy.CopyFrom(request)
    changed.entries[0].permit.body = more.SerializeToString()
    moved.entries[0].permit.index = 1
    del bare.entries[0].permit.proof[:]

    for broken in (changed, moved, bare):
        outcomes = (await world.broker.Release(broken)).outcomes
        assert ["PERMIT_INVALID", ""] == [outcome.refusal for outcome in outcomes]


async def test_row_that_was_moved_spoils_its_own_release_only(world: World) -> None:
    ada, bob = await ada_of(world), await ada_of(world)
    sql = (
        "UPDATE items AS i SET ciphertext = j.ciphertext FROM items AS j"
        " WHERE i.subject = $1 AND j.subject = $2 AND i.attribute = 'profile.age' AND j.attribute = 'profile.age'"
    )
    await world.db.execute(sql, ada.subject, bob.subject)
    spoilt, whole = await world.release(*((one.ref(), world.permit(one, [AGE])) for one in (ada, bob)))

    assert ("INTERNAL", "42") == (spoilt, whole["fields"][0]["value"])
    assert "item_refused" in world.logged.getvalue()
