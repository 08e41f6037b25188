"""Broker's RPCs: from the wire to a command and back, a few lines each."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from parley.broker.v1 import broker_pb2 as brokerpb
from parley.broker.v1 import broker_pb2_grpc
from parley_broker.exchanges import Exchanges
from parley_broker.faults import ExchangeNotFound
from parley_broker.feed import Feed
from parley_broker.wire import exchange_to, next_token, page_from, page_size
from parley_broker.work import Bell, Releasing
from parley_db.database import Tx
from parley_db.mutations import Mutations
from parley_kit.faults import Fault
from parley_rpc.principal import caller

SILENCE_S = 0.25
"""Seconds after which an answer says nothing: longer than opening an offer takes, so that time doesn't tell it from a refusal."""


@dataclass(frozen=True)
class BrokerServicer(broker_pb2_grpc.BrokerServiceServicer):
    """``parley.broker.v1.BrokerService``; the proto says what each method does."""

    exchanges: Exchanges
    releasing: Releasing
    feed: Feed
    mutations: Mutations
    bell: Bell

    async def CreateExchange(
        self, request: brokerpb.CreateExchangeRequest, context: Any
    ) -> brokerpb.CreateExchangeResponse:
        marketer = caller().id
        by = await self.exchanges.measure(marketer)  # before the transaction, which waits for no other service

        async def body(tx: Tx) -> brokerpb.CreateExchangeResponse:
            exchange = await self.exchanges.create(tx, marketer, request, by)  # checks; a repeat's dates may be past
            now = self.exchanges.clock.now()
            return brokerpb.CreateExchangeResponse(exchange=exchange_to(exchange, now))

        response = await self.mutations.once(marketer, request, brokerpb.CreateExchangeResponse, body)
        self.bell.ring()
        if request.release_in_answer:
            await self._answer(response, request.audience.pseudonyms.pseudonyms[0])
        return response

    async def _answer(self, response: brokerpb.CreateExchangeResponse, pseudonym: str) -> None:
        """
        Go through the very same steps at once; a repeat goes through them again, and is never answered from what was stored.

        Without a release, whatever the reason, the answer takes as long as it takes: asked, refused and absent look the same.
        """
        until = self.feed.clock.monotonic() + SILENCE_S
        marketer, exchange_id = _split(response.exchange.name)
        with contextlib.suppress(Fault):  # what fails now is taken up in the background; why is nobody's business here
            participant = await self.exchanges.store.participant(marketer, exchange_id, pseudonym)
            if participant is not None and not participant.settled:
                await self.releasing.carry(await self.exchanges.find(marketer, exchange_id), [participant])
            if delivery := await self.feed.answer(marketer, exchange_id, pseudonym):
                response.delivery.CopyFrom(delivery)
                return
        await asyncio.sleep(max(0.0, until - self.feed.clock.monotonic()))

    async def GetExchange(self, request: brokerpb.GetExchangeRequest, context: Any) -> brokerpb.Exchange:
        marketer, exchange_id = _own(request.name)
        exchange = await self.exchanges.find(marketer, exchange_id)
        return exchange_to(exchange, self.exchanges.clock.now())

    async def ListExchanges(
        self, request: brokerpb.ListExchangesRequest, context: Any
    ) -> brokerpb.ListExchangesResponse:
        size, now = page_size(request.page_size), self.exchanges.clock.now()
        records = await self.exchanges.store.exchanges(caller().id, *page_from(request.page_token), size)
        return brokerpb.ListExchangesResponse(
            exchanges=[exchange_to(record, now) for record in records], next_page_token=next_token(records, size)
        )

    async def CancelExchange(self, request: brokerpb.CancelExchangeRequest, context: Any) -> brokerpb.Exchange:
        marketer, exchange_id = _own(request.name)
        exchange = await self.exchanges.cancel(marketer, exchange_id)
        return exchange_to(exchange, self.exchanges.clock.now())

    async def Deliveries(self, request: brokerpb.DeliveriesRequest, context: Any) -> AsyncIterator[brokerpb.Delivery]:
        marketer = caller().id
        seq = self.feed.tokens.read(marketer, request.resume_token)
        async for delivery in self.feed.follow(marketer, seq):
            yield delivery

    async def AcknowledgeDeliveries(
        self, request: brokerpb.AcknowledgeDeliveriesRequest, context: Any
    ) -> brokerpb.AcknowledgeDeliveriesResponse:
        await self.exchanges.acknowledge(caller().id, [name.partition("/")[2] for name in request.names])
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
