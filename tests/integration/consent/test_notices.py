"""What marketers are told about a consent of theirs: some time after, and joined to the act by nothing."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from parley.consent.v1 import consent_events_pb2 as eventspb
from parley.consent.v1 import consent_pb2 as consentpb
from parley_db.queries import load
from parley_kit.telemetry import traceparent
from tests.support.calls import request_id
from tests.support.consent import HOUR, Asker, Person, World, migrated, world_of
from tests.support.databases import FreshDatabase
from tests.support.joins import Known, Pairs, by_number, right
from tests.support.servers import Pair
from tests.support.waiting import until

E1, E2 = "exchanges/first", "exchanges/second"
INSTANT = timedelta(microseconds=1)
PEOPLE = 60
CHANCE = 10
"""Right guesses that chance explains: one is to be expected, and more than ten come once in 10^8 attacks (Poisson)."""


async def due_at(world: World) -> datetime:
    """When the one planned notice is due."""
    (row,) = await world.db.fetch("SELECT due_at FROM notices")
    due: datetime = row["due_at"]
    return due


async def notified(world: World) -> list[eventspb.ConsentNotified]:
    return [eventspb.ConsentNotified.FromString(event.payload) for event in await world.events("ConsentNotified")]


async def test_withdrawal_is_told_when_its_delay_is_over_and_not_before(world: World) -> None:
    ann, marketer = Person(), Asker()
    (consent,) = await world.consented(marketer, [ann], E1)
    acted = world.clock.now()
    await world.as_customer(ann).withdraw(consent.name)
    due = await due_at(world)

    world.clock.move(due - acted - INSTANT)
    await world.write_due_notices()
    before = await notified(world)
    world.clock.move(INSTANT)
    await world.write_due_notices()
    await world.write_due_notices()

    assert acted <= due <= acted + HOUR
    (notice,) = await notified(world)
    assert ([], due) == (before, notice.notice_time.ToDatetime(UTC))
    assert ("ConsentRevoked", consent.name) == (notice.notice, notice.consent)
    assert (marketer.name, ann.pseudonym(marketer)) == (notice.marketer, notice.pseudonym)
    assert {
        "consent": consent.name,
        "pseudonym": ann.pseudonym(marketer),
        "notice": "ConsentRevoked",
        "iat": int(due.timestamp()),
    } == world.verified("notice", notice.signed_notice)
    assert 0 == await world.count("notices")


async def test_notice_carries_no_trace_even_if_it_is_written_within_one(world: World) -> None:
    ann, marketer = Person(), Asker()
    (consent,) = await world.consented(marketer, [ann], E1)
    await world.as_customer(ann).withdraw(consent.name)
    traceparent.set(f"00-{'1' * 32}-{'2' * 16}-01")
    try:
        await world.write_all_notices()
    finally:
        traceparent.set("")

    (told,) = await world.events("ConsentNotified")
    assert "" == told.traceparent


async def test_notice_has_its_own_time_leaf_and_no_causation(world: World) -> None:
    ann, marketer = Person(), Asker()
    (consent,) = await world.consented(marketer, [ann], E1)
    await world.as_customer(ann).withdraw(consent.name)
    due = await due_at(world)
    await world.write_all_notices()

    (act,), (told,) = await world.events("ConsentChanged"), await world.events("ConsentNotified")
    acted = eventspb.ConsentChanged.FromString(act.payload).note
    notice = eventspb.ConsentNotified.FromString(told.payload)
    opened = world.opening(notice.note)
    assert act.occurred_at.ToDatetime(UTC) < due == told.occurred_at.ToDatetime(UTC)
    assert acted.commitment != notice.note.commitment
    assert (notice.opening.salt, notice.opening.detail) == (opened.salt, opened.detail)
    assert not any(text in opened.detail for text in (ann.customer.encode(), ann.audit.encode()))


async def test_every_notice_has_a_delay_of_its_own(world: World) -> None:
    people = [Person() for _ in range(20)]
    for person, consent in zip(people, await world.consented(Asker(), people, E1), strict=True):
        await world.as_customer(person).withdraw(consent.name)

    delays = [row["due_at"] - world.clock.now() for row in await world.db.fetch("SELECT due_at FROM notices")]

    assert 20 == len(set(delays))
    assert timedelta() <= min(delays) < max(delays) <= HOUR


async def test_marketer_is_told_of_all_its_consents_at_once_and_no_two_at_the_same_time(world: World) -> None:
    ann, ours, theirs = Person(), Asker(), Asker()
    for asker in (ours, theirs):
        for hours in range(1, 6):  # each beyond the one before, so that it is asked for anew
            asked = world.terms(end=world.clock.now() + hours * HOUR, deadline=world.clock.now() + HOUR)
            await world.consented(asker, [ann], f"exchanges/{asker.name[-8:]}-{hours}", asked)

    await world.as_customer(ann).call("ObjectToMarketing", consentpb.ObjectToMarketingRequest(request_id=request_id()))

    due = {asker.name: {known.numbers["time"] for known in await _told(world, asker)} for asker in (ours, theirs)}
    assert [1, 1] == [len(times) for times in due.values()], "the first and the last of many times tell when it was"
    assert due[ours.name].isdisjoint(due[theirs.name])


async def _told(world: World, marketer: Asker) -> list[Known]:
    """What one marketer is told: whom it is about, when it comes, and the place it has among the others."""
    query = "SELECT pseudonym, due_at FROM notices WHERE marketer = $1 ORDER BY due_at"
    return [
        Known(row["pseudonym"], [], {"time": row["due_at"].timestamp(), "place": place})
        for place, row in enumerate(await world.db.fetch(query, marketer.name))
    ]


async def _objected(world: World, askers: tuple[Asker, Asker]) -> tuple[Sequence[Known], Sequence[Known], Pairs]:
    """Customers of two marketers who object to all marketing, one a second: what each is told, and who is who."""
    people = [Person() for _ in range(PEOPLE)]
    for asker in askers:
        await world.consented(asker, people, f"exchanges/{asker.name[-8:]}")
    for person in people:
        objection = consentpb.ObjectToMarketingRequest(request_id=request_id())
        assert 2 == len((await world.as_customer(person).call("ObjectToMarketing", objection)).ended)
        world.clock.move(timedelta(seconds=1))
    first, second = askers
    truth = {person.pseudonym(first): person.pseudonym(second) for person in people}
    return await _told(world, first), await _told(world, second), truth


async def test_marketers_who_pool_their_notices_join_no_better_than_chance(world: World) -> None:
    ours, theirs, truth = await _objected(world, (Asker(), Asker()))
    assert PEOPLE == len(ours) == len(theirs)
    for number in ("time", "place"):
        assert right(by_number(number)(ours, theirs), truth) <= CHANCE


async def test_marketers_who_were_told_at_once_would_join_nearly_all(
    pair: Pair, fresh_database: FreshDatabase, stream_prefix: str, tmp_path: Path
) -> None:
    dsn = await fresh_database("consent", migrated)
    async with world_of(dsn, pair.valkey_url, stream_prefix, tmp_path, longest_notice_delay=timedelta(0)) as world:
        ours, theirs, truth = await _objected(world, (Asker(), Asker()))
    for number in ("time", "place"):
        assert right(by_number(number)(ours, theirs), truth) >= 0.9 * PEOPLE


async def test_notices_that_an_outage_held_up_are_not_told_at_once(world: World) -> None:
    ann, askers = Person(), [Asker() for _ in range(20)]
    for asker in askers:
        await world.consented(asker, [ann], f"exchanges/{asker.name[-8:]}")
    await world.as_customer(ann).call("ObjectToMarketing", consentpb.ObjectToMarketingRequest(request_id=request_id()))

    world.clock.move(2 * HOUR)  # nobody looked meanwhile
    back = world.clock.now()
    await world.write_due_notices()
    assert [] == await notified(world)
    await world.write_all_notices()

    times = sorted(notice.notice_time.ToDatetime(UTC) for notice in await notified(world))
    assert 20 == len(set(times))
    assert back < times[0] < times[-1] <= back + HOUR
    assert times[-1] - times[0] > HOUR / 4


async def test_marketer_is_told_of_all_its_consents_at_once_though_an_outage_held_that_up(world: World) -> None:
    ann, asker = Person(), Asker()
    for hours in range(1, 6):
        asked = world.terms(end=world.clock.now() + hours * HOUR, deadline=world.clock.now() + HOUR)
        await world.consented(asker, [ann], f"exchanges/{hours}", asked)
    await world.as_customer(ann).call("ObjectToMarketing", consentpb.ObjectToMarketingRequest(request_id=request_id()))
    world.clock.move(2 * HOUR)
    await world.write_due_notices()
    await world.write_all_notices()

    assert 1 == len({notice.notice_time.ToDatetime(UTC) for notice in await notified(world)})
    assert 5 == len(await notified(world))


async def test_notice_that_is_overtaken_while_it_is_planned_anew_is_not_told(world: World) -> None:
    ann = Person()
    (consent,) = await world.consented(Asker(), [ann], E1)
    await world.as_customer(ann).pause(consent.name)
    world.clock.move(2 * HOUR)
    async with world.db.tx("test.late") as tx:  # as the service does, which has not committed yet
        now = world.clock.now()
        assert "UPDATE 1" == await tx.execute(load("parley_consent").notices_put_off, now, now, HOUR)
        withdrawing = asyncio.create_task(world.as_customer(ann).withdraw(consent.name))
        await until(lambda: _waits(world))
    await withdrawing
    await world.write_all_notices()

    assert ["ConsentRevoked"] == [each.notice for each in await notified(world)]


async def _waits(world: World) -> bool:
    waiting = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    return bool(await world.db.fetch(waiting))


async def test_acts_that_undo_each_other_before_anyone_was_told_are_not_told(world: World) -> None:
    ann = Person()
    (consent,) = await world.consented(Asker(), [ann], E1)
    me = world.as_customer(ann)
    await me.pause(consent.name)
    await me.resume(consent.name)
    assert 0 == await world.count("notices")

    await me.pause(consent.name)
    await world.db.execute("UPDATE notices SET due_at = $1", world.clock.now())
    await world.write_due_notices()
    await me.resume(consent.name)
    await me.pause(consent.name)

    assert (0, ["ConsentPaused"]) == (await world.count("notices"), [each.notice for each in await notified(world)])


async def test_pause_that_a_withdrawal_overtakes_is_not_told(world: World) -> None:
    ann = Person()
    (ended,) = await world.consented(Asker(), [ann], E1)
    (paused,) = await world.consented(Asker(), [ann], E2)
    for consent in (ended, paused):
        await world.as_customer(ann).pause(consent.name)
    await world.as_customer(ann).withdraw(ended.name)
    await world.write_all_notices()

    told = {(each.notice, each.consent) for each in await notified(world)}
    assert {("ConsentRevoked", ended.name), ("ConsentPaused", paused.name)} == told


async def test_pause_and_resumption_are_each_told(world: World) -> None:
    ann = Person()
    (consent,) = await world.consented(Asker(), [ann], E1)
    for act in ("pause", "resume"):
        await getattr(world.as_customer(ann), act)(consent.name)
        await world.write_all_notices()

    assert ["ConsentPaused", "ConsentResumed"] == [each.notice for each in await notified(world)]


async def test_running_service_writes_what_is_due(world: World) -> None:
    ann = Person()
    (consent,) = await world.consented(Asker(), [ann], E1)
    await world.as_customer(ann).withdraw(consent.name)
    world.clock.move(await due_at(world) - world.clock.now())

    async with world.running("notices"):
        await until(lambda: notified(world))


async def test_nothing_personal_is_logged(world: World) -> None:
    ann, marketer = Person(), Asker()
    (consent,) = await world.consented(marketer, [ann], E1)
    await world.settle(*(await world.permits(marketer, [ann], E2)))
    await world.as_customer(ann).withdraw(consent.name)

    logged = world.logged.getvalue()
    assert not any(text in logged for text in (ann.customer, ann.audit, ann.pseudonym(marketer), "privacy@"))
