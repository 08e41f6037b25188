from typing import Any

import pytest

from parley.consent.v1.consent_pb2_grpc import ConsentServiceStub
from parley.vault.v1.vault_pb2_grpc import VaultServiceStub
from parley_rpc.channels import RoutedChannel, at, connect, is_local

APART = "unix:/run/parley/{service}/public.sock"


@pytest.mark.parametrize(
    ("address", "service", "where"),
    [
        (APART, "vault", "unix:/run/parley/vault/public.sock"),
        ("{service}.parley.example:443", "vault", "vault.parley.example:443"),
        ("127.0.0.1:7400", "vault", "127.0.0.1:7400"),
    ],
)
def test_address_names_one_place_or_one_for_each_service(address: str, service: str, where: str) -> None:
    assert where == at(address, service)


def test_address_of_services_on_this_machine_is_local() -> None:
    assert is_local(APART)
    assert not is_local("{service}.parley.example:443")


async def test_call_goes_where_the_service_of_its_method_is() -> None:
    opened: dict[str, Any] = {}

    def open_one(service: str) -> Any:
        assert service not in opened
        opened[service] = connect(at(APART, service))
        return opened[service]

    async with RoutedChannel(open_one) as channel:
        VaultServiceStub(channel)
        ConsentServiceStub(channel)
    assert ["vault", "consent"] == list(opened)


async def test_address_of_one_place_needs_no_routing() -> None:
    async with connect("127.0.0.1:7400") as channel:
        assert not isinstance(channel, RoutedChannel)


async def test_method_that_is_not_parleys_has_no_place_among_many() -> None:
    channel: Any = connect(APART)
    with pytest.raises(ValueError, match="no method of Parley"):
        channel.unary_unary("/grpc.health.v1.Health/Check")
    with pytest.raises(NotImplementedError):
        channel.get_state()
