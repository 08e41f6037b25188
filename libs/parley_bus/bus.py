"""
Redis or Valkey streams behind a few calls: publish, rebuild, read, claim, acknowledge.

Each service has one stream. An entry's id is ``<seq>-0``, where ``seq`` is the outbox row's place in the stream, without
gaps from 1 on. Only commands of Redis 7.0 and Valkey 7.2 are used.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

COMMAND_TIMEOUT = 5.0
BLOCK = 1.0
"""Seconds a read waits for news. Kept far below the socket's timeout, or quiet streams would look like lost ones."""


class BusAway(Exception):
    """Redis can't be reached, or refuses to serve; whether the last command was run is unknown."""


class GroupMissing(Exception):
    """The stream or the reader's group is not there (yet): its relay makes both."""


class StreamForeign(Exception):
    """The stream holds, or has passed, an entry's place with something else in it: rebuild the stream."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One event on a stream. ``envelope`` is a serialised EventEnvelope."""

    seq: int
    event_id: UUID
    envelope: bytes


@dataclass(frozen=True, slots=True)
class Batch:
    """What a reader took: the entries, in order, and the places whose entries were trimmed before it acknowledged them."""

    entries: Sequence[Entry]
    lost: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class View:
    """
    A stream at one moment. All zero where it does not exist.

    ``first`` and ``last`` are the lowest and the highest place of its ``length`` entries (``last`` stays when it is
    emptied). ``acked`` gives, for each group that exists, the place up to which it acknowledged everything.
    """

    first: int
    last: int
    length: int
    acked: Mapping[str, int]


class Bus:
    """A connection to the streams. Build it with :meth:`open`; it needs no server until it is used."""

    def __init__(self, commands: Redis, reads: Redis, prefix: str) -> None:
        self._commands = commands
        self._reads = reads
        self._prefix = prefix

    @classmethod
    @asynccontextmanager
    async def open(
        cls, url: str, prefix: str = "", *, user: str | None = None, password: str | None = None
    ) -> AsyncIterator["Bus"]:
        """
        Keep connections for the length of a block. ``prefix`` goes before every stream's name.

        ``user`` and ``password`` are for a ``url`` that names nobody.
        """
        async with (
            client(url, COMMAND_TIMEOUT, user, password) as commands,
            client(url, BLOCK + COMMAND_TIMEOUT, user, password) as reads,
        ):
            yield cls(commands, reads, prefix)

    def stream(self, service: str) -> str:
        """The key of a service's stream."""
        return stream_key(service, self._prefix)

    async def ping(self) -> None:
        """Ask for a sign of life. Raises BusAway."""
        with _errors():
            await self._commands.ping()

    async def publish(self, stream: str, entries: Sequence[Entry], groups: Sequence[str], acked: int) -> View:
        """
        Trim what all have acknowledged, add entries in order, and look: in one step, so that the view is of one moment.

        An entry that is there already counts as added. Raises StreamForeign, and BusAway (added or not is unknown:
        publish the same again).
        """
        with _errors():
            async with self._commands.pipeline(transaction=True) as pipe:
                pipe.xtrim(stream, minid=f"{acked + 1}-0", approximate=False)
                for entry in entries:
                    pipe.xadd(stream, _fields(entry), id=_id(entry.seq))  # type: ignore[arg-type] # dict is invariant
                pipe.xinfo_stream(stream)
                for group in groups:
                    pipe.xpending(stream, group)
                pipe.xinfo_groups(stream)
                _trimmed, *answers = await pipe.execute(raise_on_error=False)
            clashes = [entry for entry, answer in zip(entries, answers, strict=False) if _is_clash(answer)]
            await self._verify(stream, clashes)
            return _view(answers[len(entries) :], groups)

    async def rebuild(self, stream: str, groups: Sequence[str]) -> None:
        """Empty a stream and let every group start again, before anyone can read in between. Raises BusAway."""
        with _errors():
            async with self._commands.pipeline(transaction=True) as pipe:
                pipe.delete(stream)
                for group in groups:
                    pipe.xgroup_create(stream, group, id="0", mkstream=True)
                await pipe.execute()

    async def create_group(self, stream: str, group: str) -> None:
        """Let a group read the stream from its first entry. Raises BusAway, also if the group exists."""
        with _errors():
            await self._commands.xgroup_create(stream, group, id="0", mkstream=True)

    async def read(self, stream: str, group: str, reader: str, count: int) -> Batch:
        """Take up to ``count`` new entries, waiting up to BLOCK for the first. Raises GroupMissing and BusAway."""
        with _errors():
            answer: Any = await self._reads.xreadgroup(
                group, reader, {stream: ">"}, count=count, block=int(BLOCK * 1000)
            )
        return _batch(answer[0][1] if answer else [])

    async def read_pending(self, stream: str, group: str, reader: str, count: int) -> Batch:
        """Up to ``count`` of the entries this reader took and did not acknowledge. Raises GroupMissing and BusAway."""
        with _errors():
            answer: Any = await self._commands.xreadgroup(group, reader, {stream: "0"}, count=count)
        return _batch(answer[0][1])

    async def claim(self, stream: str, group: str, reader: str, count: int, idle: float) -> AsyncIterator[Batch]:
        """Take over, batch by batch, what any reader has left alone for ``idle`` s. Raises GroupMissing and BusAway."""
        cursor = b"0-0"
        while True:
            with _errors():
                answer: Any = await self._commands.xautoclaim(
                    stream, group, reader, min_idle_time=int(idle * 1000), start_id=cursor, count=count
                )
            cursor, raw, deleted = answer
            yield Batch(_batch(raw).entries, [_seq(id_) for id_ in deleted])
            if cursor == b"0-0":
                return

    async def ack(self, stream: str, group: str, seqs: Sequence[int]) -> None:
        """Acknowledge entries for a group; twice does no harm. Raises BusAway."""
        with _errors():
            if seqs:
                await self._commands.xack(stream, group, *map(_id, seqs))

    async def _verify(self, stream: str, entries: Sequence[Entry]) -> None:
        """Make sure that places already taken are taken by the very same events. Raises StreamForeign."""
        if not entries:
            return
        raw: Any = await self._commands.xrange(stream, _id(entries[0].seq), _id(entries[-1].seq))
        there = {(entry.seq, entry.event_id) for entry in _batch(raw).entries}
        if not there.issuperset((entry.seq, entry.event_id) for entry in entries):
            raise StreamForeign


