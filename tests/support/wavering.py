"""Customers who accept whatever is offered and soon take it back, whatever dies meanwhile."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

import grpc

from parley.consent.v1 import consent_pb2 as consentpb
from tests.support.calls import request_id
from tests.support.history import History
from tests.support.world import Customer, World

_AWAY = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.ABORTED,
)
HAMLET = "Hamlet"
"""Where they live."""


async def wavering(world: World, number: int, rng: Random) -> "Waverer":
    """A new one, who is found by their age and asked each time."""
    customer = await world.customer()
    await customer.put(profile_age="34", profile_city=f"{HAMLET} {number}")
    await customer.discoverable("profile.age")
    return Waverer(customer, rng)


@dataclass
class Waverer:
    """One of them."""

    customer: Customer
    rng: Random
    may_object: bool = True
    """Whether they take it back by an objection, too."""
    calm: bool = True
    """Whether they have nothing in hand."""
    _agreed: dict[str, None] = field(default_factory=dict)

    async def waver(self, history: History) -> None:
        """Accept and take back, for ever; what was taken back is written down, with the releases that the answers name."""
        while True:
            await asyncio.sleep(0.2)
            self.calm = False
            for offer in (await self._call("ListOffers", consentpb.ListOffersRequest(open_only=True))).offers:
                request = consentpb.AcceptOfferRequest(name=offer.name, request_id=request_id())
                self._agreed[(await self._call("AcceptOffer", request)).consent.name] = None
                await asyncio.sleep(self.rng.uniform(0, 1))
                take_back = self.rng.choice([self._withdraw, self._object]) if self.may_object else self._withdraw
                for consent in await take_back():
                    history.withdrawn(consent.name, [one.release_id for one in consent.settlements])
                    self._agreed.pop(consent.name, None)
            self.calm = True

    async def _withdraw(self) -> list[consentpb.Consent]:
        """Withdraw the latest, and let them ask again."""
        request = consentpb.WithdrawConsentRequest(name=[*self._agreed][-1], request_id=request_id())
        withdrawn = (await self._call("WithdrawConsent", request)).consent
        for rule in (await self._call("ListRules", consentpb.ListRulesRequest())).rules:
            await self._call("DeleteRule", consentpb.DeleteRuleRequest(name=rule.name, request_id=request_id()))
        return [withdrawn]

    async def _object(self) -> list[consentpb.Consent]:
        """Object to all, and lift that. A second try, its answer lost, names only what it ended itself: the rest is looked up."""
        answer = await self._call("ObjectToMarketing", consentpb.ObjectToMarketingRequest(request_id=request_id()))
        ended = {one.name: one for one in answer.ended}
        for name in self._agreed.keys() - ended.keys():
            ended[name] = await self._call("GetConsent", consentpb.GetConsentRequest(name=name))
        await self._call("LiftObjection", consentpb.LiftObjectionRequest(request_id=request_id()))
        return [*ended.values()]

    async def _call(self, method: str, request: Any) -> Any:
        """Call until it is answered."""
        return await insist(self.customer, lambda: self.customer.call("consent", method, request, timeout=5))


async def insist(customer: Customer, call: Callable[[], Awaitable[Any]]) -> Any:
    """Call again until what is needed is back, signed in anew where that has lapsed."""
    while True:
        try:
            return await call()
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                await insist(customer, customer.sign_in)
            elif error.code() not in _AWAY:
                raise
        await asyncio.sleep(0.2)
