"""Outbox, relay, stream, consumer and inbox together: every committed event has its effect once, whatever breaks."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry
from redis.asyncio import Redis

from parley_bus.bus import Bus, BusAway, Entry, StreamForeign
from parley_bus.consumer import Consumer, Handler, Received, runs
from parley_bus.relay import PACE, Relay
from parley_crypto.keyfiles import read_secret
from parley_db.database import Database, Tx
from parley_kit.clock import SystemClock
from parley_kit.faultpoints import armed
from parley_kit.ids import uuid7
from parley_kit.telemetry import SILENT, Telemetry, Tracer
from parley_node.embedded import valkey
from parley_node.embedded.pair import ServerPair, servers
from parley_rpc.metrics import Metrics
from parley_rpc.tracing import Spans
from tests.support import hostile
from tests.support.crashes import kill_listener
from tests.support.databases import FreshDatabase
from tests.support.events import effects, event, held, migrate_shared, record, write
from tests.support.servers import Pair, scratch_directory
from tests.support.waiting import until


class Lines:
    """A log that a test can read."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def info(self, event: str, *_args: Any, **fields: Any) -> None:
        self.lines.append({"event": event, **fields})

    warning = info

    def of(self, event: str) -> list[Any]:
        return [line.get("state") for line in self.lines if line["event"] == event]


@dataclass(frozen=True)
class World:
    """A writer (consent) and a reader (audit), each with its database, and the streams between them."""

    writer: Database
    reader: Database
    bus: Bus
    redis: Redis
    log: Lines

    @property
    def stream(self) -> str:
        return self.bus.stream("consent")

    def relay(self, groups: Sequence[str] = ("audit",), **options: Any) -> Relay:
        return Relay(self.writer, self.bus, service="consent", groups=groups, log=self.log, **options)

    def consumer(self, handler: Handler = record, **options: Any) -> Consumer:
        given: dict[str, Any] = {"group": "audit", "name": "one"} | options
        return Consumer(self.reader, self.bus, stream_of="consent", handler=handler, log=self.log, **given)

    async def settled(self, expected: Sequence[UUID]) -> None:
        """Wait until so many effects are there and nothing is held any more; they must be the expected, in order."""

        async def done() -> bool:
            return len(await effects(self.reader)) >= len(expected) and await held(self.writer) == 0

        await until(done)
        assert await effects(self.reader) == list(expected)


@asynccontextmanager
async def running(*loops: Relay | Consumer) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(loop.run()) for loop in loops]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task


@asynccontextmanager
async def world_of(writer: str, reader: str, valkey_url: str, prefix: str) -> AsyncIterator[World]:
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(Redis.from_url(valkey_url, protocol=2))
        yield World(
            await stack.enter_async_context(Database.open(writer, application_name="consent")),
            await stack.enter_async_context(Database.open(reader, application_name="audit")),
            await stack.enter_async_context(Bus.open(valkey_url, prefix)),
            redis,
            Lines(),
        )


@pytest.fixture
async def world(pair: Pair, fresh_database: FreshDatabase, stream_prefix: str) -> AsyncIterator[World]:
    writer, reader = await fresh_database("consent", migrate_shared), await fresh_database("audit", migrate_shared)
    async with world_of(writer, reader, pair.valkey_url, stream_prefix) as made:
        yield made
        await made.redis.delete(made.stream)


@pytest.fixture(scope="module")
async def own() -> AsyncIterator[ServerPair]:
    """A Valkey that a test may wipe and kill."""
    with scratch_directory() as scratch:
        async with servers(scratch / "data") as made:
            yield made


@pytest.fixture
async def breakable(own: ServerPair, fresh_database: FreshDatabase, stream_prefix: str) -> AsyncIterator[World]:
    writer, reader = await fresh_database("consent", migrate_shared), await fresh_database("audit", migrate_shared)
    async with world_of(writer, reader, own.valkey_url, stream_prefix) as made:
        yield made


async def drained(relay: Relay) -> None:
    while await relay.turn():
        pass


