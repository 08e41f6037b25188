"""The API as tests look at it: every RPC by its descriptor, what refusals say, and a deal between two to try it on."""

import tomllib
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo  # type: ignore[import-untyped] # ships no types
from grpc_status import rpc_status

from parley.broker.v1 import broker_pb2 as brokerpb
from parley.common.v1.error_reason_pb2 import ErrorReason
from parley.consent.v1 import consent_pb2 as consentpb
from parley_node.services import SERVICES
from tests.support.chaos import willing
from tests.support.dumps import CLOCKWORK, changes, quiet, without
from tests.support.world import Customer, Marketer, World, between, by_criteria, terms

ZONES = tomllib.loads((Path(__file__).parents[2] / "deploy/trust-zones.toml").read_text("utf-8"))
KINDS = ("customer", "marketer", "importer", "operator")
USED_ASSERTIONS = {"identity.used_assertions"}
BACKGROUND = {"outbox", "stream_head", "consent.inbox", "stream_progress", *CLOCKWORK, *USED_ASSERTIONS}
"""Tables that count rounds of background work, not effects."""


@dataclass(frozen=True)
class Rpc:
    """One method of the API."""

    service: str
    method: MethodDescriptor

    @property
    def path(self) -> str:
        return f"/{self.method.containing_service.full_name}/{self.method.name}"

    def __str__(self) -> str:
        return f"{self.service}.{self.method.name}"

    def listed(self, caller: str) -> bool:
        """Whether the list allows a caller."""
        return any(
            edge["caller"] in (caller, "anyone")
            and edge["service"] == self.method.containing_service.full_name
            and self.method.name in edge["methods"]
            for edge in ZONES["calls"]
        )

    def callers(self) -> list[str]:
        """Who may call it."""
        return [caller for caller in (*KINDS, *SERVICES, "anyone") if self.listed(caller)]


def _rpcs() -> Iterator[Rpc]:
    for name in sorted(SERVICES):
        file = import_module(f"parley.{name}.v1.{name}_pb2")
        for service in file.DESCRIPTOR.services_by_name.values():
            yield from (Rpc(name, method) for method in service.methods)


RPCS = list(_rpcs())


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """The reason of an error, which is one that is documented."""
    status = rpc_status.from_call(error)
    assert status is not None, f"{error.code()} {error.details()} carries no status"
    info = ErrorInfo()
    assert status.details[0].Unpack(info)
    assert info.domain == "parley"
    assert f"ERROR_REASON_{info.reason}" in ErrorReason.keys()  # noqa: SIM118 - an enum, no dict
    return str(info.reason)


async def refusal(call: Awaitable[Any]) -> str:
    """The reason with which a call is refused."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return reason_of(refused.value)


async def fields(call: Awaitable[Any]) -> tuple[str, list[str]]:
    """The reason with which a call is refused, and the fields it names."""
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    bad, status = BadRequest(), rpc_status.from_call(refused.value)
    assert status is not None
    assert any(detail.Unpack(bad) for detail in status.details if detail.Is(BadRequest.DESCRIPTOR))
    return reason_of(refused.value), [violation.field for violation in bad.field_violations]


@asynccontextmanager
async def nothing_changes(world: World) -> AsyncIterator[None]:
    """Expect every database to be after the block as it was before."""
    background = USED_ASSERTIONS | CLOCKWORK
    before = without(await quiet(world), background)
    yield
    after = without(await quiet(world), background)
    assert {} == changes(before, after)
    assert before == after


@dataclass(frozen=True)
class Deal:
    """A customer and a marketer who agreed, and one release."""

    customer: Customer
    marketer: Marketer
    consent: str
    delivery: brokerpb.Delivery

    @property
    def pseudonym(self) -> str:
        return self.delivery.release.pseudonym


async def deal_of(world: World, age: str) -> Deal:
    customer = await willing(world, {"profile.city": "Lisbon", "profile.age": age}, "profile.age")
    marketer = await world.marketer()
    await marketer.ask(by_criteria(terms("profile.city"), between("profile.age", age, age)))
    (delivery,) = await marketer.collect(1)
    answer = await customer.call("consent", "ListConsents", consentpb.ListConsentsRequest())
    return Deal(customer, marketer, answer.consents[0].name, delivery)
