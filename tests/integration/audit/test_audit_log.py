"""Events become leaves, once each, provable by anyone's tools; and where they can't, nothing is acknowledged."""

import asyncio
import json
from socket import gethostname
from typing import Any

import pytest
import witness_log

from parley.audit.v1 import audit_events_pb2 as eventspb
from parley.audit.v1 import audit_pb2 as auditpb
from parley.common.v1.event_envelope_pb2 import EventEnvelope
from parley_audit.commands import Logging
from parley_audit.domain import Progress
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
from parley_kit.clock import SystemClock
from parley_kit.faultpoints import armed
from tests.support import chaos
from tests.support.audit import ORDINARY, ORIGIN, Audit, Secrets, Told, customer
from tests.support.calls import fault_of
from tests.support.waiting import until


def logging_of(audit: Audit, keys: Secrets) -> Logging:
    store = Store(audit.db, ORIGIN)
    notes = NoteReader(keys.sealer, keys.refs, NullLog())
    return Logging(
        notes, store, SubjectKeys(KeyRing.load(keys.folder / "master"), store), SystemClock(), lambda _: None
    )


async def take_in(audit: Audit, keys: Secrets, service: str, told: dict[int, Told]) -> None:
    received = [each.received(seq) for seq, each in told.items()]
    async with audit.db.tx("test.take_in") as tx:
        await logging_of(audit, keys).take_in(tx, service, received)


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
        assert receipt.checkpoint.size == await audit.size()
        assert json.loads(opening.detail) == receipt.detail


async def test_a_strangers_verifier_agrees(audit: Audit, keys: Secrets) -> None:
    told = [audit.writer.tell("vault", n=n) for n in range(20)]
    await audit.publish("vault", told)
    async with audit.running():
        await until(audit.covered)
    for each in told:
        answer = await proof_of(audit, each.opening.commitment)
        proof = parse_proof(answer.proof)
        head = parse_checkpoint(open_note(proof.checkpoint, [Ed25519Verifier(keys.vkey)]).text)
        path, leaf = [step.hex() for step in proof.hashes], merkle.leaf_hash(answer.entry).hex()
        assert witness_log.verify_inclusion(leaf, proof.index, head.size, path, head.root.hex())
        assert not witness_log.verify_inclusion(leaf, proof.index + 1, head.size, path, head.root.hex())


async def test_releases_that_come_together_share_a_leaf(audit: Audit) -> None:
    releases = [audit.writer.release(customer(), n=n) for n in range(50)]
    await audit.publish("consent", [audit.writer.tell("consent"), *releases, audit.writer.tell("consent")])
    async with audit.running():
        await until(audit.covered)
    assert 3 == await audit.size()
    assert 1 == len({(await audit.receipt(each.opening)).index for each in releases})


async def test_a_repeated_delivery_makes_no_second_leaf(audit: Audit, bus: Bus) -> None:
    told = [audit.writer.tell("vault") for _ in range(3)]
    async with audit.running():
        await audit.publish("vault", told)
        await until(audit.covered)
        await bus.rebuild(bus.stream("vault"), ["audit"])
        audit.seqs.clear()
        last = audit.writer.tell("vault")
        await audit.publish("vault", [*told, last])
        await until(audit.covered)
    assert 4 == await audit.size()
    assert 3 not in {(await audit.receipt(each.opening)).index for each in told}


async def test_an_opening_that_comes_in_two_events_is_one_leaf(audit: Audit, keys: Secrets) -> None:
    one = audit.writer.tell("vault")
    await take_in(audit, keys, "vault", {1: one, 2: one})
    await take_in(audit, keys, "vault", {3: one})
    assert 1 == await audit.size()
    assert 3 == await audit.logged("vault")


async def test_a_crash_between_leaf_and_acknowledgement_makes_no_second_leaf(audit: Audit) -> None:
    told = [audit.writer.tell("identity") for _ in range(5)]
    crashed = asyncio.Event()

    async def crash() -> None:
        crashed.set()
        await asyncio.sleep(60)

    await audit.publish("identity", told)
    with armed("audit.apply.after_commit", crash):
        async with audit.running():
            await crashed.wait()
    assert 5 == await audit.size()
    async with audit.running():
        await audit.publish("identity", [audit.writer.tell("identity")])
        await until(audit.covered)
    assert 6 == await audit.size()