async def test_events_arrive_once_in_order_and_are_then_forgotten(world: World) -> None:
    async with running(world.relay(batch=40), world.consumer(batch=30)):
        first = await write(world.writer, 100)
        second = await write(world.writer, 25)
        await world.settled(first + second)
    assert await world.redis.xlen(world.stream) <= 125
    async with running(world.relay()):
        await until(lambda: _is_empty(world))


async def _is_empty(world: World) -> bool:
    return bool(await world.redis.xlen(world.stream) == 0)


async def test_a_poke_spares_the_wait_for_the_next_poll(world: World) -> None:
    relay = world.relay(poll=60)
    async with running(relay, world.consumer()):
        await until(lambda: _is_flowing(world, "relay"))
        written = await write(world.writer)
        relay.poke()
        async with asyncio.timeout(5):
            await until(lambda: _has_effects(world, len(written)))


async def test_events_that_trickle_in_share_the_relays_turns_and_their_readers_transactions(world: World) -> None:
    transactions, loop = list[int](), asyncio.get_running_loop()
    async with running(world.relay(poll=0.001), world.consumer(on_applied=transactions.append)):
        await until(lambda: _is_flowing(world, "relay"))
        since = loop.time()
        for _ in range(100):
            await write(world.writer)
            await asyncio.sleep(0.01)
        await until(lambda: _has_effects(world, 100))
        turns = (loop.time() - since) / PACE
    assert turns + 2 > len(transactions), transactions


async def _is_flowing(world: World, loop: str) -> bool:
    return world.log.of(loop)[-1:] == ["flowing"]


async def _has_effects(world: World, count: int) -> bool:
    return len(await effects(world.reader)) >= count


async def test_a_repeated_delivery_has_no_second_effect(world: World) -> None:
    written = await write(world.writer, 20)
    await drained(world.relay())
    async with running(world.consumer()):
        await until(lambda: _has_effects(world, 20))
    await world.redis.xgroup_setid(world.stream, "audit", "0")
    applied: list[int] = []
    async with running(world.consumer(on_applied=applied.append)):
        await until(lambda: _async(20 in applied))
    assert await effects(world.reader) == written


async def _async(answer: object) -> object:
    return answer


async def test_a_crash_between_effect_and_acknowledgement_repeats_nothing(world: World) -> None:
    written = await write(world.writer, 5)
    await drained(world.relay())
    crashed = asyncio.Event()

    async def crash() -> None:
        crashed.set()
        await asyncio.sleep(60)

    with armed("audit.apply.after_commit", crash):
        async with running(world.consumer()):
            await crashed.wait()
    assert (await world.redis.xpending(world.stream, "audit"))["pending"] == 5
    async with running(world.relay(), world.consumer(takeover_after=60)):
        await world.settled(written)


async def test_what_a_dead_reader_took_is_taken_over(world: World) -> None:
    written = await write(world.writer, 30)
    await drained(world.relay())
    await world.bus.read(world.stream, "audit", "dead", 30)
    async with running(world.relay(), world.consumer(batch=7, takeover_after=0.1)):
        await world.settled(written)


async def test_events_are_held_until_every_group_has_acknowledged_them(world: World) -> None:
    relay = world.relay(groups=("audit", "broker"))
    written = await write(world.writer, 10)
    async with running(relay, world.consumer()):
        await until(lambda: _has_effects(world, 10))
        await drained(relay)
        assert await held(world.writer) == 10
        async with running(world.consumer(group="broker", handler=_ignore)):
            # One inbox serves one reader; as a second group on the same database this one finds all of it taken in.
            await world.settled(written)
    assert await held(world.writer) == 0


async def test_what_another_reader_took_in_somebodys_name_is_not_forgotten_before_that_one_says_so(
    world: World,
) -> None:
    taken_in = 1

    async def proven(_tx: Tx) -> int:
        return taken_in

    relay = world.relay(proven=proven)
    await write(world.writer, 3)
    await relay.turn()
    await relay.turn()
    stolen: Any = await world.redis.xreadgroup("audit", "thief", {world.stream: ">"}, noack=True)
    assert 3 == len(stolen[0][1])
    await relay.turn()
    await relay.turn()
    assert (2, 2) == (await held(world.writer), await world.redis.xlen(world.stream))
    taken_in = 3
    await relay.turn()
    assert 0 == await held(world.writer)


