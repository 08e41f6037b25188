"""
The servers that tests run on: named by URL, in containers, or embedded (the default), always real.

``PARLEY_POSTGRES_URL`` and ``PARLEY_VALKEY_URL`` win; then ``PARLEY_SERVERS=containers``; then the embedded pair.
"""

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest

from parley_node.embedded.errors import ServersUnavailable
from parley_node.embedded.external import ExternalServers, from_environment
from parley_node.embedded.pair import servers

if TYPE_CHECKING:  # only PARLEY_SERVERS=containers loads it
    from testcontainers.core.container import DockerContainer

_POSTGRES_IMAGE = "postgres:18"
_VALKEY_IMAGE = "valkey/valkey:9"


class Pair(Protocol):
    """What every provider answers with."""

    @property
    def admin_dsn(self) -> str:
        """URL of a role that may make databases and roles."""

    @property
    def valkey_url(self) -> str:
        """URL of Valkey."""

    @property
    def provider(self) -> str:
        """Where the servers come from, for people."""

    def postgres_dsn(self, database: str, role: str, passfile: Path) -> str:
        """URL of a database for a role, with its password in a file."""

    def database_dsn(self, database: str) -> str:
        """URL of a database for the administrator."""


@asynccontextmanager
async def server_pair(environ: Mapping[str, str]) -> AsyncIterator[Pair]:
    """A pair for one test run, by the environment's choice; the run skips, saying why, where there can be none."""
    if external := from_environment(environ):
        yield external
    elif environ.get("PARLEY_SERVERS") == "containers":
        async with _containers() as pair:
            yield pair
    else:
        async with _embedded() as pair:
            yield pair


@asynccontextmanager
async def _embedded() -> AsyncIterator[Pair]:
    with scratch_directory() as scratch:
        async with AsyncExitStack() as stack:
            try:
                pair = await stack.enter_async_context(servers(scratch))
            except ServersUnavailable as reason:
                pytest.skip(f"no embedded servers: {reason}")
            yield pair


@asynccontextmanager
async def _containers() -> AsyncIterator[Pair]:
    containers: list[DockerContainer] = []
    try:
        yield await asyncio.to_thread(_start_containers, containers)
    finally:
        for container in containers:
            await asyncio.to_thread(container.stop)


def _start_containers(started: list["DockerContainer"]) -> ExternalServers:
    """Start both, noting in ``started`` what is to be stopped. Ends the run where no engine answers: they were asked for."""
    from testcontainers.community.postgres import PostgresContainer  # noqa: PLC0415 - only this choice needs it
    from testcontainers.community.valkey import ValkeyContainer  # noqa: PLC0415 - as above

    try:
        postgres = PostgresContainer(_POSTGRES_IMAGE, driver=None)
        started.append(postgres.start())
        valkey = ValkeyContainer(_VALKEY_IMAGE)
        started.append(valkey.start())
    except Exception as reason:  # noqa: BLE001 - the client raises many kinds; each means the same here
        pytest.exit(f"PARLEY_SERVERS=containers, but the containers do not start: {reason}: start a Docker engine", 4)
    valkey_url = f"redis://{valkey.get_host()}:{valkey.get_exposed_port()}/0"
    return ExternalServers(postgres.get_connection_url(), valkey_url, f"containers {_POSTGRES_IMAGE}, {_VALKEY_IMAGE}")


@contextmanager
def scratch_directory() -> Iterator[Path]:
    """Make a directory, short enough for sockets and passable for PostgreSQL's user, and remove it afterwards."""
    path = Path(tempfile.mkdtemp(prefix="parley-test-"))
    path.chmod(0o711)
    try:
        yield path
    finally:
        shutil.rmtree(path)
