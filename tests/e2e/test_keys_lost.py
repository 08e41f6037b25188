"""A home with keys that aren't the ones its databases were written with says so, before it writes anything under them."""

from collections.abc import AsyncIterator
from io import StringIO
from pathlib import Path

import grpc
import pytest

from parley.audit.v1 import audit_pb2 as auditpb
from parley.vault.v1 import vault_pb2 as vaultpb
from parley_crypto.keyfiles import KeyFileUnusable, ensure_key
from parley_node.embedded.errors import ServersUnavailable
from parley_node.home import Home
from parley_node.node import run
from parley_node.provision import provision
from parley_rpc.logs import logger
from tests.support.servers import scratch_directory
from tests.support.waiting import until
from tests.support.world import Stubs, World, quick

KEYS = ("vault/master.key", "audit/master.key", "identity/wrap.key")


@pytest.fixture(scope="module")
async def home() -> AsyncIterator[Home]:
    """A home in which a customer has put something, and audit has logged it."""
    with scratch_directory() as root:
        home, log = Home(root / "home"), StringIO()
        async with (
            run(home, quick(), logger("node", stream=log)) as node,
            grpc.aio.insecure_channel(node.running.address) as channel,
        ):
            customer = await World(home, node, Stubs(channel), log).customer()
            await customer.put(profile_city="Lisbon")

            async def logged() -> bool:
                return bool((await customer.call("audit", "ListHistory", auditpb.ListHistoryRequest())).entries)

            await until(logged)
            await customer.call("vault", "GetItem", vaultpb.GetItemRequest(name="items/profile.city"))
        yield home


async def starts(home: Home) -> None:
    async with run(home, quick(), logger("node", stream=StringIO())):
        return


async def test_databases_that_are_gone_are_not_made_anew(home: Home) -> None:
    data = home.servers / "postgres"
    kept = data.rename(home.root / "kept")
    with pytest.raises(ServersUnavailable, match="restore it from your backup"):
        await starts(home)
    assert not data.exists()
    kept.rename(data)
    await starts(home)


async def test_valkeys_password_that_is_gone_is_made_anew(home: Home) -> None:
    (home.servers / "valkey.pass").unlink()
    await starts(home)


@pytest.mark.parametrize("name", ["servers/postgres.pass", "servers/valkey.pass", "keys/vault/postgres.pass"])
async def test_password_that_others_may_read_is_refused_before_anything_starts(home: Home, name: str) -> None:
    password = home.root / name
    password.chmod(0o644)
    with pytest.raises(KeyFileUnusable, match=f"chmod 600 .*{name}"):
        await starts(home)
    password.chmod(0o600)


async def test_key_of_another_home_is_refused_by_its_name(home: Home) -> None:
    for name in KEYS:
        path = home.root / "keys" / name
        own = path.read_bytes()
        path.unlink()
        ensure_key(path)
        with pytest.raises(KeyFileUnusable, match=f"{name} isn't the key"):
            await starts(home)
        path.write_bytes(own)


async def test_another_homes_databases_are_refused_and_ones_own_taken_as_they_were(home: Home, tmp_path: Path) -> None:
    other = Home(tmp_path / "other")
    provision(other)
    (home.root / "servers").rename(other.root / "servers")

    with pytest.raises(ServersUnavailable, match="another Parley's"):
        await starts(other)

    (other.root / "servers").rename(home.root / "servers")
    await starts(home)
