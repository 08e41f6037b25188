"""Consent's RPCs: from the wire to a command and back, a few lines each."""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from parley.consent.v1 import consent_pb2 as consentpb
from parley.consent.v1 import consent_pb2_grpc
from parley_consent.commands import Acts, Customer
from parley_consent.decisions import Decisions, Request
from parley_consent.domain.states import State
from parley_consent.faults import ConsentNotFound, OfferNotFound
from parley_consent.settlements import Settlements
from parley_consent.wire import (
    MOST_NAMED,
    check_rule_terms,
    consent_to,
    effect_from,
    ended_to,
    enforced_terms,
    offer_to,
    opening_to,
    rule_to,
    scope_from,
    settlement_to,
)
from parley_crypto.jws import StatementInvalid
from parley_crypto.statements import verify_card
from parley_crypto.trust import Trust
from parley_db.database import Tx
from parley_db.mutations import M, Mutations, WithRequestId
from parley_kit.faults import Unauthenticated
from parley_kit.pages import Page
from parley_kit.telemetry import Meter
from parley_rpc.principal import caller
from parley_terms.wire import timestamp

_DECISIONS: Mapping[int, str] = {
    int(number): name.removeprefix("DECISION_OUTCOME_").lower() for name, number in consentpb.DecisionOutcome.items()
}
_SETTLEMENTS: Mapping[int, str] = {
    int(number): name.removeprefix("SETTLE_REFUSAL_").lower() for name, number in consentpb.SettleRefusal.items()
} | {int(consentpb.SETTLE_REFUSAL_UNSPECIFIED): "settled"}


