"""After a restore the log is continued from its newest published checkpoint, or not at all."""

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from socket import gethostname
from typing import Any

import pytest

from parley.audit.v1 import audit_pb2 as auditpb
from parley_audit.app import build
from parley_audit.faults import LogForeign, LogRefused, SealingKeyUnknown
from parley_audit.published import PublishedFile
from parley_audit.store import Store
from parley_bus.bus import Bus
from parley_crypto.tlog.checkpoint import parse_checkpoint
from parley_crypto.tlog.merkle import Frontier, leaf_hash
from parley_crypto.tlog.note import Ed25519Verifier, open_note
from parley_crypto.trust import Trust
from parley_kit.faultpoints import armed
from parley_kit.faults import Unavailable
from tests.support.audit import ORIGIN, Audit, Secrets, audit_service, migrate_audit
from tests.support.calls import fault_of
from tests.support.databases import FreshDatabase
from tests.support.waiting import until


async def log(audit: Audit, ticks: int = 3) -> None:
    for _ in range(ticks):
        await audit.log_at_once({"vault": [audit.writer.tell("vault")]})


def published(keys: Secrets) -> tuple[int, bytes]:
    note = (keys.folder / "published").read_bytes()
    return parse_checkpoint(open_note(note, [Ed25519Verifier(keys.vkey)]).text).size, note


async def refused(audit: Audit) -> None:
    with pytest.raises(LogRefused):
        await audit.ticking.tick()
    with pytest.raises(LogRefused):
        await audit.service.pings["log"]()


async def test_each_checkpoint_is_kept_outside_the_database_first(audit: Audit, keys: Secrets) -> None:
    await log(audit, 3)
    size, note = published(keys)
    assert (3, note) == (size, (await audit.get("/checkpoint")).body)
    await audit.service.pings["log"]()


async def test_a_restart_goes_on_where_it_was(audit: Audit, keys: Secrets, bus: Bus) -> None:
    await log(audit, 3)
    async with audit_service(audit.config, keys, bus) as again:
        again.seqs.update(audit.seqs)
        await log(again, 2)
    assert 5 == published(keys)[0]


async def test_a_database_older_than_the_published_log_is_never_signed_nor_appended_to(
    audit: Audit, keys: Secrets, bus: Bus, fresh_database: FreshDatabase
) -> None:
    await log(audit, 3)
    _, before = published(keys)
    restored = keys.config(await fresh_database("audit", migrate_audit))
    async with audit_service(restored, keys, bus) as older:
        older.seqs.update(audit.seqs)
        await older.publish("vault", [older.writer.tell("vault")])
        async with older.running():
            await until(lambda: _is_pending(bus, 4))
            await refused(older)
        assert (0, 0) == (await older.size(), await older.logged("vault"))
        assert 0 == await older.db.fetchval("SELECT count(*) FROM waiting")
        assert Unavailable is type(await fault_of(older.stub.GetCheckpoint(auditpb.GetCheckpointRequest(), timeout=5)))
    assert before == published(keys)[1]


async def _is_pending(bus: Bus, seq: int) -> bool:
    batch = await bus.read_pending(bus.stream("vault"), "audit", gethostname(), 10)
    return [seq] == [entry.seq for entry in batch.entries]


async def test_a_database_that_falls_back_under_a_running_service_gets_no_entry(audit: Audit, keys: Secrets) -> None:
    await log(audit, 3)
    await audit.db.execute("UPDATE log_head SET size = 2")
    await refused(audit)
    async with audit.running():
        await audit.publish("vault", [audit.writer.tell("vault")])
        await until(lambda: _is_pending(audit.bus, 4))
        await until(lambda: _says(audit, "consumer", "failing"))
        await until(lambda: _says(audit, "log", "refusing"))
    assert (2, 3) == (await audit.size(), await audit.logged("vault"))
    assert 0 == await audit.db.fetchval("SELECT count(*) FROM waiting")


