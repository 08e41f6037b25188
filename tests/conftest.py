"""Fixtures of every suite. The rules of a test run are in support/hygiene.py, the servers in support/servers.py."""

import os
import secrets
from collections.abc import AsyncIterator, Generator

import pytest

from tests.support import hygiene
from tests.support.databases import Databases, FreshDatabase, Migrate
from tests.support.servers import Pair, server_pair

for _name in hygiene.unwanted(os.environ):  # before anything under test is imported and reads them
    del os.environ[_name]
hygiene.forbid_network()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI, make a skip for an unlisted reason a failure."""
    return hygiene.judge((yield), os.environ)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """In CI, make a skipped module an error, as a skipped test."""
    return hygiene.judge((yield), os.environ)


@pytest.fixture(scope="session")
async def pair() -> AsyncIterator[Pair]:
    """PostgreSQL and Valkey for the whole run."""
    async with server_pair(os.environ) as running:
        yield running


@pytest.fixture(scope="session")
async def databases(pair: Pair, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Databases]:
    """The templates of the run."""
    made = Databases(pair, tmp_path_factory.mktemp("passwords"))
    yield made
    await made.close()


@pytest.fixture
async def fresh_database(databases: Databases) -> AsyncIterator[FreshDatabase]:
    """``await fresh_database("consent", migrate)`` makes a database of the test's own and answers its URL."""
    names: list[str] = []

    async def fresh(service: str, migrate: Migrate | None = None) -> str:
        names.append(await databases.create(service, migrate))
        return databases.dsn(names[-1], service)

    yield fresh
    await databases.give_back(*names)


@pytest.fixture
def stream_prefix() -> str:
    """Prefix of stream names for one test, so that tests share a Valkey without meeting."""
    return f"t{secrets.token_hex(6)}:"
