"""What the broker asks first: decisions, with permits for what is allowed."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from parley.common.v1 import permit_pb2 as permitpb
from parley.common.v1 import terms_pb2 as termspb
from parley.consent.v1 import consent_events_pb2 as eventspb
from parley.consent.v1 import consent_pb2 as consentpb
from parley_bus.envelopes import envelope
from parley_consent.agreements import Deal, Scribe
from parley_consent.basis import Basis
from parley_consent.domain.deciding import Allowed, Asking, Otherwise, decide, sent_again
from parley_consent.domain.records import MarketerRecord
from parley_consent.domain.states import OPEN
from parley_consent.store import NewOffer, OfferBatch, Stood, Store
from parley_crypto.batch import sign_batch
from parley_crypto.keyring import KeyRing
from parley_crypto.signing import Signer
from parley_crypto.statements import Card
from parley_crypto.subject_ref import RefInvalid, SubjectRef, open_ref
from parley_db.outbox import append
from parley_kit.clock import Clock
from parley_kit.ids import new_id
from parley_terms.terms import Level, Terms, Use
from parley_terms.wire import field_to, terms_from, timestamp

PERMIT_LIFE = timedelta(seconds=30)
_Refusal = consentpb.SettleRefusal


@dataclass(frozen=True)
class Request:
    """A marketer's request for decisions."""

    card: Card
    exchange: str
    terms: termspb.Terms
    offer_text: str
    opens_no_offer: bool = False


@dataclass(frozen=True, slots=True)
class Person:
    """A customer a decision is asked about: who they are here and to the marketer, and for audit."""

    ref: SubjectRef
    audit_ref: bytes


