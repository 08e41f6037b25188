"""Customers who accept whatever is offered and soon take it back, whatever dies meanwhile."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
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
    return Waverer(customer, rng, always_objects=number == 0)


@dataclass
class Waverer:
    """One of them."""

    customer: Customer
    rng: Random
    may_object: bool = True
    """Whether they take it back by an objection, too."""
    always_objects: bool = False
    """Whether, if they may, they do nothing else: so that somebody does, each time."""
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
                objects = self.may_object and (self.always_objects or self.rng.random() < 0.5)
                take_back = self._object if objects else self._withdraw
                await take_back(history)
            self.calm = True

    async def _withdraw(self, history: History) -> None:
        """Withdraw the latest, and let them ask again."""
        request = consentpb.WithdrawConsentRequest(name=[*self._agreed][-1], request_id=request_id())
        self._note(history, [(await self._call("WithdrawConsent", request)).consent])
        for rule in (await self._call("ListRules", consentpb.ListRulesRequest())).rules:
            await self._call("DeleteRule", consentpb.DeleteRuleRequest(name=rule.name, request_id=request_id()))

    async def _object(self, history: History) -> None:
        """
        Object to all, and lift that.

        A second try, its answer lost, names only what it ended itself. The rest is looked up: what settled after it was revoked
        counts for nothing there, as no answer could have named it.
        """
        answer = await self._call("ObjectToMarketing", consentpb.ObjectToMarketingRequest(request_id=request_id()))
        self._note(history, answer.ended)
        for name in [*self._agreed]:
            ended = await self._call("GetConsent", consentpb.GetConsentRequest(name=name))
            revoked = ended.revoke_time.ToNanoseconds()
            before = [one for one in ended.settlements if one.settle_time.ToNanoseconds() <= revoked]
            self._note(history, [consentpb.Consent(name=name, settlements=before)])
        await self._call("LiftObjection", consentpb.LiftObjectionRequest(request_id=request_id()))

    def _note(self, history: History, ended: Iterable[consentpb.Consent]) -> None:
        """Write down what was taken back, and what its answer names: before the next call, as it counts from now."""
        for consent in ended:
            history.withdrawn(consent.name, [one.release_id for one in consent.settlements])
            self._agreed.pop(consent.name, None)

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
