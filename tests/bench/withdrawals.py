"""Customers who withdraw, one by one and while 32 exchanges are under way: what it takes until it is answered, and proven."""

import asyncio
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median, quantiles

import grpc

from parley.audit.v1.audit_pb2 import GetProofRequest
from parley.audit.v1.audit_pb2_grpc import AuditServiceStub
from parley_client.errors import ProofNotFound
from parley_crypto.commitment import Opening
from parley_crypto.keyfiles import read_key
from parley_crypto.signing import Signer
from parley_node import people
from parley_rpc.channels import client_options
from tests.bench.job import STARTED, Job

_ALONE, _UNDER_LOAD = 100, 300
_EVERY_S, _POLL_S = 0.025, 0.01
_LONG_ENOUGH_S = 600


@dataclass
class _Ready:
    """A customer who has signed in, and what they are about to withdraw."""

    customer: people.Customer
    consent: str
    commitment: bytes = b""

    async def withdraw(self) -> None:
        """Do it."""
        opening = (await self.customer.withdraw(self.consent)).opening
        self.commitment = Opening(opening.salt, opening.detail).commitment

    async def prove(self) -> None:
        """Wait until a signed checkpoint covers it."""
        audit = AuditServiceStub(self.customer.connection.channel)
        while True:
            with suppress(ProofNotFound):
                await self.customer.connection.call(audit.GetProof, GetProofRequest(commitment=self.commitment))
                return
            await asyncio.sleep(_POLL_S)


async def withdrawals(job: Job) -> dict[str, float]:
    """Withdraw the consents of the first customers, which nobody else asks about then; milliseconds."""
    async with _ready(job, _ALONE + _UNDER_LOAD) as ready:
        alone, proven = list[float](), list[float]()
        for one in ready[:_ALONE]:
            alone.append(await _taken(one.withdraw()))
            proven.append(await _taken(one.prove()))
        beside = []
        async with _load(replace(job, kind="single", callers=32, seconds=_LONG_ENOUGH_S)):
            for one in ready[_ALONE:]:
                beside.append(await _taken(one.withdraw()))
                await asyncio.sleep(_EVERY_S)  # a pace that is no load itself
    return {
        "withdrawal_p50_ms_1": median(alone),
        "withdrawal_p50_ms_32": median(beside),
        "withdrawal_p99_ms_32": _p99(beside),
        "proof_p50_ms": median(proven),
        "proof_p99_ms": _p99(proven),
    }


@asynccontextmanager
async def _ready(job: Job, many: int) -> AsyncIterator[list[_Ready]]:
    signer = Signer(read_key(Path(job.folder) / "owner"))
    names = (Path(job.folder) / "customers").read_text().split()[:many]
    async with AsyncExitStack() as stack:
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(job.address, options=client_options()))
        ready, pseudonyms = [], set[str]()
        for name in names:
            customer = await stack.enter_async_context(people.customer(job.address, name, signer, channel))
            (consent,) = await customer.consents()
            ready.append(_Ready(customer, consent.name))
            pseudonyms.add(consent.pseudonym)
        others = [one for one in job.pseudonyms.read_text().split() if one not in pseudonyms]
        job.pseudonyms.write_text("\n".join(others))
        yield ready


@asynccontextmanager
async def _load(job: Job) -> AsyncIterator[None]:
    """Other customers' exchanges by a process of their own, for the length of a block."""
    command = [sys.executable, "-m", "tests.bench.client", job.to_argument()]
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        assert STARTED == (await process.stdout.readline()).decode().strip()
        yield
        assert process.returncode is None, "the load ended before the withdrawals"
    finally:
        process.kill()
        await process.wait()


async def _taken(act: Awaitable[None]) -> float:
    """The milliseconds that something takes."""
    began = time.perf_counter()
    await act
    return (time.perf_counter() - began) * 1000


def _p99(taken: Sequence[float]) -> float:
    return quantiles(taken, n=100)[-1]
