"""What marketers do: exchanges made, read and cancelled, deliveries acknowledged."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from parley.broker.v1 import broker_events_pb2 as eventspb
from parley.broker.v1 import broker_pb2 as brokerpb
from parley.common.v1 import terms_pb2 as termspb
from parley_broker.clients import Peers
from parley_broker.domain.requests import Objection, Wrong, objections, with_questions
from parley_broker.faults import DeliveryNotFound, ExchangeNotFound, VerificationRequired
from parley_broker.store import LEASE, Acknowledged, ExchangeRecord, Store
from parley_bus.envelopes import Notary, envelope
from parley_db.database import Tx
from parley_db.outbox import OutboxEvent, append
from parley_kit.clock import Clock
from parley_kit.faults import Fault, InvalidRequest, NotSupportedYet, Violation
from parley_kit.ids import new_id
from parley_terms.faults import AttributeUnknown, InvalidConsentPurpose, InvalidDateRange, InvalidValue
from parley_terms.terms import Criteria, Level
from parley_terms.values import Catalogue
from parley_terms.wire import criteria_from, field_to, terms_from

MOST_BYTES = 4096
"""The longest terms, serialised."""

_FAULTS: dict[Wrong, type[Fault]] = {
    Wrong.UNSUPPORTED: NotSupportedYet,
    Wrong.MALFORMED: InvalidRequest,
    Wrong.PURPOSE: InvalidConsentPurpose,
    Wrong.DATES: InvalidDateRange,
    Wrong.ATTRIBUTE: AttributeUnknown,
    Wrong.QUESTION: InvalidValue,
    Wrong.LEVEL: VerificationRequired,
}


@dataclass(frozen=True, slots=True)
class Measure:
    """What requests are checked by: how far the marketer is verified, and what there is to ask for."""

    level: Level
    catalogue: Catalogue


@dataclass(frozen=True)
class Exchanges:
    """A marketer's acts."""

    store: Store
    peers: Peers
    notary: Notary
    clock: Clock

    async def measure(self, marketer: str) -> Measure:
        """What the marketer's requests are checked by. Raises MarketerSuspended."""
        held = await self.peers.identity.card(marketer)
        return Measure(Level(held.card.level), await self.peers.vault.catalogue())

    def check(self, marketer: str, request: brokerpb.CreateExchangeRequest, by: Measure) -> ExchangeRecord:
        """Check a request whole, and write down the exchange it would be. Raises the faults of the proto."""
        terms, now = with_questions(terms_from(request.terms), _criteria(request)), self.clock.now()
        _raise_first(list(objections(terms, by.level, by.catalogue, now)))
        message = termspb.Terms()
        message.CopyFrom(request.terms)
        del message.content.fields[:]
        message.content.fields.extend(field_to(field) for field in terms.fields)
        raw = message.SerializeToString(deterministic=True)
        if len(raw) > MOST_BYTES:  # they stand in every permit, offer and consent that comes of them
            violation = Violation("terms", f"longer than {MOST_BYTES:,} bytes, its questions included")
            raise InvalidRequest(violations=[violation])
        assert terms.decision_deadline is not None
        return ExchangeRecord(
            marketer=marketer,
            exchange_id=new_id(),
            terms=raw,
            audience=request.audience.SerializeToString(deterministic=True),
            offer_text=request.offer_text,
            decision_deadline=terms.decision_deadline,
            created_at=now,
        )

    async def create(
        self, tx: Tx, marketer: str, request: brokerpb.CreateExchangeRequest, by: Measure
    ) -> ExchangeRecord:
        """Check the request and make the exchange; who is in it is found later, but for customers the marketer knows."""
        exchange = self.check(marketer, request, by)
        known = list(dict.fromkeys(request.audience.pseudonyms.pseudonyms))
        await self.store.add_exchange(tx, exchange, matched=bool(known))
        if known and request.release_in_answer:
            await self.store.add_participants(tx, exchange, known, lease=LEASE)
        elif known:
            await self.store.add_participants(tx, exchange, known)
        return exchange

    async def find(self, marketer: str, exchange_id: str) -> ExchangeRecord:
        """One of the marketer's exchanges. Raises ExchangeNotFound."""
        exchange = await self.store.exchange(self.store.db, marketer, exchange_id)
        if exchange is None:
            raise ExchangeNotFound
        return exchange

    async def cancel(self, marketer: str, exchange_id: str) -> ExchangeRecord:
        """End an exchange. Raises ExchangeNotFound."""
        await self.find(marketer, exchange_id)
        async with self.store.db.tx("broker.CancelExchange") as tx:
            await self.store.cancel(tx, marketer, exchange_id, self.clock.now())
        return await self.find(marketer, exchange_id)

    async def acknowledge(self, marketer: str, delivery_ids: Sequence[str]) -> None:
        """Take deliveries off the feed, all or none. Raises DeliveryNotFound."""
        async with self.store.db.tx("broker.AcknowledgeDeliveries") as tx:
            gone, unknown = await self.store.acknowledge(tx, marketer, delivery_ids)
            if unknown:
                raise DeliveryNotFound
            await append(tx, [self._acknowledged(marketer, one) for one in gone if one.audit_ref])

    def _acknowledged(self, marketer: str, one: Acknowledged) -> OutboxEvent:
        detail = {
            "marketer": marketer,
            "pseudonym": one.pseudonym,
            "exchange": f"{marketer}/exchanges/{one.exchange_id}",
        }
        note, _ = self.notary.note("broker:release:acknowledged", detail, one.audit_ref or b"")
        event = eventspb.DeliveryAcknowledged(note=note)
        return envelope(event, self.clock.now())


def _criteria(request: brokerpb.CreateExchangeRequest) -> Criteria | None:
    match request.audience.WhichOneof("audience"):
        case "criteria":
            if request.release_in_answer:
                raise InvalidRequest(violations=[Violation("release_in_answer", "needs one known pseudonym")])
            return _parsed(request.audience.criteria)
        case "pseudonyms":
            if request.release_in_answer and len(set(request.audience.pseudonyms.pseudonyms)) != 1:
                raise InvalidRequest(violations=[Violation("release_in_answer", "needs one known pseudonym")])
            return None
    raise InvalidRequest(violations=[Violation("audience", "choose criteria or pseudonyms")])


def _parsed(criteria: termspb.Criteria) -> Criteria:
    try:
        return criteria_from(criteria)
    except ValueError as error:
        raise InvalidRequest(violations=[Violation("audience.criteria", str(error))]) from None


def _raise_first(found: Sequence[Objection]) -> None:
    """Raise the fault of the first objection, with everything that is wrong in its way."""
    if not found:
        return
    by_kind: dict[Wrong, list[Violation]] = defaultdict(list)
    for objection in found:
        by_kind[objection.wrong].append(Violation(objection.path, objection.says))
    raise _FAULTS[found[0].wrong](violations=by_kind[found[0].wrong])
