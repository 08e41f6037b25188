"""Events become leaves, once each, provable by anyone's tools; and where they can't, nothing is acknowledged."""

import asyncio
import json
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from socket import gethostname
from typing import Any

import pytest
import witness_log

from parley.audit.v1 import audit_events_pb2 as eventspb
from parley.audit.v1 import audit_pb2 as auditpb
from parley.common.v1.event_envelope_pb2 import EventEnvelope
from parley_audit import commands
from parley_audit.commands import Intake
from parley_audit.domain import Progress, leaf_of
from parley_audit.faults import HeadMoved, ProofNotFound
from parley_audit.growth import EMPTY, grow
from parley_audit.notes import NoteReader
from parley_audit.store import Store
from parley_audit.subject_keys import SubjectKeys
from parley_bus.bus import Bus
from parley_bus.log import NullLog
from parley_crypto.keyring import KeyRing
from parley_crypto.tlog import merkle
from parley_crypto.tlog.checkpoint import parse_checkpoint
from parley_crypto.tlog.note import Ed25519Verifier, open_note
from parley_crypto.tlog.proof import parse_proof
from parley_kit.faultpoints import armed
from parley_kit.faults import Unavailable
from tests.support import chaos
from tests.support.audit import CLOCK, ORDINARY, ORIGIN, Audit, Secrets, Told, customer
from tests.support.calls import fault_of
from tests.support.waiting import until


def intake_of(audit: Audit, keys: Secrets) -> Intake:
    store = Store(audit.db, ORIGIN)
    notes = NoteReader(keys.sealer, keys.refs, NullLog())
    return Intake(notes, store, SubjectKeys(KeyRing.load(keys.folder / "master"), store), lambda _: None)


async def take_in(audit: Audit, keys: Secrets, service: str, told: dict[int, Told]) -> None:
    received = [each.received(seq) for seq, each in told.items()]
    async with audit.db.tx("test.take_in") as tx:
        await intake_of(audit, keys).take_in(tx, service, received)


async def told_to(audit: Audit) -> list[tuple[str, int]]:
    rows = await audit.db.fetch("SELECT envelope FROM outbox ORDER BY id")
    events = [eventspb.StreamLogged.FromString(EventEnvelope.FromString(row["envelope"]).payload) for row in rows]
    return [(event.service, event.seq) for event in events]


async def proof_of(audit: Audit, commitment: bytes) -> auditpb.GetProofResponse:
    return await audit.stub.GetProof(auditpb.GetProofRequest(commitment=commitment), timeout=10)


async def test_every_commitment_of_every_stream_is_proven(audit: Audit, keys: Secrets) -> None:
    told = {service: [audit.writer.tell(service, customer(), n=n) for n in range(5)] for service in ORDINARY}
    told["consent"] += [audit.writer.release(customer(), n=n) for n in range(7)]
    for service, events in told.items():
        await audit.publish(service, events)
    async with audit.running():
        await until(audit.covered)
    for opening in [each.opening for events in told.values() for each in events]:
        receipt = await audit.receipt(opening)
        assert receipt.checkpoint.size == await audit.published_size()
        assert json.loads(opening.detail) == receipt.detail


async def test_a_strangers_verifier_agrees(audit: Audit, keys: Secrets) -> None:
    told = [audit.writer.tell("vault", n=n) for n in range(20)]
    await audit.publish("vault", told)
    async with audit.running():
        await until(audit.covered)
    await audit.grow(20)
    await audit.publisher.publish()
    for each in told:
        answer = await proof_of(audit, each.opening.commitment)
        proof = parse_proof(answer.proof)
        head = parse_checkpoint(open_note(proof.checkpoint, [Ed25519Verifier(keys.vkey)]).text)
        path, leaf = [step.hex() for step in proof.hashes], merkle.leaf_hash(answer.entry).hex()
        assert witness_log.verify_inclusion(leaf, proof.index, head.size, path, head.root.hex())
        assert not witness_log.verify_inclusion(leaf, proof.index + 1, head.size, path, head.root.hex())


async def test_the_log_grows_by_one_a_tick_whatever_happened(audit: Audit) -> None:
    writer, sizes = audit.writer, [0]
    for told in (
        {},
        {"consent": [writer.tell("consent")]},
        {},
        {"consent": [writer.release(customer(), n=n) for n in range(50)], "vault": [writer.tell("vault")]},
    ):
        await audit.log_at_once(told)
        sizes.append(await audit.size())
        assert sizes[-1] == await audit.published_size()
    assert [0, 1, 2, 3, 4] == sizes


async def test_what_one_tick_logs_shares_an_entry_and_tells_nobody_of_how_many(audit: Audit) -> None:
    alone, many = [audit.writer.tell("vault")], [audit.writer.release(customer(), n=n) for n in range(50)]
    await audit.log_at_once({"vault": alone})
    await audit.log_at_once({"consent": many, "vault": [audit.writer.tell("vault")]})
    assert [0] == [(await audit.receipt(each.opening)).index for each in alone]
    assert {1} == {(await audit.receipt(each.opening)).index for each in many}
    proofs = [await proof_of(audit, each.opening.commitment) for each in (*alone, *many)]
    assert {(14, 33)} == {(len(proof.path), len(proof.entry)) for proof in proofs}


