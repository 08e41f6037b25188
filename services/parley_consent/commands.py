"""What customers do: each act locks their row first, raises their revision, and is an event."""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from parley.common.v1 import terms_pb2 as termspb
from parley.consent.v1 import consent_events_pb2 as eventspb
from parley_bus.envelopes import envelope
from parley_consent.agreements import Deal, Scribe
from parley_consent.domain.artefact import Birth
from parley_consent.domain.deciding import Effect, Scope
from parley_consent.domain.records import ConsentRecord, RuleRecord
from parley_consent.domain.states import State, at, may_become
from parley_consent.faults import ConsentNotFound, InvalidConsentStatus, OfferNotFound, RuleNotFound, TooManyRules
from parley_consent.store import Notice, Store
from parley_crypto.commitment import Opening
from parley_db.database import Tx
from parley_db.outbox import OutboxEvent, append
from parley_kit.clock import Clock
from parley_kit.ids import new_id
from parley_kit.offload import each
from parley_terms.terms import Terms
from parley_terms.wire import terms_read

MOST_RULES = 500
"""That stand for one marketer, and for all others: a marketer's requests are held against both. Withdrawals may add more."""


@dataclass(frozen=True, slots=True)
class Customer:
    """Who acts: this service's id for them, and the reference under which audit knows them."""

    customer: str
    audit_ref: bytes