async def test_a_log_that_fell_back_with_all_that_was_published_is_not_signed_by_who_saw_more(
    audit: Audit, keys: Secrets
) -> None:
    await log(audit, 2)
    _, note = published(keys)
    head = await audit.db.fetchrow("SELECT size, frontier FROM log_head")
    await log(audit, 1)
    put(keys.folder / "published", note)
    await audit.db.execute("DELETE FROM log_entries WHERE log_index >= 2")
    await audit.db.execute("UPDATE log_checkpoint SET size = 2, note = $1", note)
    await audit.db.execute("UPDATE log_head SET size = $1, frontier = $2", *head)
    await refused(audit)
    await refused(audit)
    assert note == published(keys)[1]


async def forked(audit: Audit) -> None:
    """All is as it would be, had the log begun otherwise."""
    await audit.db.execute("UPDATE log_entries SET entry = sha256(entry) WHERE log_index = 0")
    frontier = Frontier()
    for row in await audit.db.fetch("SELECT entry FROM log_entries ORDER BY log_index"):
        frontier.append(leaf_hash(row["entry"]))
    await audit.db.execute("UPDATE log_head SET frontier = $1", frontier.to_bytes())


async def spoilt(audit: Audit) -> None:
    """The newest entry is not the one that was entered."""
    await audit.db.execute(
        "UPDATE log_entries SET entry = sha256(entry) WHERE log_index = (SELECT size - 1 FROM log_head)"
    )


@pytest.mark.parametrize("changed", [forked, spoilt])
@pytest.mark.parametrize("ticks", [1, 300])
async def test_what_is_not_the_log_that_was_published_is_not_signed_by_who_saw_it_grow(
    audit: Audit, keys: Secrets, ticks: int, changed: Callable[[Audit], Awaitable[None]]
) -> None:
    await log(audit, 3)
    await audit.grow(ticks)
    await audit.publisher.publish()
    before = published(keys)
    assert 3 + ticks == before[0]
    await audit.grow(ticks)
    await changed(audit)
    await refused(audit)
    assert before == published(keys)


