"""Broker's RPCs: from the wire to a command and back, a few lines each."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from parley.broker.v1 import broker_pb2 as brokerpb
from parley.broker.v1 import broker_pb2_grpc
from parley_broker.answering import Answering
from parley_broker.bell import Bell
from parley_broker.exchanges import Exchanges
from parley_broker.faults import ExchangeNotFound
from parley_broker.feed import Feed
from parley_broker.wire import exchange_to
from parley_kit.faults import Conflict, Fault
from parley_kit.pages import Page
from parley_rpc.principal import caller

SILENCE_S = 0.3
"""
Seconds after which an answer says nothing: longer than waiting for company and deciding take. Under load, where they take longer,
they do so whatever the reason.
"""


@dataclass(frozen=True)
class BrokerServicer(broker_pb2_grpc.BrokerServiceServicer):
    """``parley.broker.v1.BrokerService``; the proto says what each method does."""

    exchanges: Exchanges
    answering: Answering
    feed: Feed
    bell: Bell

    async def CreateExchange(
        self, request: brokerpb.CreateExchangeRequest, context: Any
    ) -> brokerpb.CreateExchangeResponse:
        marketer, until = caller().id, self.exchanges.clock.monotonic() + SILENCE_S
        try:
            record = await self.exchanges.check(marketer, request)
        except Fault as fault:
            # A repeat's dates may be past, and its marketer suspended since: it is answered as before.
            return await self._repeat(marketer, request, until, fault)
        response = brokerpb.CreateExchangeResponse(exchange=exchange_to(record, record.created_at))
        create = partial(self.exchanges.create, record, request, response.SerializeToString())
        if request.release_in_answer:
            pseudonym = request.audience.pseudonyms.pseudonyms[0]
            is_new, delivery = await self.answering.first(record, pseudonym, create)
        else:
            is_new, delivery = await create(), None
        if not is_new:
            return await self._repeat(marketer, request, until, Conflict())
        if delivery is None:
            self.bell.ring()
        return await self._answered(request, response, delivery, until)

    async def _repeat(
        self, marketer: str, request: brokerpb.CreateExchangeRequest, until: float, otherwise: Fault
    ) -> brokerpb.CreateExchangeResponse:
        """Answer a request that was answered before. Raises ``otherwise`` if it wasn't, and RequestIdReused."""
        response = await self.exchanges.mutations.answered(marketer, request, brokerpb.CreateExchangeResponse)
        if response is None:
            raise otherwise
        delivery = None
        if request.release_in_answer:
            record = await self.exchanges.find(*_split(response.exchange.name))
            delivery = await self.answering.again(record, request.audience.pseudonyms.pseudonyms[0])
        return await self._answered(request, response, delivery, until)

    async def _answered(
        self,
        request: brokerpb.CreateExchangeRequest,
        response: brokerpb.CreateExchangeResponse,
        delivery: brokerpb.Delivery | None,
        until: float,
    ) -> brokerpb.CreateExchangeResponse:
        """Without a release, whatever the reason, an answer takes as long: asked, refused and absent look the same."""
        if delivery is not None:
            response.delivery.CopyFrom(delivery)
        elif request.release_in_answer:
            await asyncio.sleep(max(0.0, until - self.exchanges.clock.monotonic()))
        return response

    async def GetExchange(self, request: brokerpb.GetExchangeRequest, context: Any) -> brokerpb.Exchange:
        marketer, exchange_id = _own(request.name)
        exchange = await self.exchanges.find(marketer, exchange_id)
        return exchange_to(exchange, self.exchanges.clock.now())

    async def ListExchanges(
        self, request: brokerpb.ListExchangesRequest, context: Any
    ) -> brokerpb.ListExchangesResponse:
        page, now = Page.asked(request.page_size, request.page_token), self.exchanges.clock.now()
        records = await self.exchanges.store.exchanges(caller().id, page)
        return brokerpb.ListExchangesResponse(
            exchanges=[exchange_to(record, now) for record in records],
            next_page_token=page.next_token([(record.created_at, record.exchange_id) for record in records]),
        )

    async def CancelExchange(self, request: brokerpb.CancelExchangeRequest, context: Any) -> brokerpb.Exchange:
        return await self.exchanges.cancel(*_own(request.name), request)

    async def Deliveries(
        self, request: brokerpb.DeliveriesRequest, context: Any
    ) -> AsyncIterator[brokerpb.DeliveriesResponse]:
        marketer = caller().id
        seq = self.feed.names.read_place(marketer, request.resume_token)
        with self.feed.settling.following(marketer):
            async for message in self.feed.follow(marketer, seq):
                yield message

    async def AcknowledgeDeliveries(
        self, request: brokerpb.AcknowledgeDeliveriesRequest, context: Any
    ) -> brokerpb.AcknowledgeDeliveriesResponse:
        for kept in await self.exchanges.acknowledge(caller().id, [name.partition("/")[2] for name in request.names]):
            self.answering.kept(kept)
        return brokerpb.AcknowledgeDeliveriesResponse()


def _own(name: str) -> tuple[str, str]:
    """Split an exchange's name; somebody else's reads like one that isn't there. Raises ExchangeNotFound."""
    marketer, exchange_id = _split(name)
    if marketer != caller().id:
        raise ExchangeNotFound
    return marketer, exchange_id


def _split(name: str) -> tuple[str, str]:
    marketer, _, exchange_id = name.rpartition("/exchanges/")
    return marketer, exchange_id
