"""What the broker asks last: settlements, whose commit is the release."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, partial

from parley.common.v1 import permit_pb2 as permitpb
from parley.common.v1 import receipt_pb2 as receiptpb
from parley.consent.v1 import consent_events_pb2 as eventspb
from parley.consent.v1 import consent_pb2 as consentpb
from parley_bus.envelopes import header
from parley_consent.agreements import Deal, Scribe
from parley_consent.basis import Basis, Own
from parley_consent.domain.artefact import Birth
from parley_consent.domain.records import MarketerRecord
from parley_consent.store import SettleBatch, Settled, SettleItem, Store
from parley_crypto.batch import Batch, BatchInvalid, verify_in_batch
from parley_crypto.jws import Spelt
from parley_crypto.keyring import CiphertextInvalid, KeyRing
from parley_crypto.signing import Signer
from parley_crypto.subject_ref import RefInvalid, open_ref
from parley_kit.clock import Clock
from parley_kit.faultpoints import reach
from parley_kit.offload import each
from parley_terms.terms import Use
from parley_terms.wire import terms_from

_Refusal = consentpb.SettleRefusal


@dataclass(frozen=True)
class Settlements:
    """Commits releases, or refuses them with the reason."""

    store: Store
    scribe: Scribe
    signer: Signer
    ref_ring: KeyRing
    clock: Clock

    async def settle(self, entries: Sequence[consentpb.SettleEntry]) -> consentpb.SettleResponse:
        """Commit releases, or refuse them, in the order asked."""
        items = await each(partial(self._item, _Together(self.scribe, self.clock.now())), entries)
        await reach("consent.before_settle")
        wanted = [item.written for item in items if isinstance(item, _Wanted)]
        settled = iter(await self.store.settle(wanted) if wanted else [])
        await reach("consent.after_settle")
        return consentpb.SettleResponse(
            outcomes=[
                _outcome(item, next(settled)) if isinstance(item, _Wanted) else consentpb.SettleOutcome(refusal=item)
                for item in items
            ]
        )

    def _item(self, together: "_Together", entry: consentpb.SettleEntry) -> "_Wanted | _Refusal.ValueType":
        """What is to be written, or why it may not be."""
        try:
            ref = open_ref(self.ref_ring, "consent", entry.consent_ref)
            batch = Batch(entry.batch.root, entry.batch.size, entry.batch.signature)
            key = {self.signer.key_id: self.signer.public_key}[entry.batch.key_id]
            verify_in_batch(key, batch, entry.permit.body, entry.permit.index, entry.permit.proof)
            permit = permitpb.PermitBody.FromString(entry.permit.body)
            basis = Basis.open(self.ref_ring, ref.subject, permit.basis)
            own = Own.of(self.ref_ring, ref.subject, permit)
        except (RefInvalid, BatchInvalid, CiphertextInvalid, KeyError):
            return consentpb.SETTLE_REFUSAL_PERMIT_INVALID
        if (ref.pseudonym, ref.marketer) != (permit.pseudonym, permit.marketer):
            return consentpb.SETTLE_REFUSAL_PERMIT_INVALID
        if together.now >= permit.expire_time.ToDatetime(UTC) or (own.until and together.now >= own.until):
            return consentpb.SETTLE_REFUSAL_STALE
        written = self._written(ref.subject, own.audit_ref, permit, basis, together.alike(permit))
        return _Wanted(written, permit.HasField("unchanged_since"))

    def _written(
        self, customer: str, audit_ref: bytes, permit: permitpb.PermitBody, basis: Basis, alike: "_Alike"
    ) -> SettleItem:
        """Everything that is written if this settles: made before, because the commit is the release."""
        deal, consent_id = alike.deal, permit.consent.removeprefix("consents/")
        about = deal.claims(consent_id, permit.pseudonym)
        note, opening = self.scribe.note("consent:release:settled", about, audit_ref, release=permit.release_id)
        born_note, artefact, born = b"", "", None
        if basis.rule_id:
            # Without the rule: the marketer is given what opens this, and a rule is the same to every marketer.
            noted, born = self.scribe.note("consent:consent:born", about, audit_ref)
            born_note = eventspb.ConsentBorn(notes=[noted]).SerializeToString()
            birth = Birth(f"consents/{consent_id}", permit.pseudonym, self.clock.now())
            artefact = self.scribe.artefact(alike.common, birth, deal.terms)
        return SettleItem(
            batch=alike.batch,
            customer=customer,
            release_id=permit.release_id,
            consent_id=consent_id,
            rule_id=basis.rule_id,
            revision=basis.revision,
            pseudonym=permit.pseudonym,
            artefact=artefact,
            born_salt=born.salt if born else b"",
            born_detail=born.detail if born else b"",
            born_note=born_note,
            salt=opening.salt,
            detail=opening.detail,
            note=eventspb.ReleaseSettled(notes=[note]).SerializeToString(),
        )


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What is to be written, and whether the values were opened as they were when the release was settled before."""

    written: SettleItem
    as_before: bool

    def has_other_values(self, settled: Settled) -> bool:
        """Whether the release was settled before, for one time, and this one may hold what its customer has changed since."""
        return settled.salt != self.written.salt and self.written.batch.one_time and not self.as_before


