"""What marketers do: exchanges made, read and cancelled, deliveries acknowledged."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from parley.broker.v1 import broker_events_pb2 as eventspb
from parley.broker.v1 import broker_pb2 as brokerpb
from parley.common.v1 import terms_pb2 as termspb
from parley_broker.clients import Peers
from parley_broker.domain.requests import Objection, Wrong, objections, with_questions
from parley_broker.faults import DeliveryNotFound, ExchangeNotFound, VerificationRequired
from parley_broker.names import Names
from parley_broker.store import LEASE, Acknowledged, ExchangeRecord, NewExchange, Release, Store
from parley_broker.wire import exchange_to
from parley_bus.envelopes import Notary
from parley_db.database import Tx
from parley_db.mutations import Mutations
from parley_kit.clock import Clock
from parley_kit.faults import Fault, InvalidRequest, NotSupportedYet, Violation
from parley_kit.ids import new_id
from parley_kit.offload import each
from parley_terms.faults import AttributeUnknown, InvalidConsentPurpose, InvalidDateRange, InvalidValue
from parley_terms.terms import Criteria, Level
from parley_terms.wire import criteria_asked, field_to, terms_from

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


@dataclass(frozen=True)
class Exchanges:
    """A marketer's acts."""

    store: Store
    peers: Peers
    mutations: Mutations
    names: Names
    notary: Notary
    clock: Clock

    async def check(self, marketer: str, request: brokerpb.CreateExchangeRequest) -> ExchangeRecord:
        """Check a request whole, and write down the exchange it would be. Raises MarketerSuspended, and the proto's faults."""
        held = await self.peers.identity.card(marketer)
        level, catalogue = Level(held.card.level), await self.peers.vault.catalogue()
        asked, now = terms_from(request.terms), self.clock.now()
        terms = with_questions(asked, _criteria(request))
        _raise_first(list(objections(terms, level, catalogue, now, own=len(dict.fromkeys(asked.fields)))))
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

    async def create(self, record: ExchangeRecord, request: brokerpb.CreateExchangeRequest, answer: bytes) -> bool:
        """
        Make an exchange that was checked; who is in it is found later, but for customers the marketer knows.

        False, and nothing is made, where its request id was used before.
        """
        known = list(dict.fromkeys(request.audience.pseudonyms.pseudonyms))
        return await self.store.create(
            NewExchange(
                record,
                request.request_id,
                self.mutations.fingerprint(request),
                answer,
                known,
                LEASE if request.release_in_answer else timedelta(),
            )
        )

    async def find(self, marketer: str, exchange_id: str) -> ExchangeRecord:
        """One of the marketer's exchanges. Raises ExchangeNotFound."""
        exchange = await self.store.exchange(self.store.db, marketer, exchange_id)
        if exchange is None:
            raise ExchangeNotFound
        return exchange

    async def cancel(
        self, marketer: str, exchange_id: str, request: brokerpb.CancelExchangeRequest
    ) -> brokerpb.Exchange:
        """End an exchange. Raises ExchangeNotFound."""

        async def body(tx: Tx) -> brokerpb.Exchange:
            now = self.clock.now()
            await self.store.cancel(tx, marketer, exchange_id, now)
            exchange = await self.store.exchange(tx, marketer, exchange_id)
            if exchange is None:
                raise ExchangeNotFound
            return exchange_to(exchange, now)

        return await self.mutations.once(marketer, request, brokerpb.Exchange, body)

    async def acknowledge(self, marketer: str, names: Sequence[str]) -> list[Release]:
        """Take deliveries off the feed, all or none; answers which were releases. Raises DeliveryNotFound."""
        named = {name: self.names.read(marketer, name) for name in names}
        notices = [name for name, release in named.items() if release is None]
        if notices:
            async with self.store.db.tx("broker.AcknowledgeDeliveries") as tx:
                if await self.store.acknowledge_notices(tx, marketer, notices):
                    raise DeliveryNotFound
        releases = [release for release in named.values() if release]
        known = await self.store.introduced(marketer, [one.pseudonym for one in releases])
        # A customer who was forgotten since is told of nothing.
        told = [(one, known[one.pseudonym].audit_ref) for one in releases if one.pseudonym in known]
        await self.store.acknowledge(await each(self._acknowledged, told))
        return releases

    def _acknowledged(self, told: tuple[Release, bytes]) -> Acknowledged:
        """A release that was sent, with what is told of it."""
        release, audit_ref = told
        detail = {
            "marketer": release.marketer,
            "pseudonym": release.pseudonym,
            "exchange": f"{release.marketer}/exchanges/{release.exchange_id}",
            **({"release": release.release_id} if release.release_id else {}),
        }
        note, _ = self.notary.note("broker:release:acknowledged", detail, audit_ref)
        return Acknowledged(release, eventspb.DeliveryAcknowledged(notes=[note]).SerializeToString())


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
        return criteria_asked(criteria)
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
