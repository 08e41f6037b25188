"""What every bench begins with: a home with customers, a marketer, and processes that answer somewhere."""

import asyncio
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from parley_crypto.keyfiles import ensure_key, read_key
from parley_crypto.signing import Sealer, Signer
from parley_node import people
from parley_node.home import Home
from parley_node.provision import provision
from parley_node.services import SERVICES
from parley_node.stores import dsn, prepare, servers_of
from parley_rpc.zones import Zones
from tests.bench.job import Job
from tests.bench.seed import seed
from tests.bench.without import told


@dataclass(frozen=True)
class Stage:
    """A home, and a folder with the keys of a marketer and the one of all customers."""

    home: Home
    folder: Path

    @classmethod
    def at(cls, root: Path, customers: int) -> "Stage":
        """Make one, with so many customers."""
        stage = cls(Home(root / "home"), root / "marketer")
        stage.folder.mkdir()
        for name in ("signing", "sealing", "owner"):
            ensure_key(stage.folder / name)
        asyncio.run(stage._prepare(customers))
        return stage

    async def _prepare(self, customers: int) -> None:
        provision(self.home)
        for path in (self.home.trust, self.home.policy):
            shutil.copy(path, self.folder / path.name)
        async with servers_of(self.home) as pair:
            await prepare(pair, self.home, Zones.load(), SERVICES)
            names = await seed(self.home, pair, customers, Signer(self.key("owner")))
        (self.folder / "customers").write_text("\n".join(names))

    def key(self, name: str) -> bytes:
        """A key of the folder."""
        return read_key(self.folder / name)

    async def marketer(self, address: str) -> Job:
        """Register the marketer with a node that answers there; what is the same in every job of it."""
        async with people.staff(address, self.home, "operator") as operator, servers_of(self.home) as pair:
            made = await people.register_marketer(
                operator,
                name="Bench",
                entity="Bench Ltd",
                contact="privacy@bench.example",
                level=3,
                signing_key=Signer(self.key("signing")).public_key,
                sealing_key=Sealer(self.key("sealing")).public_key,
            )
            logged = () if "log" in told() else ("consent", "broker")
            outboxes = [dsn(pair, self.home, service) for service in logged]
            log = dsn(pair, self.home, "audit") if logged else ""
        return Job("", address, folder=str(self.folder), marketer=made.name, outboxes=outboxes, log=log)


@dataclass(frozen=True)
class Started:
    """A process, and where it answers."""

    pid: int
    address: str


@contextmanager
def process(module: str, *arguments: str, profile: Path | None = None) -> Iterator[Started]:
    """A process that prints where it answers, and ends with SIGINT."""
    profiled = ("-m", "cProfile", "-o", str(profile)) if profile else ()
    command = [sys.executable, *profiled, "-m", module, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout is not None
        try:
            address = started.stdout.readline().strip()
            assert address, f"{module} did not start"
            yield Started(started.pid, address)
        finally:
            started.send_signal(signal.SIGINT)
            started.wait(30)


def found(job: Job, **changes: Any) -> dict[str, float]:
    """Have a job done by a process of its own; what that measured."""
    command = [sys.executable, "-m", "tests.bench.client", replace(job, **changes).to_argument()]
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    figures: dict[str, float] = json.loads(printed.splitlines()[-1])
    return figures
