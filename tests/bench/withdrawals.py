"""Customers who withdraw, one by one and while 32 exchanges are under way: what it takes until it is answered, and proven."""

import asyncio
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from itertools import islice
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
from parley_node.embedded.supervise import leash_command
from parley_rpc.channels import client_options
from tests.bench.job import STARTED, Job

_WITHDRAW, _PROVE = 300, 100
_PAUSE_S, _LONG_PAUSE_S = 0.05, 0.3
"""Between two acts, at most: they are no load themselves, and what is proven begins at any moment of the background's pace."""

_POLL_S, _PATIENCE_S, _WARM_S, _LONG_ENOUGH_S = 0.01, 30, 1, 600


@dataclass(frozen=True)
class _Customer:
    """A customer who has signed in, and what they are about to withdraw."""

    customer: people.Customer
    consent: str

    async def withdraw(self) -> bytes:
        """Do it; answers the commitment to it."""
        opening = (await self.customer.withdraw(self.consent)).opening
        return Opening(opening.salt, opening.detail).commitment

    async def prove(self) -> None:
        """Withdraw, and wait until a signed checkpoint covers it."""
        request = GetProofRequest(commitment=await self.withdraw())
        audit = AuditServiceStub(self.customer.connection.channel)
        async with asyncio.timeout(_PATIENCE_S):
            while True:
                with suppress(ProofNotFound):
                    await self.customer.connection.call(audit.GetProof, request)
                    return
                await asyncio.sleep(_POLL_S)


async def withdrawals(job: Job) -> dict[str, float]:
    """Withdraw the consents of some customers, half of them while others are asked; milliseconds."""
    async with _customers(job, 2 * (_WITHDRAW + _PROVE)) as customers:
        figures = await _acts(customers, 1)
        async with _load(replace(job, kind="single", callers=32, seconds=_LONG_ENOUGH_S)):
            await asyncio.sleep(_WARM_S)
            return figures | await _acts(customers, 32)


async def _acts(customers: Iterator[_Customer], callers: int) -> dict[str, float]:
    withdrawn = await _each(_Customer.withdraw, islice(customers, _WITHDRAW), _PAUSE_S)
    proven = await _each(_Customer.prove, islice(customers, _PROVE), _LONG_PAUSE_S)
    return {
        f"{what}_{figure}_ms_{callers}": value
        for what, taken in (("withdrawal", withdrawn), ("proof", proven))
        for figure, value in (("p50", median(taken)), ("p99", quantiles(taken, n=100)[-1]))
    }


@asynccontextmanager
async def _customers(job: Job, many: int) -> AsyncIterator[Iterator[_Customer]]:
    """Sign in the first of the customers, and strike them off the list of those who are asked."""
    signer = Signer(read_key(Path(job.folder) / "owner"))
    names = (Path(job.folder) / "customers").read_text().split()[:many]
    async with AsyncExitStack() as stack:
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(job.address, options=client_options()))
        signed_in, theirs = [], set[str]()
        for name in names:
            customer = await stack.enter_async_context(people.customer(job.address, name, signer, channel))
            (consent,) = await customer.consents()
            signed_in.append(_Customer(customer, consent.name))
            theirs.add(consent.pseudonym)
        others = [one for one in job.pseudonyms.read_text().split() if one not in theirs]
        job.pseudonyms.write_text("\n".join(others))
        yield iter(signed_in)


@asynccontextmanager
async def _load(job: Job) -> AsyncIterator[None]:
    """Other customers' exchanges by a process of their own, for the length of a block and no longer than this one lives."""
    command = leash_command((), signal.SIGKILL, (sys.executable, "-m", "tests.bench.client", job.to_argument()))
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    try:
        assert STARTED == (await process.stdout.readline()).decode().strip(), "the load did not start"
        yield
        assert process.returncode is None, "the load ended before the withdrawals"
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _each(
    act: Callable[[_Customer], Awaitable[object]], customers: Iterable[_Customer], pause: float
) -> list[float]:
    """Have customers act one after the other, each after a pause of up to so many seconds; the milliseconds that each took."""
    taken = []
    for one in customers:
        await asyncio.sleep(random.uniform(0, pause))
        began = time.perf_counter()
        await act(one)
        taken.append((time.perf_counter() - began) * 1000)
    return taken
