"""What the broker asks first: decisions, with permits for what is allowed."""

import base64
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from parley.common.v1 import permit_pb2 as permitpb
from parley.common.v1 import terms_pb2 as termspb
from parley.consent.v1 import consent_events_pb2 as eventspb
from parley.consent.v1 import consent_pb2 as consentpb
from parley_bus.envelopes import envelope
from parley_consent.agreements import Deal, Scribe
from parley_consent.basis import Basis, Own
from parley_consent.domain.deciding import Allowed, Asking, Otherwise, agreed_to, decide, next_change
from parley_consent.domain.records import MarketerRecord
from parley_consent.domain.states import OPEN
from parley_consent.store import Asked, NewOffer, OfferBatch, Stood, Store
from parley_crypto.batch import sign_batch
from parley_crypto.keyring import KeyRing
from parley_crypto.signing import Signer
from parley_crypto.statements import Card
from parley_crypto.subject_ref import RefInvalid, SubjectRef, open_ref
from parley_db.outbox import append
from parley_kit.clock import Clock
from parley_kit.ids import new_id
from parley_kit.offload import each
from parley_terms.terms import Level, Terms, Use
from parley_terms.wire import field_to, timestamp

PERMIT_LIFE = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class Request:
    """A marketer's request for decisions about customers: its card and terms, checked, and what was asked."""

    card: Card
    terms: Terms
    asked: consentpb.DecideRequest


@dataclass(frozen=True, slots=True)
class Person:
    """A customer a decision is asked about: who they are here and to the marketer, and for audit."""

    ref: SubjectRef
    audit_ref: bytes


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was decided about a customer, and where they stood."""

    person: Person
    stood: Stood
    found: Allowed | Otherwise


@dataclass(frozen=True)
class Decisions:
    """Decides, and permits."""

    store: Store
    scribe: Scribe
    signer: Signer
    ref_ring: KeyRing
    release_key: bytes = field(repr=False)
    clock: Clock

    async def decide(self, requests: Sequence[Request]) -> consentpb.BatchDecideResponse:
        """
        Decide each request about each of its customers: a read, but for the offers it opens. A ref that isn't ours is refused.

        Where everybody stands is read in one statement, and one signature covers all permits.
        """
        now = self.clock.now()
        people = [[self._person(request.card, entry) for entry in request.asked.entries] for request in requests]
        stood = iter(
            await self.store.stand(
                [
                    Asked(person.ref.subject, request.card.marketer, request.asked.exchange, request.terms.validity.end)
                    for request, asked in zip(requests, people, strict=True)
                    for person in asked
                    if person
                ],
                now,
            )
        )
        response, permits = consentpb.BatchDecideResponse(), list[permitpb.Permit]()
        for request, asked in zip(requests, people, strict=True):
            verdicts = await self._verdicts(
                request, [(person, next(stood)) if person else None for person in asked], now
            )
            if not request.asked.opens_no_offer:
                await self._ask(request, [one.person for one in verdicts if one and _is_new_offer(one)], now)
            permits += self._permits(request, verdicts, response.responses.add(), now)
        self._sign(permits, response.batch)
        return response

    def _person(self, card: Card, entry: consentpb.DecideEntry) -> Person | None:
        try:
            ref = open_ref(self.ref_ring, "consent", entry.consent_ref)
        except RefInvalid:
            return None
        return Person(ref, entry.audit_ref) if ref.marketer == card.marketer and ref.pseudonym else None

    async def _verdicts(
        self, request: Request, people: Sequence[tuple[Person, Stood] | None], now: datetime
    ) -> list[Verdict | None]:
        """What becomes of a request for each; None for nobody of ours. Some have hundreds of rules: others get their turns."""
        asking = Asking(request.card.marketer, Level(request.card.level), request.terms)
        agreed = agreed_to(asking, now)

        def verdict(one: tuple[Person, Stood] | None) -> Verdict | None:
            if one is None:
                return None
            person, stood = one
            if request.asked.only_settled and stood.released_at is None:
                return Verdict(person, stood, Otherwise.REFUSE)
            return Verdict(person, stood, decide(stood.standing, agreed if stood.agreed else asking, now))

        return await each(verdict, people)

    async def _ask(self, request: Request, people: Sequence[Person], now: datetime) -> None:
        if not people:
            return
        asked, terms = request.asked, request.terms
        assert terms.decision_deadline is not None
        assert terms.validity.end is not None
        marketer = _marketer(request.card)
        batch = OfferBatch(
            marketer=marketer,
            exchange=asked.exchange,
            terms=asked.terms.SerializeToString(deterministic=True),
            text=asked.offer_text,
            one_time=terms.use is Use.ONE_TIME,
            decision_deadline=terms.decision_deadline,
            valid_until=terms.validity.end,
            created_at=now,
        )
        offers = [NewOffer(p.ref.subject, p.audit_ref, new_id(), p.ref.pseudonym) for p in people]
        deal = Deal(marketer, asked.exchange, terms)
        async with self.store.db.tx("consent.Ask") as tx:
            made = await self.store.make_offers(tx, batch, offers)
            events = []
            for offer in offers:
                if offer.offer_id in made:
                    about = deal.claims(offer.offer_id, offer.pseudonym)
                    note, _ = self.scribe.note("consent:offer:made", about, offer.audit_ref)
                    events.append(envelope(eventspb.OfferMade(note=note), now))
            await append(tx, events)

    def _permits(
        self,
        request: Request,
        verdicts: Sequence[Verdict | None],
        response: consentpb.DecideResponse,
        now: datetime,
    ) -> Iterator[permitpb.Permit]:
        """Answer a request, in the order asked; the permits in the answer are yet to be signed."""
        common: dict[int, permitpb.PermitBody] = {}  # most agree to the same terms, one and the same object
        for verdict in verdicts:
            decision = response.decisions.add()
            if verdict and isinstance(verdict.found, Allowed):
                terms = verdict.found.terms
                if id(terms) not in common:
                    common[id(terms)] = _common(request, terms, now)
                decision.outcome = consentpb.DECISION_OUTCOME_ALLOWED
                body = self._permit(common[id(terms)], verdict, verdict.found, now)
                decision.permit.body = body.SerializeToString(deterministic=True)
                yield decision.permit
            else:
                decision.outcome = _outcome(verdict)

    def _sign(self, permits: Sequence[permitpb.Permit], signed: permitpb.PermitBatch) -> None:
        """Sign permits as one batch."""
        if not permits:
            return
        batch, proofs = sign_batch(self.signer, [permit.body for permit in permits])
        for index, (permit, proof) in enumerate(zip(permits, proofs, strict=True)):
            permit.index = index
            permit.proof.extend(proof)
        signed.root, signed.size, signed.signature, signed.key_id = (
            batch.root,
            batch.size,
            batch.signature,
            self.signer.key_id,
        )

    def _permit(
        self, common: permitpb.PermitBody, verdict: Verdict, allowed: Allowed, now: datetime
    ) -> permitpb.PermitBody:
        ref = verdict.person.ref
        permit = permitpb.PermitBody(
            permit_id=new_id(),
            release_id=self._release_id(common.exchange, ref.pseudonym),
            consent=f"consents/{allowed.consent_id or new_id()}",
            basis=Basis(verdict.stood.revision, allowed.rule_id).seal(self.ref_ring, ref.subject),
            pseudonym=ref.pseudonym,
            vault_host=ref.host,
            audit_ref=verdict.person.audit_ref,
        )
        permit.MergeFrom(common)
        if verdict.stood.audit_ref:
            until = next_change(verdict.stood.standing.rules, now)  # no act tells of it: the revision stays
            permit.own = Own(verdict.stood.audit_ref, until).seal(self.ref_ring, ref.subject)
        if verdict.stood.released_at and common.terms.content.use == termspb.USE_ONE_TIME:
            permit.unchanged_since.CopyFrom(timestamp(verdict.stood.released_at))
        return permit

    def _release_id(self, exchange: str, pseudonym: str) -> str:
        """One per exchange and pseudonym, the same in every permit for that release, and no one else's to compute."""
        message = f"{exchange}\n{pseudonym}".encode()
        digest = hashlib.blake2b(message, digest_size=20, key=self.release_key, person=b"parley/release").digest()
        return base64.b32encode(digest).decode().lower()