@dataclass(frozen=True)
class Decisions:
    """Decides, and permits."""

    store: Store
    scribe: Scribe
    signer: Signer
    ref_ring: KeyRing
    release_key: bytes = field(repr=False)
    clock: Clock

    async def decide(self, request: Request, entries: Sequence[consentpb.DecideEntry]) -> consentpb.DecideResponse:
        """Decide about each customer: a read, but for the offers it opens. A ref that isn't ours is refused."""
        people = [self._person(request.card, entry) for entry in entries]
        known = [person for person in people if person]
        now, terms = self.clock.now(), terms_from(request.terms)
        asking = Asking(request.card.marketer, Level(request.card.level), terms)
        stood = await self.store.stand([p.ref.subject for p in known], asking.marketer, request.exchange)
        again = sent_again(asking, now)
        verdicts = {
            name: decide(where.standing, again if where.released else asking, now) for name, where in stood.items()
        }
        if not request.opens_no_offer:
            asked = [p for p in known if _is_new_offer(verdicts[p.ref.subject], stood[p.ref.subject])]
            await self._ask(request, terms, asked, now)
        return self._response(request, people, stood, verdicts, now)

    def _person(self, card: Card, entry: consentpb.DecideEntry) -> Person | None:
        try:
            ref = open_ref(self.ref_ring, "consent", entry.consent_ref)
        except RefInvalid:
            return None
        return Person(ref, entry.audit_ref) if ref.marketer == card.marketer and ref.pseudonym else None

    async def _ask(self, request: Request, terms: Terms, people: Sequence[Person], now: datetime) -> None:
        if not people:
            return
        assert terms.decision_deadline is not None
        assert terms.validity.end is not None
        marketer = _marketer(request.card)
        batch = OfferBatch(
            marketer=marketer,
            exchange=request.exchange,
            terms=request.terms.SerializeToString(deterministic=True),
            text=request.offer_text,
            one_time=terms.use is Use.ONE_TIME,
            decision_deadline=terms.decision_deadline,
            valid_until=terms.validity.end,
            created_at=now,
        )
        offers = [NewOffer(p.ref.subject, p.audit_ref, new_id(), p.ref.pseudonym) for p in people]
        deal = Deal(marketer, request.exchange, terms)
        async with self.store.db.tx("consent.Ask") as tx:
            made = await self.store.make_offers(tx, batch, offers)
            events = []
            for offer in offers:
                if offer.offer_id in made:
                    about = deal.claims(offer.offer_id, offer.pseudonym)
                    note, _ = self.scribe.note("consent:offer:made", about, offer.audit_ref)
                    events.append(envelope(eventspb.OfferMade(note=note), now))
            await append(tx, events)

    def _response(
        self,
        request: Request,
        people: Sequence[Person | None],
        stood: Mapping[str, Stood],
        verdicts: Mapping[str, Allowed | Otherwise],
        now: datetime,
    ) -> consentpb.DecideResponse:
        response, bodies = consentpb.DecideResponse(), []
        for person in people:
            verdict = verdicts[person.ref.subject] if person else Otherwise.REFUSE
            decision = response.decisions.add()
            if isinstance(verdict, Allowed):
                assert person is not None
                decision.outcome = consentpb.DECISION_OUTCOME_ALLOWED
                body = self._permit(request, person, stood[person.ref.subject].revision, verdict, now)
                decision.permit.body = body.SerializeToString(deterministic=True)
                bodies.append(decision.permit)
            else:
                decision.outcome = _outcome(verdict, stood[person.ref.subject] if person else None)
        if bodies:
            batch, proofs = sign_batch(self.signer, [permit.body for permit in bodies])
            for index, (permit, proof) in enumerate(zip(bodies, proofs, strict=True)):
                permit.index = index
                permit.proof.extend(proof)
            response.batch.CopyFrom(
                permitpb.PermitBatch(
                    root=batch.root, size=batch.size, signature=batch.signature, key_id=self.signer.key_id
                )
            )
        return response

    def _permit(
        self, request: Request, person: Person, revision: int, allowed: Allowed, now: datetime
    ) -> permitpb.PermitBody:
        terms = termspb.Terms()
        terms.CopyFrom(request.terms)
        assert allowed.terms.validity.start is not None
        terms.timing.validity.start_time.FromDatetime(allowed.terms.validity.start)
        card, ref = request.card, person.ref
        return permitpb.PermitBody(
            permit_id=new_id(),
            release_id=self._release_id(request.exchange, ref.pseudonym),
            exchange=request.exchange,
            consent=f"consents/{allowed.consent_id or new_id()}",
            basis=Basis(revision, allowed.rule_id).seal(self.ref_ring, ref.subject),
            marketer=card.marketer,
            sealing_key_id=card.sealing_key_id,
            sealing_key=card.sealing_key,
            pseudonym=ref.pseudonym,
            fields=[field_to(item) for item in allowed.terms.fields],
            vault_host=ref.host,
            issue_time=timestamp(now),
            expire_time=timestamp(now + PERMIT_LIFE),
            terms=terms,
            marketer_display_name=card.display_name,
            marketer_legal_entity=card.legal_entity,
            marketer_contact=card.contact,
            marketer_level=termspb.VerificationLevel.ValueType(card.level),
            audit_ref=person.audit_ref,
        )

    def _release_id(self, exchange: str, pseudonym: str) -> str:
        """One per exchange and pseudonym, the same in every permit for that release, and no one else's to compute."""
        message = f"{exchange}\n{pseudonym}".encode()
        digest = hashlib.blake2b(message, digest_size=20, key=self.release_key, person=b"parley/release").digest()
        return base64.b32encode(digest).decode().lower()


def _marketer(card: Card) -> MarketerRecord:
    return MarketerRecord(card.marketer, card.display_name, card.legal_entity, card.contact, card.level)


def _is_new_offer(verdict: Allowed | Otherwise, stood: Stood) -> bool:
    return verdict is Otherwise.ASK and stood.offer is None and not stood.released


def _outcome(verdict: Otherwise, stood: Stood | None) -> consentpb.DecisionOutcome.ValueType:
    if verdict is Otherwise.LATER:
        return consentpb.DECISION_OUTCOME_LATER
    # An exchange that has had its release asks for no second one.
    open_to_it = stood is not None and not stood.released and (stood.offer is None or stood.offer in OPEN)
    asked = verdict is Otherwise.ASK and open_to_it
    return consentpb.DECISION_OUTCOME_ASKED if asked else consentpb.DECISION_OUTCOME_REFUSED
