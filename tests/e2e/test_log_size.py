"""The log is public: whoever watches its size learns the time, and nothing of what customers are asked or do."""

import time
from functools import partial

from parley.audit.v1 import audit_pb2 as auditpb
from parley_audit.config import Config
from tests.support.canaries import word
from tests.support.chaos import each
from tests.support.waiting import until
from tests.support.world import Customer, World, between, by_criteria, terms

TICK_S: float = Config.model_fields["tick"].default.total_seconds()
ASKED = 60


async def size_of_log(world: World) -> int:
    answer = await world.stubs.audit.GetCheckpoint(auditpb.GetCheckpointRequest())
    return int(answer.checkpoint.split("\n")[1])


async def undecided(world: World) -> Customer:
    customer = await world.customer()
    await customer.put(profile_age="97", profile_city=word())
    await customer.discoverable("profile.age")
    return customer


async def logged(customer: Customer, kind: str) -> bool:
    answer = await customer.call("audit", "ListHistory", auditpb.ListHistoryRequest())
    return any(kind in entry.kind for entry in answer.entries)


async def test_sixty_offers_let_the_log_grow_by_the_ticks_that_passed(world: World) -> None:
    marketer = await world.marketer()
    people = await each(lambda _: undecided(world), range(ASKED))
    for customer in people:
        await until(partial(logged, customer, "vault:"))
    before, began = await size_of_log(world), time.monotonic()
    await marketer.ask(by_criteria(terms("profile.city"), between("profile.age", "97", "97")))
    for customer in people:
        await until(partial(logged, customer, ":offer:"))
    grown, took = await size_of_log(world) - before, time.monotonic() - began
    # A busy machine may miss ticks, and none can come early.
    assert grown <= took / TICK_S + 2
