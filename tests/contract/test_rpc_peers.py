"""What a certificate says at a service's doors, and what it doesn't."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import grpc
import pytest

from parley_crypto.certificates import issue
from parley_kit.faults import Unauthenticated
from parley_rpc.peers import Credentials, Peers, by_certificate
from parley_rpc.server import Registration, build_server
from parley_rpc.status import fault_from
from tests.support import echo, echo_pb2, echo_pb2_grpc

ISSUED = issue(["echo", "broker", "stranger"], datetime.now(UTC))


def _credentials(name: str) -> Credentials:
    leaf = ISSUED.leaves[name]
    return Credentials(leaf.certificate, ISSUED.authority, leaf.key)


@asynccontextmanager
async def _door(directory: Path) -> AsyncIterator[str]:
    servicer, guards, _registry, _logged = echo._guards()
    registration = Registration(echo_pb2_grpc.add_EchoServiceServicer_to_server, servicer)
    door = build_server([registration], declare=by_certificate(echo.ZONES), **guards)
    address = f"unix:{directory}/peers.sock"
    door.add_secure_port(address, _credentials("echo").server())
    await door.start()
    yield address
    await door.stop(None)


async def test_certificate_that_names_no_zone_is_nobodys_and_no_token_mends_it(tmp_path: Path) -> None:
    token = (("authorization", f"service:broker:{echo.SERVICE}"),)
    async with _door(tmp_path) as address:
        for name, metadata in (("stranger", ()), ("stranger", token)):
            peers = Peers({"echo": address}, _credentials(name).client())
            stub = echo_pb2_grpc.EchoServiceStub(peers.channel("echo"))
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.Echo(echo_pb2.EchoRequest(text="x"), timeout=5, metadata=metadata)
            assert Unauthenticated is type(fault_from(refused.value))
            await peers.close()


async def test_token_says_nothing_beside_a_certificate(tmp_path: Path) -> None:
    nonsense = (("authorization", "nonsense"), ("authorization", "more"))
    async with _door(tmp_path) as address:
        peers = Peers({"echo": address}, _credentials("broker").client())
        stub = echo_pb2_grpc.EchoServiceStub(peers.channel("echo"))
        answer = await stub.Echo(echo_pb2.EchoRequest(text="x"), timeout=5, metadata=nonsense)
        await peers.close()
    assert "service:broker" == answer.caller


async def test_peer_that_nobody_told_of_has_no_channel() -> None:
    peers = Peers({}, None)
    with pytest.raises(LookupError, match="vault"):
        peers.channel("vault")


def test_key_is_in_no_text() -> None:
    assert "PRIVATE" not in repr(_credentials("broker"))