def _common(request: Request, agreed: Terms, now: datetime) -> permitpb.PermitBody:
    """What is the same in the permits of all who agree to the same."""
    terms, card = termspb.Terms(), request.card
    terms.CopyFrom(request.asked.terms)
    assert agreed.validity.start is not None
    terms.timing.validity.start_time.FromDatetime(agreed.validity.start)
    return permitpb.PermitBody(
        exchange=request.asked.exchange,
        marketer=card.marketer,
        sealing_key_id=card.sealing_key_id,
        sealing_key=card.sealing_key,
        fields=[field_to(item) for item in agreed.fields],
        issue_time=timestamp(now),
        expire_time=timestamp(now + PERMIT_LIFE),
        terms=terms,
        marketer_display_name=card.display_name,
        marketer_legal_entity=card.legal_entity,
        marketer_contact=card.contact,
        marketer_level=termspb.VerificationLevel.ValueType(card.level),
    )


def _marketer(card: Card) -> MarketerRecord:
    return MarketerRecord(card.marketer, card.display_name, card.legal_entity, card.contact, card.level)


def _is_new_offer(verdict: Verdict) -> bool:
    return verdict.found is Otherwise.ASK and verdict.stood.offer is None and verdict.stood.released_at is None


def _outcome(verdict: Verdict | None) -> consentpb.DecisionOutcome.ValueType:
    if verdict is None:
        return consentpb.DECISION_OUTCOME_REFUSED
    if verdict.found is Otherwise.LATER:
        return consentpb.DECISION_OUTCOME_LATER
    # An exchange that has had its release asks for no second one.
    stood = verdict.stood
    open_to_it = stood.released_at is None and (stood.offer is None or stood.offer in OPEN)
    asked = verdict.found is Otherwise.ASK and open_to_it
    return consentpb.DECISION_OUTCOME_ASKED if asked else consentpb.DECISION_OUTCOME_REFUSED
