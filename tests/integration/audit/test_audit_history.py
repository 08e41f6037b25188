"""Customers read their own history, and nobody else's; an erased key takes what it sealed along."""

import json

from parley.audit.v1 import audit_pb2 as auditpb
from parley_kit.faults import InvalidRequest, Unauthenticated
from tests.support.audit import Audit, customer
from tests.support.calls import fault_of
from tests.support.waiting import until


async def log(audit: Audit, *subjects: str, count: int = 1) -> None:
    told = [audit.writer.tell("vault", subject, n=n) for n in range(count) for subject in subjects]
    async with audit.running():
        await audit.publish("vault", told)
        await until(audit.covered)


def numbers(answer: auditpb.ListHistoryResponse) -> list[int]:
    return [json.loads(entry.detail)["n"] for entry in answer.entries]


async def test_history_is_ones_own_newest_first_and_opens_its_receipts(audit: Audit) -> None:
    one, other = customer(), customer()
    await log(audit, one, other, "", count=3)
    answer = await audit.history(one)
    assert [2, 1, 0] == numbers(answer)
    assert "" == answer.next_page_token
    assert {"test:thing:done"} == {entry.kind for entry in answer.entries}
    theirs = await audit.history(other)
    assert not {entry.commitment for entry in answer.entries} & {entry.commitment for entry in theirs.entries}
    assert [] == list((await audit.history(customer())).entries)


async def test_history_matches_what_the_log_proves(audit: Audit) -> None:
    one = customer()
    releases = [audit.writer.release(one, n=n) for n in range(4)]
    async with audit.running():
        await audit.publish("consent", releases)
        await until(audit.covered)
    openings = {each.opening.commitment: each.opening for each in releases}
    for entry in (await audit.history(one)).entries:
        opening = openings.pop(entry.commitment)
        assert (opening.salt, opening.detail) == (entry.salt, entry.detail)
        assert entry.log_index == (await audit.receipt(opening)).index
    assert {} == openings


async def test_history_shows_what_is_in_the_log(audit: Audit) -> None:
    one = customer()
    await audit.log_at_once({"vault": [audit.writer.tell("vault", one, n=1)]})
    async with audit.running("consumer.vault"):
        await audit.publish("vault", [audit.writer.tell("vault", one, n=2)])
        await until(audit.taken_in)
    assert [1] == numbers(await audit.history(one))
    await audit.ticking.tick()
    assert [2, 1] == numbers(await audit.history(one))


async def test_pages_leave_nothing_out_and_repeat_nothing(audit: Audit) -> None:
    one = customer()
    await log(audit, one, count=7)
    first = await audit.history(one, size=3)
    second = await audit.history(one, size=3, token=first.next_page_token)
    third = await audit.history(one, size=3, token=second.next_page_token)
    assert [[6, 5, 4], [3, 2, 1], [0]] == [numbers(page) for page in (first, second, third)]
    assert "" == third.next_page_token


async def test_somebody_elses_token_is_a_place_in_ones_own_history(audit: Audit) -> None:
    one, other = customer(), customer()
    await log(audit, one, other, count=2)
    token = (await audit.history(one, size=1)).next_page_token
    answer = await audit.history(other, token=token)
    mine = {entry.commitment for entry in (await audit.history(other)).entries}
    assert {entry.commitment for entry in answer.entries} <= mine


async def test_a_token_that_nobody_was_given_is_refused(audit: Audit) -> None:
    assert InvalidRequest is type(await fault_of(audit.history(customer(), token="nonsense")))


async def test_history_needs_a_customers_token(audit: Audit) -> None:
    assert Unauthenticated is type(await fault_of(audit.stub.ListHistory(auditpb.ListHistoryRequest(), timeout=5)))


async def test_erasing_a_key_leaves_proofs_valid_and_details_unreadable(audit: Audit) -> None:
    one, other = customer(), customer()
    told = audit.writer.tell("consent", one, n=1)
    async with audit.running():
        await audit.publish("consent", [told, audit.writer.tell("consent", other, n=2)])
        await until(audit.covered)
        await audit.db.execute("DELETE FROM subject_keys WHERE subject = $1", one)
        assert [] == numbers(await audit.history(one))
        assert (await audit.receipt(told.opening)).index < await audit.size()
        await audit.publish("consent", [audit.writer.tell("consent", one, n=3)])
        await until(audit.covered)
    assert [3] == numbers(await audit.history(one))
    assert [2] == numbers(await audit.history(other))


async def test_the_database_shows_no_detail(audit: Audit) -> None:
    one = customer()
    async with audit.running():
        await audit.publish("consent", [audit.writer.tell("consent", one, canary="canary-4711")])
        await until(audit.covered)
    assert b"canary-4711" in (await audit.history(one)).entries[0].detail
    for table in ("history", "log_commitments", "log_entries", "outbox", "subject_keys", "waiting"):
        for row in await audit.db.fetch(f"SELECT * FROM {table}"):
            assert b"canary-4711" not in b"".join(value for value in row if isinstance(value, bytes))