@dataclass(frozen=True)
class Acts:
    """A customer's acts, each within the transaction it is given."""

    store: Store
    scribe: Scribe
    clock: Clock
    longest_notice_delay: timedelta
    jitter: Callable[[float], float] = lambda longest: secrets.SystemRandom().uniform(0, longest)

    async def add_rule(self, tx: Tx, who: Customer, effect: Effect, scope: Scope, terms: bytes) -> RuleRecord:
        """Add a standing rule. Raises TooManyRules."""
        await self.store.act(tx, who.customer, who.audit_ref)
        if await self.store.standing_rules(tx, who.customer, scope.marketer) >= MOST_RULES:
            raise TooManyRules
        rule = RuleRecord(new_id(), effect, scope, terms, self.clock.now())
        await self.store.add_rule(tx, who.customer, rule)
        await self._rule_event(tx, who, "consent:rule:made", rule.rule_id, effect.name)
        return rule

    async def end_rule(self, tx: Tx, who: Customer, rule_id: str) -> None:
        """End a rule. Raises RuleNotFound."""
        await self.store.act(tx, who.customer, who.audit_ref)
        if not await self.store.end_rule(tx, who.customer, rule_id, self.clock.now()):
            raise RuleNotFound
        await self._rule_event(tx, who, "consent:rule:ended", rule_id, "")

    async def _rule_event(self, tx: Tx, who: Customer, kind: str, rule_id: str, effect: str) -> None:
        note, _ = self.scribe.notary.note(kind, {"rule": f"rules/{rule_id}", "effect": effect.lower()}, who.audit_ref)
        await append(tx, [envelope(eventspb.RuleChanged(note=note), self.clock.now())])

    async def accept(self, tx: Tx, who: Customer, offer_id: str) -> tuple[ConsentRecord, Opening]:
        """Make an offer a consent. Raises OfferNotFound, InvalidConsentStatus."""
        now = self.clock.now()
        offer = await self._offer(tx, who, offer_id, State.ACTIVE)
        terms = _agreed(terms_read(offer.terms), now)
        deal = Deal(offer.marketer, offer.exchange, terms)
        about = deal.claims(offer_id, offer.pseudonym)
        note, opening = self.scribe.note("consent:offer:accepted", about, who.audit_ref)
        birth = Birth(f"consents/{offer_id}", offer.pseudonym, now)
        consent = replace(
            offer,
            state=State.ACTIVE,
            terms=_starting(offer.terms, terms),
            artefact=self.scribe.artefact(self.scribe.common(deal, by_rule=False), birth, terms),
            salt=opening.salt,
            detail=opening.detail,
            agreed_at=now,
        )
        await self.store.agree(tx, who.customer, consent, now)
        event = eventspb.ConsentGiven(note=note, exchange=offer.exchange, pseudonym=offer.pseudonym)
        await append(tx, [envelope(event, now)])
        return consent, opening

    async def answer(self, tx: Tx, who: Customer, offer_id: str, answer: State) -> None:
        """Refuse an offer, or put it aside: to the marketer, silence. Raises OfferNotFound, InvalidConsentStatus."""
        offer = await self._offer(tx, who, offer_id, answer)
        await self.store.move(tx, who.customer, offer_id, answer)
        kind = "consent:offer:refused" if answer is State.REJECTED else "consent:offer:deferred"
        note, _ = self.scribe.note(kind, _about(offer), who.audit_ref)
        event = envelope(eventspb.OfferAnswered(note=note), self.clock.now())
        await append(tx, [event])

    async def withdraw(self, tx: Tx, who: Customer, consent_id: str) -> tuple[ConsentRecord, Opening | None]:
        """
        End a consent and leave a refuse rule for its marketer and purposes. Withdrawing twice keeps the first time.

        The opening is the act's: there is none the second time. Raises ConsentNotFound, InvalidConsentStatus.
        """
        await self.store.act(tx, who.customer, who.audit_ref)
        consent = await self._consent(tx, who, consent_id)
        if consent.state is State.REVOKED:
            return consent, None
        now = self.clock.now()
        _require(consent, State.REVOKED, now)
        await self.store.add_rule(tx, who.customer, _refusal(consent, now), unless_it_stands=True)
        (opening,) = await self._end(tx, who, [consent], now, {})
        return _revoked(consent, now), opening

    async def _end(
        self, tx: Tx, who: Customer, ended: Sequence[ConsentRecord], now: datetime, due: dict[str, datetime]
    ) -> list[Opening]:
        """
        End consents, all in two statements: a customer may have thousands, and must get through all the same.

        A marketer hears of all its own at one time, for of many times the first and the last would tell when this was: those that
        are known are in ``due``.
        """
        for marketer in {consent.marketer.marketer for consent in ended} - due.keys():
            due[marketer] = now + self._delay()
        notices = {one.consent_id: _notice(one, "ConsentRevoked", due[one.marketer.marketer]) for one in ended}
        await self.store.revoke(tx, who.customer, notices, at=now, by="customer")
        told = await each(partial(self._change, who, "consent:consent:withdrawn"), ended)
        await append(tx, [event for event, _ in told])
        return [opening for _, opening in told]

    async def object(self, who: Customer) -> list[ConsentRecord]:
        """
        Object to all marketing, and end every consent; answers those that this ended.

        From the first commit on nothing settles any more. Consents end after that, some in each transaction: a marketer may have
        made any number of them, and must stop neither this nor others who wait. What is left where it stops, the next time ends.
        """
        await self.store.db.run("consent.Object", partial(self._object, who))
        return await self._end_all(who)

    async def end_objected(self, who: Customer) -> None:
        """End what an objection of before left when it was stopped: lifted, it would count again."""
        await self._end_all(who, left=True)

    async def _object(self, who: Customer, tx: Tx) -> None:
        await self.store.act(tx, who.customer, who.audit_ref)
        if await self.store.object(tx, who.customer, self.clock.now()):
            await self._objection_event(tx, who, "consent:objection:made")

    async def _end_all(self, who: Customer, *, left: bool = False) -> list[ConsentRecord]:
        """End what was agreed, or only what was ``left`` from before the objection, for as long as that stands."""
        ended, due = list[ConsentRecord](), dict[str, datetime]()
        while some := await self.store.db.run("consent.EndConsents", partial(self._end_some, who, due, left)):
            ended += some
        return ended

    async def _end_some(self, who: Customer, due: dict[str, datetime], left: bool, tx: Tx) -> list[ConsentRecord]:
        await self.store.act(tx, who.customer, who.audit_ref)
        now, objected = self.clock.now(), await self.store.objected(who.customer, tx)
        if objected is None:  # lifted meanwhile: what is agreed from then on isn't this one's to end
            return []
        live = await self.store.live(tx, who.customer, now, objected if left else None)
        if live:
            await self._end(tx, who, live, now, due)
        return [_revoked(consent, now) for consent in live]

    async def lift_objection(self, tx: Tx, who: Customer) -> None:
        """Lift an objection, if there is one."""
        await self.store.act(tx, who.customer, who.audit_ref)
        if await self.store.lift_objection(tx, who.customer):
            await self._objection_event(tx, who, "consent:objection:lifted")

    async def _objection_event(self, tx: Tx, who: Customer, kind: str) -> None:
        note, _ = self.scribe.notary.note(kind, {}, who.audit_ref)
        event = envelope(eventspb.ObjectionChanged(note=note), self.clock.now())
        await append(tx, [event])

    async def pause(self, tx: Tx, who: Customer, consent_id: str) -> ConsentRecord:
        """Suspend a consent. Raises ConsentNotFound, InvalidConsentStatus."""
        consent = await self._move(tx, who, consent_id, State.PAUSED)
        await self._changed(tx, who, consent, "consent:consent:paused")
        if not await self.store.cancel_notice(tx, who.customer, consent_id, "ConsentResumed"):
            await self._schedule(tx, who, consent, "ConsentPaused")
        return consent

    async def resume(self, tx: Tx, who: Customer, consent_id: str) -> ConsentRecord:
        """End a pause. Raises ConsentNotFound, InvalidConsentStatus."""
        consent = await self._move(tx, who, consent_id, State.ACTIVE)
        await self._changed(tx, who, consent, "consent:consent:resumed")
        if not await self.store.cancel_notice(tx, who.customer, consent_id, "ConsentPaused"):
            await self._schedule(tx, who, consent, "ConsentResumed")
        return consent

    async def _offer(self, tx: Tx, who: Customer, offer_id: str, wanted: State) -> ConsentRecord:
        await self.store.act(tx, who.customer, who.audit_ref)
        offer = await self.store.consent(tx, who.customer, offer_id)
        if offer is None or offer.rule_id:
            raise OfferNotFound
        if not may_become(_now(offer, self.clock.now()), wanted) or offer.state is State.PAUSED:
            raise InvalidConsentStatus
        return offer

    async def _move(self, tx: Tx, who: Customer, consent_id: str, wanted: State) -> ConsentRecord:
        await self.store.act(tx, who.customer, who.audit_ref)
        consent = await self._consent(tx, who, consent_id)
        _require(consent, wanted, self.clock.now())
        await self.store.move(tx, who.customer, consent_id, wanted)
        return replace(consent, state=wanted)

    async def _consent(self, tx: Tx, who: Customer, consent_id: str) -> ConsentRecord:
        consent = await self.store.consent(tx, who.customer, consent_id)
        if consent is None or not consent.artefact:
            raise ConsentNotFound
        return consent

    async def _changed(self, tx: Tx, who: Customer, consent: ConsentRecord, kind: str) -> None:
        event, _ = self._change(who, kind, consent)
        await append(tx, [event])

    def _change(self, who: Customer, kind: str, consent: ConsentRecord) -> tuple[OutboxEvent, Opening]:
        """An event that comes at once, for audit and the customer alone; the marketer's notice comes apart."""
        note, opening = self.scribe.note(kind, _about(consent), who.audit_ref)
        return envelope(eventspb.ConsentChanged(note=note), self.clock.now()), opening

    async def _schedule(self, tx: Tx, who: Customer, consent: ConsentRecord, kind: str) -> None:
        due = self.clock.now() + self._delay()
        await self.store.schedule_notice(tx, who.customer, consent.consent_id, _notice(consent, kind, due))

    def _delay(self) -> timedelta:
        """How long a marketer isn't told of an act: its own time for each marketer and act."""
        return timedelta(seconds=self.jitter(self.longest_notice_delay.total_seconds()))


