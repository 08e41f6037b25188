"""
G9, for lists: where one's page ended is no way into another's list, by every RPC that answers in pages.

Which those are is read from the descriptors; a new one without things to list fails.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import grpc
import pytest
from google.protobuf import message_factory
from google.protobuf.message import Message

from tests.support.api import RPCS, Deal, Rpc, deal_of, reason_of
from tests.support.dumps import quiet
from tests.support.waiting import until
from tests.support.world import Caller, World, between, by_criteria, terms, to_known

PAGED = [rpc for rpc in RPCS if "page_token" in rpc.method.input_type.fields_by_name and rpc.callers() != ["broker"]]
PARENT = {"consent.ListSettlements"}


@dataclass(frozen=True)
class Both:
    """Two deals, of four who have nothing to do with each other; there are two of everything in each."""

    first: Deal
    second: Deal


@pytest.fixture(scope="module")
async def both(world: World) -> Both:
    deals = Both(await _with_two_of_everything(world, "104"), await _with_two_of_everything(world, "103"))
    await quiet(world)
    return deals


async def _with_two_of_everything(world: World, age: str) -> Deal:
    deal, another = await deal_of(world, age), await world.marketer()
    found, briefly = between("profile.age", age, age), terms("profile.city", valid_for=timedelta(days=20))
    await another.ask(by_criteria(terms("profile.city"), found))
    await deal.marketer.ask(to_known(briefly, deal.pseudonym))
    for marketer in (deal.marketer, another):
        await marketer.ask(by_criteria(terms("profile.city", "profile.language"), found))
    for rpc in PAGED:
        if rpc.service == "consent" and rpc.method.name != "ListRules":
            await until(partial(_are_two, world, rpc, deal))
    await deal.customer.rule(1, terms("profile.language", valid_for=timedelta(days=365), decide_within=None))
    return deal


async def _are_two(world: World, rpc: Rpc, deal: Deal) -> bool:
    return len(listed(rpc, await page(world, rpc, deal, 2))) == 2


def caller_of(rpc: Rpc, deal: Deal) -> Caller:
    return deal.marketer if rpc.service == "broker" else deal.customer


async def page(world: World, rpc: Rpc, deal: Deal, size: int, token: str = "") -> Any:
    """A page of somebody's list, as its answer."""
    fields: dict[str, Any] = {"page_size": size, "page_token": token}
    if str(rpc) in PARENT:
        fields["parent"] = deal.consent
    request = message_factory.GetMessageClass(rpc.method.input_type)(**fields)
    method = world.stubs.channel.unary_unary(
        rpc.path,
        request_serializer=type(request).SerializeToString,
        response_deserializer=message_factory.GetMessageClass(rpc.method.output_type).FromString,
    )
    return await method(request, metadata=caller_of(rpc, deal).tokens[rpc.service], timeout=20)


def listed(rpc: Rpc, answer: Any) -> list[bytes]:
    (things,) = [field.name for field in rpc.method.output_type.fields if field.is_repeated]
    found: Sequence[Message] = getattr(answer, things)
    return [each.SerializeToString(deterministic=True) for each in found]


@pytest.mark.parametrize("rpc", PAGED, ids=str)
async def test_where_ones_page_ended_shows_another_nothing_but_their_own(world: World, both: Both, rpc: Rpc) -> None:
    token = (await page(world, rpc, both.first, 1)).next_page_token
    assert listed(rpc, await page(world, rpc, both.first, 1000, token))  # the control
    theirs, own = [{*listed(rpc, await page(world, rpc, deal, 1000))} for deal in (both.first, both.second)]
    assert len(own) >= 2
    assert not own & theirs
    assert {*await _found(world, rpc, both.second, token)} <= own


async def _found(world: World, rpc: Rpc, deal: Deal, token: str) -> list[bytes]:
    """What is listed from there on; nothing where the place reads like nonsense."""
    with suppress(grpc.aio.AioRpcError):
        return listed(rpc, await page(world, rpc, deal, 1000, token))
    with pytest.raises(grpc.aio.AioRpcError) as of_this:
        await page(world, rpc, deal, 1000, token)
    with pytest.raises(grpc.aio.AioRpcError) as of_nonsense:
        await page(world, rpc, deal, 1000, "nonsense")
    assert reason_of(of_nonsense.value) == reason_of(of_this.value)
    return []
