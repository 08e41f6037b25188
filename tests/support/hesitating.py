"""A customer who pauses in the moment they are asked, and soon goes on: it is decided again, at once or half a minute later."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import Any, Protocol

from parley.broker.v1 import broker_pb2 as brokerpb
from parley.consent.v1 import consent_pb2 as consentpb
from tests.support.calls import request_id
from tests.support.chaos import ALLOW
from tests.support.waiting import until
from tests.support.wavering import HAMLET, insist
from tests.support.world import Customer, World, between, by_criteria, terms, to_known

_AGE = "33"


class Asks(Protocol):
    """Who asks them: a marketer's backend."""

    @property
    def name(self) -> str:
        """The marketer's."""

    async def ask_perhaps(self, request: brokerpb.CreateExchangeRequest) -> None:
        """Make an exchange that may bring a release, until it is answered."""


async def hesitating(world: World, rng: Random) -> "Hesitant":
    """A new one, of an age that nobody else has, whose rule allows it."""
    customer = await world.customer()
    await customer.put(profile_age=_AGE, profile_city=f"{HAMLET} of second thoughts")
    await customer.discoverable("profile.age")
    rule = terms("profile.city", "profile.age", valid_for=timedelta(days=365), decide_within=None)
    await customer.rule(ALLOW, rule)
    return Hesitant(customer, rng)


@dataclass
class Hesitant:
    """One of them."""

    customer: Customer
    rng: Random
    calm: bool = True
    """Whether they have nothing in hand."""
    _is_known: bool = False

    def anew(self) -> "Hesitant":
        """The same one, for another marketer."""
        return Hesitant(self.customer, self.rng)

    async def known(self) -> bool:
        """Whether the marketer who asks has come to know them."""
        return self._is_known

    async def hesitate(self, backend: Asks, is_enough: Callable[[], bool]) -> None:
        """Be asked, pause and go on until it is enough: they go on in the end."""
        self.calm = False
        consent = await self._agreed(backend)
        self._is_known = True
        pause = consentpb.PauseConsentRequest(name=consent.name)
        resume = consentpb.ResumeConsentRequest(name=consent.name)
        while not is_enough():
            request = to_known(terms("profile.city", valid_for=timedelta(days=20)), consent.pseudonym, in_answer=True)
            await asyncio.gather(backend.ask_perhaps(request), self._soon("PauseConsent", pause))
            await asyncio.sleep(self.rng.uniform(0.1, 0.3))  # who is to be decided is postponed meanwhile
            await self._call("ResumeConsent", resume)
        self.calm = True

    async def _agreed(self, backend: Asks) -> consentpb.Consent:
        """The consent that is born where a marketer asks for the first time; all that it asks later is covered by it."""
        await backend.ask_perhaps(
            by_criteria(terms("profile.city", valid_for=timedelta(days=60)), between("profile.age", _AGE, _AGE))
        )
        found: list[consentpb.Consent] = []

        async def is_born() -> bool:
            await asyncio.sleep(0.2)
            listed = await self._call("ListConsents", consentpb.ListConsentsRequest())
            found[:] = [one for one in listed.consents if one.marketer == backend.name]
            return bool(found)

        await until(is_born, 300)
        return found[0]

    async def _soon(self, method: str, request: Any) -> None:
        await asyncio.sleep(self.rng.uniform(0, 0.02))
        await self._call(method, request)

    async def _call(self, method: str, request: Any) -> Any:
        """Call until it is answered; a mutation is a new one each time, and tried again under its own id."""
        if "request_id" in request.DESCRIPTOR.fields_by_name:
            request.request_id = request_id()
        return await insist(self.customer, lambda: self.customer.call("consent", method, request, timeout=5))