async def test_a_repeated_delivery_is_not_logged_again(audit: Audit, bus: Bus) -> None:
    told = [audit.writer.tell("vault") for _ in range(3)]
    await audit.log_at_once({"vault": told})
    await bus.rebuild(bus.stream("vault"), ["audit"])
    audit.seqs.clear()
    last = audit.writer.tell("vault")
    await audit.log_at_once({"vault": [*told, last]})
    assert [0, 0, 0, 1] == [(await audit.receipt(each.opening)).index for each in (*told, last)]


async def test_an_opening_that_comes_in_two_events_is_logged_once(audit: Audit, keys: Secrets) -> None:
    one = audit.writer.tell("vault")
    await take_in(audit, keys, "vault", {1: one, 2: one})
    await audit.grow()
    await take_in(audit, keys, "vault", {3: one})
    await audit.grow()
    assert [0] == [row["log_index"] for row in await audit.db.fetch("SELECT log_index FROM log_commitments")]
    assert 3 == await audit.logged("vault")


async def test_a_note_that_somebody_passes_on_as_news_is_in_its_customers_history_once(
    audit: Audit, keys: Secrets
) -> None:
    one = customer()
    told = audit.writer.tell("vault", one)
    later = EventEnvelope.FromString(told.envelope)
    later.occurred_at.FromDatetime(CLOCK.now() + timedelta(hours=1))
    copied = replace(told, envelope=later.SerializeToString())
    await take_in(audit, keys, "vault", {1: told})
    await take_in(audit, keys, "broker", {1: copied})
    await audit.grow()
    await take_in(audit, keys, "broker", {2: copied})
    await audit.ticking.tick()
    assert 1 == len((await audit.history(one)).entries)


async def test_what_waits_in_numbers_is_logged_a_tick_at_a_time_oldest_first(audit: Audit, keys: Secrets) -> None:
    told = [audit.writer.release(customer(), n=n) for n in range(3)]
    for seq, each in enumerate(told, 1):
        await take_in(audit, keys, "consent", {seq: each})
    await audit.db.execute(
        "UPDATE waiting SET commitments = commitments || ARRAY(SELECT sha256(n::text::bytea) FROM generate_series(1, 8191) AS n) "
        "WHERE seq = 2"
    )
    for logged in (1, 2, 3):
        await audit.ticking.tick()
        assert logged == await audit.logged("consent")
    assert [0, 1, 2] == [(await audit.receipt(each.opening)).index for each in told]
    assert [14, 15, 14] == [len((await proof_of(audit, each.opening.commitment)).path) for each in told]