@dataclass(frozen=True)
class ConsentServicer(consent_pb2_grpc.ConsentServiceServicer):
    """``parley.consent.v1.ConsentService``; the proto says what each method does."""

    acts: Acts
    decisions: Decisions
    settlements: Settlements
    mutations: Mutations
    trust: Trust
    meter: Meter

    async def _once(self, request: WithRequestId, response: type[M], body: Callable[[Tx, Customer], Awaitable[M]]) -> M:
        who = _customer()
        async with self.mutations.turn(who.customer):
            return await self.mutations.once(who.customer, request, response, lambda tx: body(tx, who))

    async def CreateRule(self, request: consentpb.CreateRuleRequest, context: Any) -> consentpb.Rule:
        check_rule_terms(request.rule.terms, "rule.terms")
        effect, scope = effect_from(request.rule), scope_from(request.rule.scope)
        terms = request.rule.terms.SerializeToString(deterministic=True)

        async def body(tx: Tx, who: Customer) -> consentpb.Rule:
            return rule_to(await self.acts.add_rule(tx, who, effect, scope, terms))

        return await self._once(request, consentpb.Rule, body)

    async def ListRules(self, request: consentpb.ListRulesRequest, context: Any) -> consentpb.ListRulesResponse:
        page = Page.asked(request.page_size, request.page_token)
        store, who = self.acts.store, _customer()
        rules, objected = await store.rules(who.customer, page), await store.objected(who.customer)
        return consentpb.ListRulesResponse(
            rules=[rule_to(rule) for rule in rules],
            next_page_token=page.next_token([(rule.created_at, rule.rule_id) for rule in rules]),
            object_time=timestamp(objected) if objected else None,
        )

    async def DeleteRule(self, request: consentpb.DeleteRuleRequest, context: Any) -> consentpb.DeleteRuleResponse:
        async def body(tx: Tx, who: Customer) -> consentpb.DeleteRuleResponse:
            await self.acts.end_rule(tx, who, _id(request.name))
            return consentpb.DeleteRuleResponse()

        return await self._once(request, consentpb.DeleteRuleResponse, body)

    async def ListOffers(self, request: consentpb.ListOffersRequest, context: Any) -> consentpb.ListOffersResponse:
        page, now = Page.asked(request.page_size, request.page_token), self.acts.clock.now()
        offers = await self.acts.store.offers(_customer().customer, page, now if request.open_only else None)
        token = page.next_token([(offer.created_at, offer.consent_id) for offer in offers])
        return consentpb.ListOffersResponse(offers=[offer_to(offer, now) for offer in offers], next_page_token=token)

    async def GetOffer(self, request: consentpb.GetOfferRequest, context: Any) -> consentpb.Offer:
        store, who = self.acts.store, _customer()
        offer = await store.consent(store.db, who.customer, _id(request.name))
        if offer is None or offer.rule_id:
            raise OfferNotFound
        return offer_to(offer, self.acts.clock.now())

    async def AcceptOffer(self, request: consentpb.AcceptOfferRequest, context: Any) -> consentpb.AcceptOfferResponse:
        async def body(tx: Tx, who: Customer) -> consentpb.AcceptOfferResponse:
            consent, opening = await self.acts.accept(tx, who, _id(request.name))
            return consentpb.AcceptOfferResponse(
                consent=consent_to(consent, self.acts.clock.now()), opening=opening_to(opening)
            )

        return await self._once(request, consentpb.AcceptOfferResponse, body)

    async def RefuseOffer(self, request: consentpb.RefuseOfferRequest, context: Any) -> consentpb.RefuseOfferResponse:
        async def body(tx: Tx, who: Customer) -> consentpb.RefuseOfferResponse:
            await self.acts.answer(tx, who, _id(request.name), State.REJECTED)
            return consentpb.RefuseOfferResponse()

        return await self._once(request, consentpb.RefuseOfferResponse, body)

    async def DeferOffer(self, request: consentpb.DeferOfferRequest, context: Any) -> consentpb.DeferOfferResponse:
        async def body(tx: Tx, who: Customer) -> consentpb.DeferOfferResponse:
            await self.acts.answer(tx, who, _id(request.name), State.DEFERRED)
            return consentpb.DeferOfferResponse()

        return await self._once(request, consentpb.DeferOfferResponse, body)

    async def ListConsents(
        self, request: consentpb.ListConsentsRequest, context: Any
    ) -> consentpb.ListConsentsResponse:
        page, now = Page.asked(request.page_size, request.page_token), self.acts.clock.now()
        consents = await self.acts.store.consents(_customer().customer, page)
        return consentpb.ListConsentsResponse(
            consents=[consent_to(consent, now) for consent in consents],
            next_page_token=page.next_token([(consent.created_at, consent.consent_id) for consent in consents]),
        )

    async def GetConsent(self, request: consentpb.GetConsentRequest, context: Any) -> consentpb.Consent:
        store, who = self.acts.store, _customer()
        consent = await store.consent(store.db, who.customer, _id(request.name))
        if consent is None or not consent.artefact:
            raise ConsentNotFound
        return consent_to(consent, self.acts.clock.now())

    async def ListSettlements(
        self, request: consentpb.ListSettlementsRequest, context: Any
    ) -> consentpb.ListSettlementsResponse:
        page = Page.asked(request.page_size, request.page_token)
        found = await self.acts.store.settlements(_customer().customer, _id(request.parent), page)
        if found is None:
            raise ConsentNotFound
        return consentpb.ListSettlementsResponse(
            settlements=map(settlement_to, found),
            next_page_token=page.next_token([(each.settled_at, each.release_id) for each in found]),
        )

    async def WithdrawConsent(
        self, request: consentpb.WithdrawConsentRequest, context: Any
    ) -> consentpb.WithdrawConsentResponse:
        ended = 0

        async def body(tx: Tx, who: Customer) -> consentpb.WithdrawConsentResponse:
            nonlocal ended
            consent, opening = await self.acts.withdraw(tx, who, _id(request.name))
            ended = 1 if opening else 0
            return consentpb.WithdrawConsentResponse(
                consent=consent_to(consent, self.acts.clock.now()), opening=opening_to(opening)
            )

        answer = await self._once(request, consentpb.WithdrawConsentResponse, body)
        self.meter.withdrawn(ended)  # now that it is committed: a repeat runs no body, and counts none
        return answer

    async def PauseConsent(
        self, request: consentpb.PauseConsentRequest, context: Any
    ) -> consentpb.PauseConsentResponse:
        async def body(tx: Tx, who: Customer) -> consentpb.PauseConsentResponse:
            consent = await self.acts.pause(tx, who, _id(request.name))
            return consentpb.PauseConsentResponse(consent=consent_to(consent, self.acts.clock.now()))

        return await self._once(request, consentpb.PauseConsentResponse, body)

    async def ResumeConsent(
        self, request: consentpb.ResumeConsentRequest, context: Any
    ) -> consentpb.ResumeConsentResponse:
        async def body(tx: Tx, who: Customer) -> consentpb.ResumeConsentResponse:
            consent = await self.acts.resume(tx, who, _id(request.name))
            return consentpb.ResumeConsentResponse(consent=consent_to(consent, self.acts.clock.now()))

        return await self._once(request, consentpb.ResumeConsentResponse, body)

    async def ObjectToMarketing(
        self, request: consentpb.ObjectToMarketingRequest, context: Any
    ) -> consentpb.ObjectToMarketingResponse:
        who = _customer()
        answered = await self.mutations.answered(who.customer, request, consentpb.ObjectToMarketingResponse)
        if answered is not None:
            return answered
        async with self.mutations.turn(who.customer):
            ended = await self.acts.object(who)  # twice does no harm: it keeps the first, and ends what is left
        self.meter.withdrawn(len(ended))

        async def body(_tx: Tx, _who: Customer) -> consentpb.ObjectToMarketingResponse:
            return consentpb.ObjectToMarketingResponse(ended=ended_to(ended[:MOST_NAMED]), ended_count=len(ended))

        return await self._once(request, consentpb.ObjectToMarketingResponse, body)

    async def LiftObjection(
        self, request: consentpb.LiftObjectionRequest, context: Any
    ) -> consentpb.LiftObjectionResponse:
        who = _customer()
        async with self.mutations.turn(who.customer):
            await self.acts.end_objected(who)

        async def body(tx: Tx, who: Customer) -> consentpb.LiftObjectionResponse:
            await self.acts.lift_objection(tx, who)
            return consentpb.LiftObjectionResponse()

        return await self._once(request, consentpb.LiftObjectionResponse, body)

    async def Decide(self, request: consentpb.DecideRequest, context: Any) -> consentpb.DecideResponse:
        answer = await self._decide([request])
        (response,) = answer.responses
        if answer.HasField("batch"):
            response.batch.CopyFrom(answer.batch)
        return response

    async def BatchDecide(self, request: consentpb.BatchDecideRequest, context: Any) -> consentpb.BatchDecideResponse:
        return await self._decide(request.requests)

    async def _decide(self, requests: Sequence[consentpb.DecideRequest]) -> consentpb.BatchDecideResponse:
        answer = await self.decisions.decide([self._asked(request) for request in requests])
        outcomes = (decision.outcome for response in answer.responses for decision in response.decisions)
        self.meter.decided(_counted(outcomes, _DECISIONS))
        return answer

    def _asked(self, request: consentpb.DecideRequest) -> Request:
        """Check a request for decisions. Raises NotSupportedYet and Unauthenticated."""
        terms = enforced_terms(request.terms, "terms")
        try:
            card = verify_card(request.marketer_card, self.trust.keys("identity"), self.acts.clock.now())
        except StatementInvalid as error:
            raise Unauthenticated("The marketer's card is not valid now: fetch a fresh one.") from error
        return Request(card, terms, request)

    async def Settle(self, request: consentpb.SettleRequest, context: Any) -> consentpb.SettleResponse:
        answer = await self.settlements.settle(request.entries)
        self.meter.settled(_counted((each.refusal for each in answer.outcomes), _SETTLEMENTS))
        return answer


def _counted(outcomes: Iterable[int], names: Mapping[int, str]) -> dict[str, int]:
    return {names[outcome]: count for outcome, count in Counter(outcomes).items()}


def _customer() -> Customer:
    principal = caller()
    return Customer(principal.id, principal.audit_ref)


def _id(name: str) -> str:
    return name.partition("/")[2]