def _notice(consent: ConsentRecord, kind: str, due: datetime) -> Notice:
    """What its marketer will be told, and when."""
    return Notice(new_id(), due, consent.marketer.marketer, consent.pseudonym, kind)


def _now(consent: ConsentRecord, now: datetime) -> State:
    return at(consent.state, consent.decision_deadline, consent.valid_until, now)


def _require(consent: ConsentRecord, wanted: State, now: datetime) -> None:
    if not may_become(_now(consent, now), wanted) or (wanted is State.ACTIVE and consent.state is not State.PAUSED):
        raise InvalidConsentStatus


def _revoked(consent: ConsentRecord, now: datetime) -> ConsentRecord:
    return replace(consent, state=State.REVOKED, revoked_at=now, revoked_by="customer")


def _about(consent: ConsentRecord) -> dict[str, Any]:
    agreed = terms_read(consent.terms)
    return Deal(consent.marketer, consent.exchange, agreed).claims(consent.consent_id, consent.pseudonym)


def _agreed(terms: Terms, now: datetime) -> Terms:
    return replace(terms, validity=replace(terms.validity, start=terms.validity.start or now))


def _starting(raw: bytes, terms: Terms) -> bytes:
    """The terms as they were offered, with the start that acceptance gave them."""
    message = termspb.Terms.FromString(raw)
    if terms.validity.start:
        message.timing.validity.start_time.FromDatetime(terms.validity.start)
    return message.SerializeToString(deterministic=True)


def _refusal(consent: ConsentRecord, now: datetime) -> RuleRecord:
    purposes = sorted(terms_read(consent.terms).purposes)
    terms = termspb.Terms(purposes=purposes).SerializeToString(deterministic=True)
    return RuleRecord(new_id(), Effect.REFUSE, Scope(marketer=consent.marketer.marketer), terms, now)
