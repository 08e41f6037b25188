"""
A marketer's backend under load, in a process of its own: ``python -m tests.bench.client JOB`` prints what it measured as JSON.

Whatever is timed ends when the last release is opened and acknowledged, and every outbox is empty: read, and in the log.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Any

import asyncpg
import grpc

from parley_client import Client, Kind, attribute
from parley_client.settings import Settings
from parley_rpc.channels import client_options
from tests.bench.seed import ATTRIBUTES, FOUND, FOUND_BY

_POLL_S = 0.02
_ASKED: dict[str, Any] = {"purposes": ["Marketing"], "ask": ATTRIBUTES, "decide_within": timedelta(days=7)}


@dataclass(frozen=True)
class Job:
    """
    What to measure: ``echo``, ``single`` or ``campaign``.

    ``callers`` are at it at once, for ``seconds``; a campaign ends when it has reached ``customers``. ``outboxes`` are the
    databases that must have none left, ``pseudonyms`` a file with those of the campaign.
    """

    kind: str
    address: str
    callers: int = 1
    seconds: float = 5.0
    customers: int = 0
    folder: str = ""
    marketer: str = ""
    outboxes: Sequence[str] = ()

    @property
    def pseudonyms(self) -> Path:
        """Where the campaign leaves its pseudonyms, a line each."""
        return Path(self.folder) / "pseudonyms"

    def client(self) -> Client:
        """The marketer's client, with the keys in the folder."""
        where = Path(self.folder)
        settings = Settings(
            self.address,
            self.marketer,
            signing_key_file=where / "signing",
            sealing_key_file=where / "sealing",
            trust_file=where / "trust.json",
            policy_file=where / "policy",
            deadline=timedelta(seconds=60),
        )
        return Client(settings)

    def to_argument(self) -> str:
        """As the command line takes it."""
        return json.dumps(asdict(self))


async def measure(job: Job) -> dict[str, float]:
    """Do a job: ``rps`` and ``p50_ms``, or ``customers_per_s``; how many were ``done``, and this process's ``cpu_s``."""
    match job.kind:
        case "echo":
            return await _echo(job)
        case "single":
            return await _single(job)
        case "campaign":
            return await _campaign(job)
    raise ValueError(job.kind)


async def _echo(job: Job) -> dict[str, float]:
    payload = bytes(512)
    async with grpc.aio.insecure_channel(job.address, options=client_options()) as channel:
        echo: Any = channel.unary_unary("/bench.Echo/Echo", request_serializer=None, response_deserializer=None)

        async def one(_number: int) -> None:
            assert payload == await echo(payload, timeout=10)

        return await _load(job, one)


async def _single(job: Job) -> dict[str, float]:
    known = job.pseudonyms.read_text().split()
    async with job.client() as client, _drained(job.outboxes) as drained:

        async def one(number: int) -> None:
            asked = await client.ask_one(known[number % len(known)], valid_for=timedelta(days=20), **_ASKED)
            assert asked.delivery is not None
            assert len(ATTRIBUTES) == len(asked.delivery.open().values)
            await client.acknowledge(asked.delivery)

        return await _load(job, one, drained)


async def _nothing() -> None:
    """There is nothing to wait for."""


async def _load(
    job: Job, one: Callable[[int], Awaitable[None]], drained: Callable[[], Awaitable[None]] = _nothing
) -> dict[str, float]:
    """Run ``one`` again and again by so many callers, and wait until all is drained: the rate, and what one took."""
    numbers, took = iter(range(10**9)), list[float]()
    for _ in range(job.callers):
        await one(next(numbers))
    start, busy = time.perf_counter(), time.process_time()

    async def caller() -> None:
        while (began := time.perf_counter()) < start + job.seconds:
            await one(next(numbers))
            took.append(time.perf_counter() - began)

    await asyncio.gather(*(caller() for _ in range(job.callers)))
    await drained()
    return {
        "rps": len(took) / (time.perf_counter() - start),
        "p50_ms": median(took) * 1000,
        "done": len(took),
        "cpu_s": time.process_time() - busy,
    }


async def _campaign(job: Job) -> dict[str, float]:
    where = attribute(FOUND_BY).between(int(FOUND), int(FOUND))
    async with job.client() as client, _drained(job.outboxes) as drained:
        start, busy = time.perf_counter(), time.process_time()
        await client.create_exchange(where=where, valid_for=timedelta(days=30), **_ASKED)
        found: list[str] = []
        unacknowledged = []
        async for delivery in client.deliveries():
            assert delivery.kind is Kind.RELEASE
            release = delivery.open()
            assert len(ATTRIBUTES) == len(release.values)
            found.append(release.pseudonym)
            unacknowledged.append(delivery)
            if len(unacknowledged) == 500 or len(found) == job.customers:
                await client.acknowledge(*unacknowledged)
                unacknowledged.clear()
            if len(found) == job.customers:
                break
        await drained()
        seconds, cpu = time.perf_counter() - start, time.process_time() - busy
    assert job.customers == len(set(found))
    job.pseudonyms.write_text("\n".join(found))
    return {"customers_per_s": job.customers / seconds, "done": job.customers, "cpu_s": cpu}


@asynccontextmanager
async def _drained(outboxes: Sequence[str]) -> Any:
    """Connections to the databases whose outboxes must be empty, for as long as a block takes."""
    connections = [await asyncpg.connect(url) for url in outboxes]

    async def drained() -> None:
        for connection in connections:
            while await connection.fetchval("SELECT EXISTS (SELECT FROM outbox)"):  # noqa: ASYNC110 - another process's
                await asyncio.sleep(_POLL_S)

    try:
        yield drained
    finally:
        for connection in connections:
            await connection.close()


def _jobs(arguments: Sequence[str]) -> Iterator[Job]:
    for argument in arguments:
        yield Job(**json.loads(argument))


if __name__ == "__main__":
    for _job in _jobs(sys.argv[1:]):
        print(json.dumps(asyncio.run(measure(_job))), flush=True)