async def _ignore(_tx: Tx, _received: Sequence[Received]) -> None:
    """A handler with no effect."""


async def test_without_readers_events_are_forgotten_once_published(world: World) -> None:
    relay = world.relay(groups=())
    await write(world.writer, 10)
    await drained(relay)
    assert await held(world.writer) == 0


async def test_long_events_are_published_a_few_at_a_time_and_applied_in_runs(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("parley_bus.relay.MOST_BYTES", 1000)
    written = await write(world.writer, 20)  # of some hundred bytes each
    relay = world.relay()
    waiting, lengths = await relay.turn(), list[int]()  # the first turn gives them their places
    while waiting:
        waiting = await relay.turn()
        lengths.append(await world.redis.xlen(world.stream))
    assert 20 == lengths[-1]
    assert all(1 < after - before < 20 for before, after in itertools.pairwise([0, *lengths]))
    applied: list[int] = []

    async def count(tx: Tx, received: Sequence[Received]) -> None:
        applied.append(len(received))
        await record(tx, received)

    async with running(relay, world.consumer(count)):
        await world.settled(written)
    assert [20] == applied


def test_runs_end_by_bytes_and_hold_one_event_at_least() -> None:
    entries = [Entry(seq, uuid7(), bytes(size)) for seq, size in enumerate((3, 4, 9, 1, 1), 1)]
    assert [[1, 2], [3], [4, 5]] == [[entry.seq for entry in run] for run in runs(entries, 7)]
    assert [] == list(runs([]))


async def test_a_slow_transaction_with_a_lower_id_is_not_skipped(world: World) -> None:
    async with running(world.relay(), world.consumer()):
        slow = event()
        async with world.writer.tx("test.slow") as tx:
            await tx.execute("INSERT INTO outbox (event_id, type, envelope) VALUES ($1, $2, $3)", *_row(slow))
            fast = await write(world.writer, 3)
            await until(lambda: _has_effects(world, 3))
        await world.settled([*fast, slow.event_id])


def _row(one: Any) -> tuple[Any, ...]:
    return (one.event_id, one.type, one.envelope)


async def test_two_relays_at_once_publish_each_event_once_in_order(world: World) -> None:
    async with running(world.relay(batch=7), world.relay(batch=11), world.consumer()):
        written = [id_ for _ in range(20) for id_ in await write(world.writer, 10)]
        await world.settled(written)
    assert {"flowing"} == set(world.log.of("relay"))


async def test_two_readers_of_one_group_share_the_work_without_repeating_it(world: World) -> None:
    async with running(world.relay(), world.consumer(name="one", batch=3), world.consumer(name="two", batch=3)):
        written = await write(world.writer, 60)
        await until(lambda: _all_done(world, 60))
    assert sorted(await effects(world.reader)) == sorted(written)


async def _all_done(world: World, count: int) -> bool:
    return await _has_effects(world, count) and await held(world.writer) == 0


async def test_publishing_again_after_a_lost_reply_leaves_one_entry(world: World) -> None:
    entries = [Entry(seq, one.event_id, one.envelope) for seq, one in enumerate([event(), event()], start=1)]
    views = [await world.bus.publish(world.stream, entries, [], 0) for _ in range(2)]
    assert views[0] == views[1]
    assert await world.redis.xlen(world.stream) == 2


async def test_another_event_in_the_same_place_is_noticed(world: World) -> None:
    await world.bus.publish(world.stream, [Entry(1, event().event_id, b"")], [], 0)
    with pytest.raises(StreamForeign):
        await world.bus.publish(world.stream, [Entry(1, event().event_id, b"")], [], 0)


async def test_no_command_is_repeated_when_its_reply_is_lost(own: ServerPair) -> None:
    heard: list[bytes] = []
    administrator = {"user": valkey.ADMINISTRATOR, "password": read_secret(own.where.password("valkey"))}
    async with (
        _deaf_proxy(own.where.valkey_socket, heard) as url,
        Bus.open(url, "deaf:", **administrator) as bus,
    ):
        with pytest.raises(BusAway):
            await bus.publish(bus.stream("consent"), [Entry(1, event().event_id, b"")], [], 0)
    assert b"".join(heard).count(b"XADD") == 1
    async with Redis.from_url(own.valkey_url, protocol=2) as redis:
        assert (await redis.xinfo_stream(bus.stream("consent")))["entries-added"] == 1


@asynccontextmanager
async def _deaf_proxy(target: Path, heard: list[bytes]) -> AsyncIterator[str]:
    """Passes on what is said, and hangs up instead of passing on the answer to a transaction."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_unix_connection(target)
        try:
            while said := await reader.read(65536):
                heard.append(said)
                up_writer.write(said)
                answer = await up_reader.read(65536)
                if b"EXEC" in said:
                    return
                writer.write(answer)
        finally:
            up_writer.close()

    async with hostile.listening(serve) as port:
        yield f"redis://127.0.0.1:{port}"


async def test_a_relay_that_dies_after_publishing_leaves_one_entry_an_event(world: World) -> None:
    written = await write(world.writer, 10)
    relay = world.relay()

    async def die() -> None:
        raise asyncio.CancelledError

    assert await relay.turn()
    with armed("consent.relay.before_commit", die), pytest.raises(asyncio.CancelledError):
        await relay.turn()
    assert await world.writer.fetchval("SELECT published_seq FROM stream_head") == 0
    assert await world.redis.xlen(world.stream) == 10
    async with running(relay, world.consumer()):
        await world.settled(written)
    assert "rebuilding" not in world.log.of("relay")


async def test_a_wiped_stream_loses_nothing(breakable: World) -> None:
    world = breakable
    applied: list[int] = []
    async with running(world.relay(batch=20), world.consumer(batch=5, handler=_slowly, on_applied=applied.append)):
        written = await write(world.writer, 100)
        for wiped_at in (20, 50, 80):
            await until(lambda at=wiped_at: _async(applied and applied[-1] >= at))  # type: ignore[misc] # at is an int
            await world.redis.flushall()
            written += await write(world.writer, 5)
        await world.settled(written)
    assert "rebuilding" in world.log.of("relay")


async def _slowly(tx: Tx, received: Sequence[Received]) -> None:
    await asyncio.sleep(0.02)
    await record(tx, received)


async def test_a_stream_that_was_wiped_and_written_to_in_one_moment_is_noticed(world: World) -> None:
    relay = world.relay()
    written = await write(world.writer, 10)
    await drained(relay)
    written += await write(world.writer, 1)
    await relay.turn()  # numbers the eleventh
    await world.redis.delete(world.stream)
    await world.redis.xadd(world.stream, {"event_id": str(written[-1]), "envelope": b""}, id="11-0")
    await relay.turn()
    async with running(relay, world.consumer()):
        await world.settled(written)


async def test_a_stream_that_lost_its_last_second_is_made_whole(world: World) -> None:
    relay = world.relay()
    written = await write(world.writer, 10)
    await drained(relay)
    await world.bus.rebuild(world.stream, ["audit"])
    kept = await world.writer.fetch("SELECT stream_seq, event_id, envelope FROM outbox ORDER BY id LIMIT 7")
    await world.bus.publish(world.stream, [Entry(*row) for row in kept], [], 0)
    async with running(relay, world.consumer()):
        await world.settled(written)


async def test_a_destroyed_group_starts_again_and_repeats_nothing(world: World) -> None:
    async with running(world.relay(groups=("audit", "broker")), world.consumer()):
        first = await write(world.writer, 10)
        await until(lambda: _has_effects(world, 10))
        await world.redis.xgroup_destroy(world.stream, "audit")
        second = await write(world.writer, 10)
        await until(lambda: _has_effects(world, 20))
    assert await effects(world.reader) == first + second


async def test_a_database_that_came_back_older_makes_the_stream_follow_it(world: World) -> None:
    relay = world.relay()
    await write(world.writer, 10)
    await drained(relay)
    await world.writer.execute("DELETE FROM outbox WHERE stream_seq > 5")
    await world.writer.execute("UPDATE stream_head SET last_seq = 5, published_seq = 5")
    written = [row[0] for row in await world.writer.fetch("SELECT event_id FROM outbox ORDER BY id")]
    written += await write(world.writer, 8)
    await relay.turn()
    async with running(relay, world.consumer()):
        await world.settled(written)


async def test_a_killed_valkey_loses_nothing_and_is_reported_once(own: ServerPair, breakable: World) -> None:
    world = breakable
    applied: list[int] = []
    async with running(world.relay(batch=20), world.consumer(batch=5, handler=_slowly, on_applied=applied.append)):
        written = await write(world.writer, 60)
        await until(lambda: _async(applied and applied[-1] >= 20))
        kill_listener(own.where.valkey_socket)
        written += await write(world.writer, 20)
        await world.settled(written)
    assert world.log.of("relay").count("failing") <= 1


async def test_an_absent_valkey_stops_no_writer(world: World, tmp_path: Path) -> None:
    async with Bus.open(f"unix://{tmp_path}/none") as nowhere:
        relay = Relay(world.writer, nowhere, service="consent", groups=("audit",), log=world.log)
        async with running(relay):
            await until(lambda: _async("failing" in world.log.of("relay")))
            await write(world.writer, 3)
    assert world.log.of("relay") == ["failing"]
    assert {"relay", "failing", "BusAway", "consent"} == set(world.log.lines[0].values())


async def test_lag_grows_while_valkey_is_away(world: World, tmp_path: Path) -> None:
    registry = CollectorRegistry()
    told = Telemetry(Metrics(registry).of("consent", SystemClock()))

    def lag() -> float | None:
        return registry.get_sample_value("parley_stream_lag", {"stream": "consent", "group": "audit"})

    async with running(world.relay(telemetry=told), world.consumer()):
        await world.settled(await write(world.writer, 2))
        await until(lambda: _async(lag() == 0))
    await write(world.writer, 3)
    async with Bus.open(f"unix://{tmp_path}/nobody") as away:
        relay = Relay(world.writer, away, service="consent", groups=("audit",), telemetry=told)
        with pytest.raises(BusAway):
            await relay.turn()
    assert 3 == lag()


def failing_on(*payloads: bytes) -> tuple[Handler, list[int]]:
    """A handler that fails on some payloads, and the places it was tried at."""
    tries: list[int] = []

    async def handler(tx: Tx, received: Sequence[Received]) -> None:
        await record(tx, received)
        for one in received:
            if one.envelope.payload in payloads:
                tries.append(one.seq)
                raise ValueError("canary: never in any log")

    return handler, tries


async def test_a_poisonous_event_becomes_a_dead_letter_after_five_tries_and_others_flow(world: World) -> None:
    handler, tries = failing_on(b"poison")
    async with running(world.relay(), world.consumer(handler)):
        await until(lambda: _is_flowing(world, "consumer"))
        before = await write(world.writer, 3)
        (poison,) = await write(world.writer, 1, b"poison")
        after = await write(world.writer, 3)
        await world.settled(before + after)
        assert tries.count(4) - 1 <= 5 <= tries.count(4)  # and once in its batch, if that was larger
        later = await write(world.writer, 3)
        await world.settled(before + after + later)
    row = await world.reader.fetchrow("SELECT reader, stream, seq, error_type FROM dead_letters")
    assert tuple(row) == ("audit", "consent", 4, "ValueError")
    assert "canary" not in str(world.log.lines)
    await world.redis.delete(world.stream)  # and it does not come back
    await replay(world, world.consumer())
    assert await world.reader.fetchval("SELECT count(*) FROM dead_letters") == 0
    assert await effects(world.reader) == [*before, *after, *later, poison]


async def replay(world: World, consumer: Consumer) -> None:
    """Ask for every dead letter again, as the operator does, and wait until a reader has tried them."""
    await world.reader.execute("UPDATE dead_letters SET replay_asked = true")
    async with running(world.relay(), consumer):
        await until(lambda: world.reader.fetchval("SELECT NOT EXISTS (SELECT FROM dead_letters WHERE replay_asked)"))


async def test_a_dead_letter_that_fails_again_stays(world: World) -> None:
    handler, _tries = failing_on(b"poison")
    await write(world.writer, 1, b"poison")
    async with running(world.relay(), world.consumer(handler)):
        await until(lambda: world.reader.fetchval("SELECT count(*) FROM dead_letters"))
    await replay(world, world.consumer(handler))
    assert await world.reader.fetchval("SELECT count(*) FROM dead_letters") == 1
    assert await effects(world.reader) == []


async def test_a_dead_letter_that_is_asked_for_is_tried_again_while_its_reader_runs(world: World) -> None:
    handler, _tries = failing_on(b"poison")
    (poison,) = await write(world.writer, 1, b"poison")
    async with running(world.relay(), world.consumer(handler, takeover_after=0.1)):
        await until(lambda: world.reader.fetchval("SELECT count(*) FROM dead_letters"))
        await world.reader.execute("UPDATE dead_letters SET replay_asked = true")
        await until(lambda: world.reader.fetchval("SELECT count(*) FROM dead_letters WHERE NOT replay_asked"))
    assert await effects(world.reader) == []

    await world.reader.execute("UPDATE dead_letters SET replay_asked = true")
    async with running(world.consumer()):
        await until(lambda: _async_effects(world, [poison]))
    assert await world.reader.fetchval("SELECT count(*) FROM dead_letters") == 0


async def _async_effects(world: World, wanted: Sequence[UUID]) -> bool:
    return await effects(world.reader) == list(wanted)


@pytest.mark.parametrize("tracer", [SILENT.tracer, Spans("test", SimpleSpanProcessor(InMemorySpanExporter()))])
async def test_an_unreadable_envelope_is_poison_too(world: World, tracer: Tracer) -> None:
    telemetry = Telemetry(tracer=tracer)
    one = event()
    row = (one.event_id, one.type, b"\xff\xff")
    await world.writer.execute("INSERT INTO outbox (event_id, type, envelope) VALUES ($1, $2, $3)", *row)
    good = await write(world.writer, 2)
    async with running(world.relay(telemetry=telemetry), world.consumer(telemetry=telemetry)):
        await world.settled(good)
    assert await world.reader.fetchval("SELECT error_type FROM dead_letters") == "DecodeError"


async def test_a_strict_consumer_never_skips_an_event(world: World) -> None:
    fail = asyncio.Event()
    tries: list[int] = []

    async def handler(tx: Tx, received: Sequence[Received]) -> None:
        if not fail.is_set() and any(one.envelope.payload == b"poison" for one in received):
            tries.append(len(received))
            raise ValueError
        await record(tx, received)

    written = await write(world.writer, 2) + await write(world.writer, 1, b"poison") + await write(world.writer, 2)
    async with running(world.relay(), world.consumer(handler, strict=True)):
        await until(lambda: _async(len(tries) > 6))
        assert await effects(world.reader) == written[:2]
        assert "stuck" in world.log.of("consumer")
        fail.set()
        await world.settled(written)
    assert await world.reader.fetchval("SELECT count(*) FROM dead_letters") == 0


async def test_a_cancelled_read_leaves_the_connection_usable(world: World) -> None:
    await world.bus.rebuild(world.stream, ["audit"])
    for _ in range(20):
        task = asyncio.create_task(world.bus.read(world.stream, "audit", "one", 10))
        await asyncio.sleep(0.005)
        task.cancel()
        await asyncio.wait([task])
    one = Entry(1, event().event_id, b"x")
    await world.bus.publish(world.stream, [one], [], 0)
    assert (await world.bus.read(world.stream, "audit", "one", 10)).entries == [one]


async def test_a_cancelled_loop_ends_wherever_it_is(world: World) -> None:
    async def ask_for_ever() -> None:
        while True:
            await world.bus.ping()

    for steps in range(60):
        task = asyncio.create_task(ask_for_ever())
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        _done, going_on = await asyncio.wait([task], timeout=2)
        assert not going_on


async def test_lost_acknowledgements_of_trimmed_events_are_dropped(world: World) -> None:
    written = await write(world.writer, 4)
    await drained(world.relay())
    await world.bus.read(world.stream, "audit", "one", 2)
    await world.redis.xtrim(world.stream, minid="3-0", approximate=False)
    async with running(world.consumer()):
        await until(lambda: _has_effects(world, 2))
    assert await effects(world.reader) == written[2:]
    assert [line["count"] for line in world.log.lines if line["event"] == "acknowledgements_lost"] == [2]