@dataclass(frozen=True)
class _Alike:
    """What releases of one exchange on the same terms share."""

    scribe: Scribe
    batch: SettleBatch
    deal: Deal

    @cached_property
    def common(self) -> Mapping[str, Spelt]:
        """What the artefacts of the consents that are born of it share, if any are."""
        return self.scribe.common(self.deal, by_rule=True)


class _Together:
    """What releases that are settled in one call share: an event tells of all of them."""

    def __init__(self, scribe: Scribe, now: datetime) -> None:
        self._scribe, self.now = scribe, now
        self._born, self._released = header(eventspb.ConsentBorn, now), header(eventspb.ReleaseSettled, now)
        self._known: dict[tuple[str, MarketerRecord, bytes], _Alike] = {}

    def alike(self, permit: permitpb.PermitBody) -> _Alike:
        """What is the same in a permit and others that are settled with it."""
        marketer = MarketerRecord(
            permit.marketer,
            permit.marketer_display_name,
            permit.marketer_legal_entity,
            permit.marketer_contact,
            permit.marketer_level,
        )
        raw = permit.terms.SerializeToString(deterministic=True)
        key = (permit.exchange, marketer, raw)
        if key not in self._known:
            self._known[key] = self._new(permit, marketer, raw)
        return self._known[key]

    def _new(self, permit: permitpb.PermitBody, marketer: MarketerRecord, raw: bytes) -> _Alike:
        terms = terms_from(permit.terms)
        assert terms.validity.end is not None
        batch = SettleBatch(
            exchange=permit.exchange,
            marketer=marketer.marketer,
            marketer_name=marketer.name,
            marketer_entity=marketer.entity,
            marketer_contact=marketer.contact,
            marketer_level=marketer.level,
            terms=raw,
            one_time=terms.use is Use.ONE_TIME,
            valid_until=terms.validity.end,
            born_event_id=self._born.event_id,
            born_event=self._born.envelope,
            event_id=self._released.event_id,
            event=self._released.envelope,
        )
        return _Alike(self._scribe, batch, Deal(marketer, permit.exchange, terms))


def _outcome(wanted: _Wanted, settled: Settled) -> consentpb.SettleOutcome:
    outcome = consentpb.SettleOutcome(refusal=_Refusal.ValueType(settled.refusal))
    if settled.refusal == consentpb.SETTLE_REFUSAL_UNSPECIFIED and wanted.has_other_values(settled):
        return consentpb.SettleOutcome(refusal=consentpb.SETTLE_REFUSAL_STALE)
    if settled.refusal == consentpb.SETTLE_REFUSAL_UNSPECIFIED:
        outcome.opening.CopyFrom(receiptpb.Opening(salt=settled.salt or b"", detail=settled.detail or b""))
        outcome.artefact = settled.artefact or ""
        if settled.born_salt:
            outcome.consent_opening.CopyFrom(
                receiptpb.Opening(salt=settled.born_salt, detail=settled.born_detail or b"")
            )
    return outcome