def stream_key(service: str, prefix: str = "") -> str:
    """The key of a service's stream; what stands in braces places it in a cluster."""
    return f"{prefix}parley.{service}.v1:{{0}}"


def client(url: str, timeout: float, user: str | None = None, password: str | None = None) -> Redis:
    """
    A client that never repeats a command of its own accord.

    By default a lost reply makes redis-py send XADD again. What to repeat is decided by those who know what it does.
    """
    return Redis.from_url(
        url,
        username=user,
        password=password,
        protocol=2,  # one shape of answers, on every server
        driver_info=None,  # what servers are told by CLIENT SETINFO, which Redis 7.0 doesn't know
        retry=Retry(NoBackoff(), 0),
        socket_timeout=timeout,
        socket_connect_timeout=2.0,
    )


@contextmanager
def _errors() -> Iterator[None]:
    """Give errors their meaning, and pass on a cancellation that the client swallowed."""
    cancels = _cancels()
    try:
        yield
    except (RedisError, OSError) as error:
        _pass_on(cancels)
        raise (GroupMissing if _is_missing(error) else BusAway) from error
    _pass_on(cancels)


def _cancels() -> int:
    task = asyncio.current_task()
    return task.cancelling() if task else 0


def _pass_on(cancels_before: int) -> None:
    """
    Raise CancelledError if the task was cancelled meanwhile.

    redis-py sends under ``asyncio.wait_for``, which before Python 3.12 forgets a cancellation that comes in the moment
    the sending ends: the loop that was to stop would run on for ever.
    """
    if _cancels() > cancels_before:
        raise asyncio.CancelledError


def _is_missing(answer: object) -> bool:
    """Whether an answer says that the stream or group is gone; the second wording is for whoever was waiting on it."""
    return isinstance(answer, ResponseError) and str(answer).startswith(("NOGROUP", "UNBLOCKED", "no such key"))


def _is_clash(answer: object) -> bool:
    if isinstance(answer, ResponseError) and "equal or smaller" in str(answer):
        return True
    _raise_error(answer)
    return False


def _raise_error(answer: object) -> None:
    if isinstance(answer, Exception):
        raise answer


def _view(answers: Sequence[Any], groups: Sequence[str]) -> View:
    """Read the answers to XINFO STREAM, one XPENDING for each of ``groups``, and XINFO GROUPS."""
    for answer in answers:
        if not _is_missing(answer):
            _raise_error(answer)
    info, *pendings, existing = answers
    if _is_missing(info):
        return View(first=0, last=0, length=0, acked={})
    delivered = {group["name"].decode(): _seq(group["last-delivered-id"]) for group in existing}
    present = [(group, pending) for group, pending in zip(groups, pendings, strict=True) if group in delivered]
    return View(
        first=_seq(info["first-entry"][0]) if info["first-entry"] else 0,
        last=_seq(info["last-generated-id"]),
        length=info["length"],
        acked={group: _acked(delivered[group], pending) for group, pending in present},
    )


def _acked(delivered: int, pending: Mapping[str, Any]) -> int:
    """All that was delivered, up to the oldest that is still pending."""
    return _seq(pending["min"]) - 1 if pending["pending"] else delivered


def _batch(raw: Sequence[Any]) -> Batch:
    entries = [_entry(id_, fields) for id_, fields in raw if fields]
    return Batch(entries, [_seq(id_) for id_, fields in raw if not fields])


def _entry(id_: bytes, fields: Mapping[bytes, bytes]) -> Entry:
    return Entry(_seq(id_), UUID(fields[b"event_id"].decode()), fields[b"envelope"])


def _fields(entry: Entry) -> dict[str, str | bytes]:
    return {"event_id": str(entry.event_id), "envelope": entry.envelope}


def _id(seq: int) -> str:
    return f"{seq}-0"


def _seq(id_: bytes) -> int:
    return int(id_.split(b"-")[0])