@pytest.mark.parametrize(
    ("stored", "entries"),
    [
        ("log_entries SET entry = {} WHERE log_index = 1", 243),
        ("log_entries SET entry = {} WHERE log_index = 258", 499),
        ("log_tiles SET hashes = {} WHERE tile_index = 0", 499),
    ],
)
async def test_what_changed_of_the_log_ends_it_before_a_tile_is_made_of_it(
    audit: Audit, stored: Any, entries: int
) -> None:
    await log(audit, 3)
    await audit.grow(entries - 3)
    await audit.publisher.publish()
    tiles = await audit.db.fetch("SELECT * FROM log_tiles")
    assert (entries // 256 > 0) == bool(tiles)
    table, column = stored.split()[0], stored.split()[2]
    good = await audit.db.fetchval(f"SELECT {column} FROM {table} {stored.partition('}')[2]}")
    await audit.db.execute(f"UPDATE {stored.format('$1')}", bytes(32))
    while await audit.size() % 256 < 254:
        await audit.ticking.tick()
    with pytest.raises(LogRefused):
        await audit.ticking.tick()
    assert 255 == await audit.size() % 256
    await audit.db.execute(f"UPDATE {stored.format('$1')}", good)
    assert tiles == await audit.db.fetch("SELECT * FROM log_tiles")
    await audit.ticking.tick()


async def test_two_who_sign_one_log_go_on_from_each_others_checkpoints(audit: Audit, keys: Secrets, bus: Bus) -> None:
    async with audit_service(audit.config, keys, bus) as other:
        for one in (audit, other, other, audit, audit, other):
            await one.ticking.tick()
            await one.service.pings["log"]()
            assert await one.size() == published(keys)[0]


async def _says(audit: Audit, loop: str, state: str) -> bool:
    lines = map(json.loads, audit.log.getvalue().splitlines())
    return any((loop, state) == (line["event"], line.get("state")) for line in lines)


async def test_nothing_is_taken_in_before_the_log_is_known_to_be_sound(audit: Audit, bus: Bus) -> None:
    async with audit.running("consumer.vault"):
        await audit.publish("vault", [audit.writer.tell("vault")])
        await until(lambda: _is_pending(bus, 1))
        await until(lambda: _says(audit, "consumer", "failing"))
        assert 0 == await audit.db.fetchval("SELECT count(*) FROM waiting")
    await audit.ticking.tick()
    async with audit.running("consumer.vault"):
        await until(audit.taken_in)


@pytest.mark.parametrize("size", [3, 5])
async def test_a_log_that_forked_from_the_published_one_is_refused(
    audit: Audit, keys: Secrets, bus: Bus, fresh_database: FreshDatabase, size: int
) -> None:
    await log(audit, 3)
    restored = keys.config(await fresh_database("audit", migrate_audit))
    async with audit_service(restored, keys, bus) as fork:
        await fork.grow(size)
        await refused(fork)


async def test_a_published_checkpoint_that_is_gone_or_false_is_not_replaced(audit: Audit, keys: Secrets) -> None:
    await log(audit, 3)
    path = keys.folder / "published"
    _, good = published(keys)
    for bad in (b"", good.replace(b"\n3\n", b"\n2\n"), b"\xff", None):
        put(path, bad)
        await refused(audit)
        assert bad == held(path)
    put(path, good)
    await audit.ticking.tick()
    await audit.service.pings["log"]()
    assert await audit.size() == published(keys)[0] > 3


def held(path: Path) -> bytes | None:
    return path.read_bytes() if path.exists() else None


def put(path: Path, note: bytes | None) -> None:
    if note is None:
        path.unlink()
    else:
        path.write_bytes(note)


async def test_a_crash_between_file_and_database_signs_the_same_again(audit: Audit, keys: Secrets, bus: Bus) -> None:
    await log(audit, 3)
    before = published(keys)
    await audit.db.execute("UPDATE log_checkpoint SET size = 1, note = NULL")
    async with audit_service(audit.config, keys, bus) as again:
        with armed("audit.grow.before_commit", _dies), suppress(RuntimeError):
            await again.ticking.tick()
    assert before == published(keys)
    assert before[1] == (await audit.get("/checkpoint")).body


async def _dies() -> None:
    raise RuntimeError


async def test_a_disk_that_takes_no_checkpoint_stops_the_log(audit: Audit, keys: Secrets) -> None:
    (keys.folder / "published.new").mkdir()
    await refused(audit)
    assert 404 == (await audit.get("/checkpoint")).status


async def test_who_is_told_to_stop_while_a_checkpoint_is_written_lets_nobody_sign_before_it_is(
    audit: Audit, keys: Secrets, monkeypatch: pytest.MonkeyPatch
) -> None:
    await log(audit, 1)
    with _held_up(monkeypatch) as writing:
        tick = asyncio.create_task(audit.ticking.tick())
        assert await asyncio.to_thread(writing.wait, 10)
        tick.cancel()
        await asyncio.wait([tick], timeout=0.2)
        assert not tick.done()
        assert await _is_locked(audit)
    with pytest.raises(asyncio.CancelledError):
        await tick
    await audit.ticking.tick()
    assert await audit.size() == published(keys)[0]


@contextmanager
def _held_up(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Whoever writes a checkpoint says so, waits until the block ends, and then can't."""
    writing, over = threading.Event(), threading.Event()

    def hang(_file: PublishedFile, _note: bytes) -> None:
        writing.set()
        over.wait()
        raise OSError

    with monkeypatch.context() as patched:
        patched.setattr("parley_audit.published.replace_durably", hang)
        try:
            yield writing
        finally:
            over.set()


async def _is_locked(audit: Audit) -> bool:
    return await audit.db.fetchrow("SELECT FROM log_checkpoint FOR UPDATE SKIP LOCKED") is None


async def test_a_database_holds_one_log(audit: Audit) -> None:
    with pytest.raises(LogForeign, match="PARLEY_AUDIT_ORIGIN"):
        await Store(audit.db, f"{ORIGIN}/other").open()


async def test_audit_does_not_start_with_a_key_that_nobody_seals_to(audit: Audit, keys: Secrets) -> None:
    (keys.folder / "trust.json").write_text(Trust({}, {"audit": bytes(32)}).dump())
    with pytest.raises(SealingKeyUnknown, match="PARLEY_AUDIT_SEALING_KEY"):
        async with build(audit.config, audit.platform):
            pass