async def test_no_more_is_taken_in_while_ticks_fail(
    audit: Audit, keys: Secrets, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = 300
    monkeypatch.setattr(commands, "MOST_WAITING", most)
    told = [audit.writer.tell("vault") for _ in range(most + 1)]
    await take_in(audit, keys, "vault", dict(enumerate(told[:most], 1)))
    with pytest.raises(Unavailable):
        await take_in(audit, keys, "vault", {most + 1: told[-1]})
    await audit.ticking.tick()
    assert most == await audit.logged("vault")
    await take_in(audit, keys, "vault", {most + 1: told[-1]})


async def test_a_crash_between_taking_in_and_acknowledgement_logs_nothing_twice(audit: Audit) -> None:
    told = [audit.writer.tell("identity") for _ in range(5)]
    crashed = asyncio.Event()

    async def crash() -> None:
        crashed.set()
        await asyncio.sleep(60)

    await audit.publisher.publish()
    await audit.publish("identity", told)
    with armed("audit.apply.after_commit", crash):
        async with audit.running("consumer.identity"):
            await crashed.wait()
    await audit.ticking.tick()
    await audit.log_at_once({"identity": [audit.writer.tell("identity")]})
    assert {0} == {(await audit.receipt(each.opening)).index for each in told}
    assert 6 == await audit.db.fetchval("SELECT count(*) FROM log_commitments")


async def test_what_is_taken_in_waits_through_a_crash_for_the_next_tick(audit: Audit, keys: Secrets) -> None:
    one = audit.writer.tell("consent", customer())
    await take_in(audit, keys, "consent", {1: one})

    async def crash() -> None:
        raise RuntimeError

    with armed("audit.grow.before_commit", crash), suppress(RuntimeError):
        await audit.ticking.tick()
    assert (0, 0, []) == (await audit.size(), await audit.logged("consent"), await told_to(audit))
    await audit.ticking.tick()
    assert 0 == (await audit.receipt(one.opening)).index
    assert [("consent", 1)] == await told_to(audit)


async def test_a_note_that_lies_is_never_logged_and_stops_its_stream_alone(audit: Audit, bus: Bus) -> None:
    before, lie, after = audit.writer.tell("vault"), audit.writer.liar("vault"), audit.writer.tell("vault")
    await audit.publish("vault", [before, lie, after])
    await audit.publish("consent", [audit.writer.tell("consent")])
    async with audit.running():
        await until(lambda: _is_stuck(audit))  # five tries have failed
    assert 1 == await audit.logged("vault")
    for each in (lie, after):
        assert isinstance(await fault_of(proof_of(audit, each.opening.commitment)), ProofNotFound)
    assert 0 == await audit.db.fetchval("SELECT count(*) FROM dead_letters")
    left = await bus.read_pending(bus.stream("vault"), "audit", gethostname(), 10)
    assert [1, 2, 3] == [entry.seq for entry in left.entries]


async def _is_stuck(audit: Audit) -> bool:
    return '"state": "stuck"' in audit.log.getvalue() and await audit.logged("consent") == 1


async def test_a_second_writer_with_a_stale_size_changes_nothing(audit: Audit, keys: Secrets) -> None:
    await take_in(audit, keys, "consent", {1: audit.writer.tell("consent")})
    await audit.grow()
    leaf = leaf_of({bytes(32)})
    before = await _everything(audit)
    with pytest.raises(HeadMoved):
        async with audit.db.tx("test.stale") as tx:
            await Store(audit.db, ORIGIN).append(tx, EMPTY, grow(EMPTY, [leaf.entry], {}), leaf)
    assert before == await _everything(audit)


async def _everything(audit: Audit) -> list[Any]:
    tables = (
        "log_head",
        "log_entries",
        "log_tiles",
        "log_commitments",
        "history",
        "stream_progress",
        "outbox",
        "waiting",
    )
    return [await audit.db.fetch(f"SELECT * FROM {table} ORDER BY 1") for table in tables]


async def test_readers_and_clocks_at_once_make_one_log(audit: Audit, keys: Secrets) -> None:
    batches = [(service, seq) for seq in range(1, 8) for service in ORDINARY]
    one = customer()  # whose key all of them want to make
    told = {each: audit.writer.tell(each[0], one) for each in batches}

    async def act(batch: tuple[str, int]) -> None:
        await take_in(audit, keys, batch[0], {batch[1]: told[batch]})
        await audit.grow()

    # Twelve at a time: more than the connections there are would wait for one, which they do for two seconds only.
    await chaos.each(act, batches)
    await audit.ticking.tick()
    assert len(batches) + 1 == await audit.size()
    assert 0 == await audit.db.fetchval("SELECT count(*) FROM waiting")
    for each in told.values():
        await audit.receipt(each.opening)
    assert dict.fromkeys(ORDINARY, 7) == {service: await audit.logged(service) for service in ORDINARY}
    assert len(batches) == len((await audit.history(one)).entries)


async def test_streams_are_told_of_gapless_prefixes_only(audit: Audit, keys: Secrets) -> None:
    told = {seq: audit.writer.tell("consent") for seq in range(1, 8)}

    async def logged(service: str, events: dict[int, Told]) -> None:
        await take_in(audit, keys, service, events)
        await audit.grow()

    await logged("consent", {seq: told[seq] for seq in (1, 2, 5)})
    await logged("consent", {7: told[7]})
    assert [("consent", 2)] == await told_to(audit)
    await logged("consent", {seq: told[seq] for seq in (3, 4)})
    assert [("consent", 2), ("consent", 5)] == await told_to(audit)
    await take_in(audit, keys, "vault", {1: audit.writer.tell("vault")})
    assert [("consent", 2), ("consent", 5)] == await told_to(audit)  # what only waits is not in the log
    await logged("consent", {6: told[6]})
    assert [("consent", 2), ("consent", 5), ("consent", 7), ("vault", 1)] == await told_to(audit)
    async with audit.db.tx("test.progress") as tx:
        assert Progress(7) == await Store(audit.db, ORIGIN).progress(tx, "consent")


async def test_a_commitment_is_proven_only_once_a_checkpoint_covers_it(audit: Audit, keys: Secrets) -> None:
    one, two = audit.writer.tell("consent"), audit.writer.tell("consent")
    await take_in(audit, keys, "consent", {1: one})
    assert isinstance(await fault_of(proof_of(audit, one.opening.commitment)), ProofNotFound)
    await audit.grow()
    assert isinstance(await fault_of(proof_of(audit, one.opening.commitment)), ProofNotFound)
    await audit.ticking.tick()
    await take_in(audit, keys, "consent", {2: two})
    await audit.grow()
    assert 0 == (await audit.receipt(one.opening)).index
    assert isinstance(await fault_of(proof_of(audit, two.opening.commitment)), ProofNotFound)
    assert isinstance(await fault_of(proof_of(audit, bytes(32))), ProofNotFound)
    assert isinstance(await fault_of(proof_of(audit, b"short")), ProofNotFound)
