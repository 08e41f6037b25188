"""What runs beside the service: its ear for suspensions, and its upkeep."""

from datetime import timedelta

from parley.common.v1.event_envelope_pb2 import EventEnvelope
from parley.identity.v1 import identity_events_pb2 as identitypb
from parley_bus.consumer import Received
from parley_consent.events import Hearing
from parley_consent.store import Store
from tests.support.consent import Asker, Person, World
from tests.support.waiting import until


async def test_what_was_said_last_of_a_marketer_counts_in_whatever_order_it_is_heard(world: World) -> None:
    hearing, marketer = Hearing(Store(world.db, timedelta(minutes=1))), Asker().name

    async def hear(seq: int, *, suspended: bool) -> int:
        changed = identitypb.MarketerChanged(marketer=marketer, suspended=suspended)
        envelope = EventEnvelope(type=changed.DESCRIPTOR.full_name, payload=changed.SerializeToString())
        async with world.db.tx("test.hear") as tx:
            await hearing.identity(tx, [Received(seq, envelope)])
        return await world.suspended()

    assert 1 == await hear(1, suspended=True)
    assert 1 == await hear(3, suspended=True)
    assert 1 == await hear(2, suspended=False)  # it lifted the first
    assert 0 == await hear(5, suspended=False)
    assert 0 == await hear(4, suspended=True)  # its reader had died with it


async def test_suspension_that_fails_is_tried_until_it_is_applied(world: World) -> None:
    suspension = identitypb.MarketerChanged(marketer=Asker().name, suspended=True)
    await world.db.execute("ALTER TABLE suspended_marketers RENAME TO mislaid")

    async with world.running("hear_identity"):
        await world.hear("identity", 1, suspension)
        await until(lambda: _given_up_or_stuck(world))
        await world.db.execute("ALTER TABLE mislaid RENAME TO suspended_marketers")
        await until(world.suspended)

    assert 0 == await world.count("dead_letters")


async def _given_up_or_stuck(world: World) -> bool:
    logged = world.logged.getvalue()
    return "stuck" in logged or "dead_letter" in logged


async def test_answers_to_requests_are_forgotten_after_a_day(world: World) -> None:
    for _ in range(2):
        await world.as_customer(Person()).rule("ASK")
    oldest = "(SELECT min(request_id) FROM requests)"
    await world.db.execute(
        f"UPDATE requests SET created_at = created_at - interval '1 day' WHERE request_id = {oldest}"
    )

    async with world.running("upkeep"):
        await until(lambda: _one_is_left(world))


async def _one_is_left(world: World) -> bool:
    return 1 == await world.count("requests")