async def test_a_note_that_lies_is_never_logged_and_stops_its_stream_alone(audit: Audit, bus: Bus) -> None:
    before, lie, after = audit.writer.tell("vault"), audit.writer.liar("vault"), audit.writer.tell("vault")
    await audit.publish("vault", [before, lie, after])
    await audit.publish("consent", [audit.writer.tell("consent")])
    async with audit.running():
        await until(lambda: _is_stuck(audit))  # five tries have failed
        await until(lambda: _covers(audit, 2))
    assert (1, 2) == (await audit.logged("vault"), await audit.size())
    for each in (lie, after):
        assert isinstance(await fault_of(proof_of(audit, each.opening.commitment)), ProofNotFound)
    assert 0 == await audit.db.fetchval("SELECT count(*) FROM dead_letters")
    left = await bus.read_pending(bus.stream("vault"), "audit", gethostname(), 10)
    assert [1, 2, 3] == [entry.seq for entry in left.entries]


async def _is_stuck(audit: Audit) -> bool:
    return '"state": "stuck"' in audit.log.getvalue() and await audit.logged("consent") == 1


async def test_a_second_writer_with_a_stale_size_changes_nothing(audit: Audit, keys: Secrets) -> None:
    await take_in(audit, keys, "consent", {1: audit.writer.tell("consent")})
    store, entry = Store(audit.db, ORIGIN), bytes(33)
    before = await _everything(audit)
    with pytest.raises(HeadMoved):
        async with audit.db.tx("test.stale") as tx:
            await store.append(tx, EMPTY, grow(EMPTY, [entry], {}), [])
    assert before == await _everything(audit)


async def _everything(audit: Audit) -> list[Any]:
    tables = ("log_head", "log_entries", "log_tiles", "log_commitments", "history", "stream_progress", "outbox")
    return [await audit.db.fetch(f"SELECT * FROM {table} ORDER BY 1") for table in tables]


async def test_writers_of_all_streams_at_once_make_one_log(audit: Audit, keys: Secrets) -> None:
    batches = [(service, seq) for seq in range(1, 8) for service in ORDINARY]
    told = {each: audit.writer.tell(each[0]) for each in batches}
    # Twelve at a time: more than the connections there are would wait for one, which they do for two seconds only.
    await chaos.each(lambda batch: take_in(audit, keys, batch[0], {batch[1]: told[batch]}), batches)
    async with audit.running("publisher"):
        await until(lambda: _covers(audit, len(batches)))
    assert set(range(len(batches))) == {(await audit.receipt(each.opening)).index for each in told.values()}


async def _covers(audit: Audit, size: int) -> bool:
    return size == await audit.published_size()


async def test_streams_are_told_of_gapless_prefixes_only(audit: Audit, keys: Secrets) -> None:
    told = {seq: audit.writer.tell("consent") for seq in range(1, 8)}
    await take_in(audit, keys, "consent", {seq: told[seq] for seq in (1, 2, 5)})
    await take_in(audit, keys, "consent", {7: told[7]})
    assert [("consent", 2)] == await told_to(audit)
    await take_in(audit, keys, "consent", {seq: told[seq] for seq in (3, 4)})
    assert [("consent", 2), ("consent", 5)] == await told_to(audit)
    await take_in(audit, keys, "vault", {1: audit.writer.tell("vault")})
    await take_in(audit, keys, "consent", {6: told[6]})
    assert [("consent", 2), ("consent", 5), ("vault", 1), ("consent", 7)] == await told_to(audit)
    async with audit.db.tx("test.progress") as tx:
        assert Progress(7) == await Store(audit.db, ORIGIN).progress(tx, "consent")


async def test_a_leaf_is_proven_only_once_a_checkpoint_covers_it(audit: Audit, keys: Secrets) -> None:
    one = audit.writer.tell("consent")
    await take_in(audit, keys, "consent", {1: one})
    assert isinstance(await fault_of(proof_of(audit, one.opening.commitment)), ProofNotFound)
    async with audit.running("publisher"):
        await until(lambda: _covers(audit, 1))
    two = audit.writer.tell("consent")
    await take_in(audit, keys, "consent", {2: two})
    assert 0 == (await audit.receipt(one.opening)).index
    assert isinstance(await fault_of(proof_of(audit, two.opening.commitment)), ProofNotFound)
    assert isinstance(await fault_of(proof_of(audit, bytes(32))), ProofNotFound)
    assert isinstance(await fault_of(proof_of(audit, b"short")), ProofNotFound)
