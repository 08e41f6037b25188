"""
What a job measures, in a process of its own: ``python -m tests.bench.client JOB`` prints it as JSON, in its last line.

Here is what a marketer's backend does under load. It is timed until the last release is opened and acknowledged, and every outbox
is empty: read, and in the log.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import timedelta
from statistics import median
from typing import Any

import grpc

from parley_client import Kind, attribute
from parley_rpc.channels import client_options
from tests.bench.echo import ANSWER, REQUEST
from tests.bench.job import STARTED, Job
from tests.bench.leaves import leaves
from tests.bench.outboxes import drained
from tests.bench.seed import ATTRIBUTES, FOUND, FOUND_BY
from tests.bench.withdrawals import withdrawals
from tests.bench.without import leave_out, told

_ASKED: dict[str, Any] = {"purposes": ["Marketing"], "ask": ATTRIBUTES, "decide_within": timedelta(days=7)}


async def measure(job: Job) -> dict[str, float]:
    """
    Do a job; answers figures by name.

    Of an echo, a single exchange and a campaign also how many were ``done``, and this process's ``cpu_s``.
    """
    match job.kind:
        case "echo":
            return await _echo(job)
        case "single":
            return await _single(job)
        case "campaign":
            return await _campaign(job)
        case "withdrawals":
            return await withdrawals(job)
        case "leaves":
            return await leaves(job)
    raise ValueError(job.kind)


async def _echo(job: Job) -> dict[str, float]:
    async with grpc.aio.insecure_channel(job.address, options=client_options()) as channel:
        echo: Any = channel.unary_unary("/bench.Echo/Echo", request_serializer=None, response_deserializer=None)

        async def one(_number: int) -> None:
            assert ANSWER == await echo(REQUEST, timeout=10)

        return await _load(job, one)


async def _single(job: Job) -> dict[str, float]:
    known = job.pseudonyms.read_text().split()
    async with job.client() as client, drained(job.outboxes, job.log) as wait:

        async def one(number: int) -> None:
            asked = await client.ask_one(known[number % len(known)], valid_for=timedelta(days=20), **_ASKED)
            assert asked.delivery is not None
            assert len(ATTRIBUTES) == len(asked.delivery.open().values)
            await client.acknowledge(asked.delivery)

        return await _load(job, one, wait)


async def _nothing() -> None:
    """There is nothing to wait for."""


async def _load(
    job: Job, one: Callable[[int], Awaitable[None]], wait: Callable[[], Awaitable[None]] = _nothing
) -> dict[str, float]:
    """Run ``one`` again and again by so many callers, and wait until all is drained: the rate, and what one took."""
    numbers, took = iter(range(10**9)), list[float]()
    for _ in range(job.callers):
        await one(next(numbers))
    print(STARTED, flush=True)
    start, busy = time.perf_counter(), time.process_time()

    async def caller() -> None:
        while (began := time.perf_counter()) < start + job.seconds:
            await one(next(numbers))
            took.append(time.perf_counter() - began)

    await asyncio.gather(*(caller() for _ in range(job.callers)))
    await wait()
    return {
        "rps": len(took) / (time.perf_counter() - start),
        "p50_ms": median(took) * 1000,
        "done": len(took),
        "cpu_s": time.process_time() - busy,
    }


async def _campaign(job: Job) -> dict[str, float]:
    where = attribute(FOUND_BY).between(int(FOUND), int(FOUND))
    async with job.client() as client, drained(job.outboxes, job.log) as wait:
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
        await wait()
        seconds, cpu = time.perf_counter() - start, time.process_time() - busy
    assert job.customers == len(set(found))
    job.pseudonyms.write_text("\n".join(found))
    return {"customers_per_s": job.customers / seconds, "done": job.customers, "cpu_s": cpu}


def _jobs(arguments: Sequence[str]) -> Iterator[Job]:
    for argument in arguments:
        yield Job(**json.loads(argument))


if __name__ == "__main__":
    leave_out(told())
    for _job in _jobs(sys.argv[1:]):
        print(json.dumps(asyncio.run(measure(_job))), flush=True)
