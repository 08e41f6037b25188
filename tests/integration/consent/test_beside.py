"""What runs beside the service: its ear for suspensions, and its upkeep."""

from parley.identity.v1 import identity_events_pb2 as identitypb
from tests.support.consent import Asker, Person, World
from tests.support.waiting import until


async def test_suspension_that_fails_is_tried_until_it_is_applied(world: World) -> None:
    suspension = identitypb.MarketerChanged(marketer=Asker().name, suspended=True)
    await world.db.execute("ALTER TABLE suspended_marketers RENAME TO mislaid")

    async with world.running("hear_identity"):
        await world.hear("identity", 1, suspension)
        await until(lambda: _given_up_or_stuck(world))
        await world.db.execute("ALTER TABLE mislaid RENAME TO suspended_marketers")
        await until(lambda: world.count("suspended_marketers"))

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
