"""The pair: PostgreSQL and Valkey, started or adopted, kept up while somebody owns them."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from structlog.typing import FilteringBoundLogger

from parley_node.embedded import postgres, valkey
from parley_node.embedded.errors import ServersUnavailable
from parley_node.embedded.identity import choose
from parley_node.embedded.locate import Binaries, locate
from parley_node.embedded.paths import Layout, create, layout, try_lock
from parley_node.embedded.supervise import Launch, Supervisor, kept_running
from parley_rpc.logs import logger

_ADOPT_WAIT_S = 60.0  # another process may be making the pair just now
_ADOPT_POLL_S = 0.02


@dataclass(frozen=True)
class ServerPair:
    """
    A running PostgreSQL and Valkey.

    ``provider`` names where they come from, for people. ``adopted``: another process owns them, and they end with it.
    """

    provider: str
    adopted: bool
    where: Layout

    def postgres_dsn(self, database: str, role: str, passfile: Path) -> str:
        """URL of a database for a role that signs in with the password of a file (pgpass)."""
        return postgres.dsn(self.where, database, role, passfile)

    def database_dsn(self, database: str) -> str:
        """URL of a database for the superuser."""
        return postgres.admin_dsn(self.where, database)

    @property
    def admin_dsn(self) -> str:
        """URL of the superuser, for making databases and roles."""
        return postgres.admin_dsn(self.where)

    @property
    def valkey_url(self) -> str:
        """URL of Valkey for its administrator, password and all."""
        return valkey.admin_url(self.where)

    @property
    def valkey_address(self) -> str:
        """URL of Valkey, naming nobody."""
        return valkey.url(self.where)


@asynccontextmanager
async def servers(data_dir: Path, log: FilteringBoundLogger | None = None) -> AsyncIterator[ServerPair]:
    """
    A pair on ``data_dir``, which is created where missing.

    Whoever comes first owns it: starts it, starts again what dies, and stops it on leaving. Whoever comes while it runs
    adopts it and leaves it alone. An owner that is killed takes the servers with it, and the next one waits for them to
    be gone. What dies is told to ``log``, or to standard error. Raises ServersUnavailable, with the next step in its message.
    """
    binaries, where = locate(), layout(data_dir)
    try:
        await asyncio.to_thread(create, where)
        lock = await _lock_unless_running(where)
    except OSError as refusal:
        raise ServersUnavailable(f"{refusal.filename}: {refusal.strerror}: choose another data directory") from refusal
    if lock is None:
        yield _pair(where, binaries, adopted=True)
        return
    try:
        async with kept_running(_supervisors(where, binaries, log or logger("node"))):
            yield _pair(where, binaries, adopted=False)
    finally:
        os.close(lock)


async def _lock_unless_running(where: Layout) -> int | None:
    """Become the owner (an open lock), or answer None once another owner's servers are up."""
    for _ in range(int(_ADOPT_WAIT_S / _ADOPT_POLL_S)):
        if (lock := try_lock(where.owner_lock)) is not None:
            return lock
        if await asyncio.to_thread(_both_ready, where):
            return None
        await asyncio.sleep(_ADOPT_POLL_S)
    raise ServersUnavailable(f"another process owns {where.root} but its servers do not answer: see its logs there")


def _both_ready(where: Layout) -> bool:
    return postgres.ready(where) and valkey.ready(where)


def _supervisors(where: Layout, binaries: Binaries, log: FilteringBoundLogger) -> list[Supervisor]:
    prepared: dict[str, Callable[[], Launch]] = {
        "postgres": lambda: postgres.prepare(where, choose(binaries, where)),
        "valkey": lambda: valkey.prepare(where, binaries.valkey_server),
    }
    return [
        Supervisor(name, prepare=prepare, lock=where.lock(name), output=where.log(name), log=log)
        for name, prepare in prepared.items()
    ]


def _pair(where: Layout, binaries: Binaries, *, adopted: bool) -> ServerPair:
    return ServerPair(provider=binaries.provider, adopted=adopted, where=where)
