"""Broker's one store, on Postgres."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from parley.broker.v1 import broker_events_pb2 as eventspb
from parley.broker.v1 import broker_pb2 as brokerpb
from parley.identity.v1 import identity_pb2 as identitypb
from parley_broker.domain.states import TO_DECIDE, Participant
from parley_bus.envelopes import header
from parley_db.database import Database, Tx
from parley_db.mutations import method_of
from parley_db.queries import load
from parley_kit.clock import Clock
from parley_kit.coalesce import Coalescer
from parley_kit.faultpoints import reach
from parley_kit.faults import Fault
from parley_kit.ids import new_id
from parley_kit.pages import Page

_SQL = load("parley_broker")
Key = tuple[str, str, str]
"""A participant: marketer, exchange id, pseudonym."""


class Release(NamedTuple):
    """A release of a participant's, by the id that consent gave it and the log knows it by."""

    marketer: str
    exchange_id: str
    pseudonym: str
    release_id: str

    @property
    def key(self) -> Key:
        """Whose it is."""
        return self[:3]


_CREATING = method_of(brokerpb.CreateExchangeRequest)
LEASE = timedelta(seconds=5)
"""How long a worker has something in hand: after a crash it is taken up again this much later."""

_MOST_REMEMBERED = 20_000
_MOST_NOTES = 250
"""In one event: some 280 KB."""
_MOST_LAPSED = 1000
_PORTION = 5000
"""Participants that are looked at in one statement: some tenths of a second."""


@dataclass(frozen=True, slots=True)
class ExchangeRecord:
    """An exchange as it is kept; ``terms`` and ``audience`` are serialised messages."""

    marketer: str
    exchange_id: str
    terms: bytes
    audience: bytes
    offer_text: str
    decision_deadline: datetime
    created_at: datetime
    cancelled_at: datetime | None = None

    @property
    def name(self) -> str:
        """Its resource name."""
        return f"{self.marketer}/exchanges/{self.exchange_id}"


@dataclass(frozen=True, slots=True)
class ParticipantRecord:
    """One customer in an exchange, with the references carried for them."""

    marketer: str
    exchange_id: str
    pseudonym: str
    state: Participant
    settled: bool
    acknowledged: bool
    consent_ref: bytes = field(repr=False)
    vault_ref: bytes = field(repr=False)
    audit_ref: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class DeliveryRecord:
    """One thing on a marketer's feed; exchange and pseudonym are set for a release."""

    seq: int
    delivery_id: str
    exchange_id: str
    pseudonym: str
    payload: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Introduction:
    """The references carried for a customer whom a marketer knows."""

    consent_ref: bytes = field(repr=False)
    vault_ref: bytes = field(repr=False)
    audit_ref: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class NewExchange:
    """
    An exchange to be made for a request that is answered with it.

    ``known`` are the pseudonyms it is for, if it is for any; workers leave them alone for ``lease``.
    """

    record: ExchangeRecord
    request_id: str
    fingerprint: bytes
    response: bytes = field(repr=False)
    known: Sequence[str] = ()
    lease: timedelta = timedelta()


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A release that a marketer keeps, and its part of the event that tells of it."""

    release: Release
    note: bytes = field(repr=False)


class Store:
    """
    Exchanges, participants and feeds, by marketer.

    Methods that take a ``tx`` are part of it; the others are single statements. Absent rows are None or left out. Moves
    between states happen only from the state they start in: whoever comes late changes nothing.
    """

    def __init__(self, db: Database, clock: Clock) -> None:
        self.db = db
        self._clock = clock
        self._creating = Coalescer(self._create)
        self._acknowledging = Coalescer(self._acknowledge)
        self._introduced: OrderedDict[tuple[str, str], Introduction] = OrderedDict()

    async def create(self, new: NewExchange) -> bool:
        """Make an exchange and keep its answer; False, and nothing is made, where the request id was used before."""
        return await self._creating.submit(new)

    async def _create(self, new: Sequence[NewExchange]) -> list[bool]:
        """Make all that wait, in one statement; of those with one request id the first."""
        records = [each.record for each in new]
        known = [(each, pseudonym) for each in new for pseudonym in each.known]
        rows = await self.db.fetch(
            _SQL.exchanges_create,
            [record.marketer for record in records],
            [each.request_id for each in new],
            [each.fingerprint for each in new],
            [each.response for each in new],
            [record.exchange_id for record in records],
            [record.terms for record in records],
            [record.audience for record in records],
            [record.offer_text for record in records],
            [record.decision_deadline for record in records],
            [record.created_at for record in records],
            [bool(each.known) for each in new],
            _CREATING,
            [each.record.marketer for each, _ in known],
            [each.record.exchange_id for each, _ in known],
            [pseudonym for _, pseudonym in known],
            [each.lease for each, _ in known],
        )
        await reach("broker.after_create")
        made = {(row["marketer"], row["exchange_id"]) for row in rows}
        return [(record.marketer, record.exchange_id) in made for record in records]

    async def introduced(self, marketer: str, pseudonyms: Sequence[str]) -> dict[str, Introduction]:
        """What is carried for customers of the marketer's, by pseudonym; it never changes, so it is remembered."""
        found = {name: known for name in pseudonyms if (known := self._introduced.get((marketer, name)))}
        if missing := [name for name in pseudonyms if name not in found]:
            for name, *refs in await self.db.fetch(_SQL.introductions_find, marketer, missing):
                found[name] = self._introduced[marketer, name] = Introduction(*refs)
        self._forget()
        return found

    def remember(self, marketer: str, introductions: Sequence[identitypb.Introduction]) -> None:
        """Remember introductions that are kept: who was just introduced is asked about soon."""
        for one in introductions:
            known = Introduction(one.consent_ref, one.vault_ref, one.audit_ref)
            self._introduced.setdefault((marketer, one.pseudonym), known)
        self._forget()

    def _forget(self) -> None:
        while len(self._introduced) > _MOST_REMEMBERED:
            self._introduced.popitem(last=False)

    async def exchange(self, tx: Tx | Database, marketer: str, exchange_id: str) -> ExchangeRecord | None:
        """One exchange of the marketer's."""
        row = await tx.fetchrow(_SQL.exchange_find, marketer, exchange_id)
        return ExchangeRecord(marketer, **row) if row else None

    async def exchanges(self, marketer: str, page: Page) -> list[ExchangeRecord]:
        """A page of the marketer's exchanges, newest first."""
        rows = await self.db.fetch(_SQL.exchanges_page, marketer, page.before, page.before_id, page.size)
        return [ExchangeRecord(marketer, **row) for row in rows]

    async def cancel(self, tx: Tx, marketer: str, exchange_id: str, at: datetime) -> None:
        """
        End an exchange: it releases nothing any more but what has settled. A second time keeps the first.

        The next sweep ends its offers, and whoever nobody has had in hand. The others are left to the workers: a release of
        theirs may have settled, unknown to us.
        """
        await tx.execute(_SQL.exchange_cancel, marketer, exchange_id, at)

    async def lapse(self, now: datetime) -> None:
        """End what decision deadlines have overtaken, as :meth:`cancel` does: consent refuses what was not agreed before them."""
        await self.db.execute(_SQL.exchanges_lapse, now, _MOST_LAPSED)
        await reach("broker.after_lapse")

    async def sweep(self) -> bool:
        """
        End who is left in some exchanges that are over, a portion at a time; whether there may be more of them.

        One that fails stops no other. Raises its fault, after all others had their turn.
        """
        over, failed = await self.db.fetch(_SQL.exchanges_to_sweep, _MOST_LAPSED), None
        for marketer, exchange_id in over:
            try:
                await self._sweep(marketer, exchange_id)
            except Fault as fault:
                failed = fault
        if failed:
            raise failed
        return len(over) == _MOST_LAPSED

    async def _sweep(self, marketer: str, exchange_id: str) -> None:
        last = ""
        while last is not None:
            last = await self.db.fetchval(_SQL.participants_sweep, marketer, exchange_id, last, _PORTION)
            await reach("broker.after_sweep")
        await self.db.execute(_SQL.exchange_swept, marketer, exchange_id)

    async def lease_exchange(self, after: str = "") -> tuple[ExchangeRecord, str] | None:
        """
        Take an exchange whose customers are still to be found, of the first marketer after one that has any; and where to go on.

        No two workers get the same.
        """
        row = await self.db.fetchrow(_SQL.exchange_lease, LEASE, after)
        if row is None:
            return None
        await reach("broker.after_lease_exchange")
        fields = dict(row)
        token = fields.pop("match_token")
        return ExchangeRecord(**fields), token

    async def advance(self, tx: Tx, exchange: ExchangeRecord, token: str) -> None:
        """Note how far matching has come; an empty token is the end."""
        await tx.execute(_SQL.exchange_advance, exchange.marketer, exchange.exchange_id, token, not token)

    async def introduce(self, tx: Tx, marketer: str, introductions: Sequence[identitypb.Introduction]) -> None:
        """Keep introductions; one that is known stays as it is."""
        await tx.execute(
            _SQL.introductions_insert,
            marketer,
            [one.pseudonym for one in introductions],
            [one.consent_ref for one in introductions],
            [one.vault_ref for one in introductions],
            [one.audit_ref for one in introductions],
            [one.identity_ref for one in introductions],
        )

    async def add_participants(self, tx: Tx, exchange: ExchangeRecord, pseudonyms: Sequence[str]) -> None:
        """Add customers who were introduced; others are nobody."""
        await tx.execute(_SQL.participants_insert, exchange.marketer, exchange.exchange_id, list(pseudonyms))

    async def lease_participants(self, limit: int, but: Sequence[str], after: str = "") -> list[ParticipantRecord]:
        """
        Take who has something to be done, the longest waiting first, of the first marketer ``after`` one, ``but`` for some.

        No two workers get the same.
        """
        rows = await self.db.fetch(_SQL.participants_lease, limit, LEASE, list(but), after)
        if rows:
            await reach("broker.after_lease")
        return [_participant(row) for row in rows]

    async def keep(self, leased: Sequence[ParticipantRecord]) -> None:
        """Begin the lease anew of participants that are in hand; those that were moved or put off meanwhile stay as they are."""
        keys = sorted((one.marketer, one.exchange_id, one.pseudonym) for one in leased)
        await self.db.execute(_SQL.participants_keep, *map(list, zip(*keys, strict=True)), LEASE)
        await reach("broker.after_keep")

    async def participant(self, marketer: str, exchange_id: str, pseudonym: str) -> ParticipantRecord | None:
        """One participant."""
        row = await self.db.fetchrow(_SQL.participant_find, marketer, exchange_id, pseudonym)
        return _participant(row) if row else None

    async def participants_of(
        self, marketer: str, deliveries: Sequence[DeliveryRecord]
    ) -> dict[tuple[str, str], ParticipantRecord]:
        """The participants whose releases are to be sent, by exchange id and pseudonym."""
        rows = await self.db.fetch(
            _SQL.participants_of_deliveries,
            marketer,
            [delivery.exchange_id for delivery in deliveries],
            [delivery.pseudonym for delivery in deliveries],
        )
        return {(row["exchange_id"], row["pseudonym"]): _participant(row) for row in rows}

    async def decided(self, exchange: ExchangeRecord, states: Mapping[str, Participant]) -> None:
        """
        Move participants on who have no permit, unless their customer or marketer overtook it.

        What they may have had on the feed is off it.
        """
        if not states:
            return
        where = (exchange.marketer, exchange.exchange_id)

        async def body(tx: Tx) -> None:
            over = Participant.OFFERED in states.values() and await tx.fetchval(_SQL.exchange_hold, *where)
            rows = await tx.fetch(_SQL.participants_decided, *where, list(states), list(states.values()), bool(over))
            await tx.execute(_SQL.deliveries_void, *where, [row["pseudonym"] for row in rows])

        await self.db.run("broker.decided", body)

    async def postpone(self, exchange: ExchangeRecord, pseudonyms: Sequence[str], span: timedelta) -> None:
        """Leave participants for a while whose customer has said neither yes nor no; nothing of them is on the feed."""
        if not pseudonyms:
            return
        where = (exchange.marketer, exchange.exchange_id)

        async def body(tx: Tx) -> None:
            rows = await tx.fetch(_SQL.participants_postpone, *where, list(pseudonyms), span)
            await tx.execute(_SQL.deliveries_void, *where, [row["pseudonym"] for row in rows])

        await self.db.run("broker.postpone", body)

    async def reopen(self, marketer: str, releases: Sequence[tuple[str, str]]) -> None:
        """Take releases (exchange id, pseudonym) that are to be sent again through every step anew, in the places they have."""
        await self.db.execute(
            _SQL.participants_reopen,
            marketer,
            [exchange_id for exchange_id, _ in releases],
            [pseudonym for _, pseudonym in releases],
            LEASE,
        )
        await reach("broker.after_reopen")

    async def undecided(self, exchange: ExchangeRecord, pseudonyms: Sequence[str]) -> set[str]:
        """Which of these are still to be decided or released; none if the exchange was cancelled since it was read."""
        if not pseudonyms:
            return set()
        where = exchange.marketer, exchange.exchange_id
        rows = await self.db.fetch(_SQL.participants_states, *where, list(pseudonyms), exchange.cancelled_at)
        return {row["pseudonym"] for row in rows if row["state"] in TO_DECIDE}

    async def finish(self, released: Sequence[Release], now: datetime) -> list[Release]:
        """
        Finish participants whose release was committed and give each a place on its feed, unless it has one.

        Returns whom it finished: who was finished or acknowledged before is left alone.
        """
        if not released:
            return []
        await reach("broker.before_finish")
        rows = await self.db.fetch(_SQL.participants_finish, *map(list, zip(*released, strict=True)), now)
        await reach("broker.after_finish")
        return [Release(*row) for row in rows]

    async def unsettled(self, exchange: ExchangeRecord, refused: Mapping[str, Participant]) -> None:
        """Let participants go where a refusal to settle leads; who ends is off the feed."""
        if not refused:
            return
        where, states = (exchange.marketer, exchange.exchange_id), list(refused.values())

        async def body(tx: Tx) -> None:
            rows = await tx.fetch(_SQL.participants_unsettled, *where, list(refused), states)
            void = [row["pseudonym"] for row in rows if refused[row["pseudonym"]] is Participant.TERMINATED]
            await tx.execute(_SQL.deliveries_void, *where, void)

        await self.db.run("broker.unsettled", body)

    async def accepted(self, tx: Tx, marketer: str, exchange_id: str, pseudonym: str) -> None:
        """Note that a customer accepted: their participant is to be decided again."""
        await tx.execute(_SQL.participant_accepted, marketer, exchange_id, pseudonym)

    async def notify(self, tx: Tx, marketer: str, payload: bytes, now: datetime) -> None:
        """Put a notice on a marketer's feed, behind whatever was committed there before."""
        place = await tx.fetchval(_SQL.feed_places, marketer, 1)
        await tx.execute(_SQL.notice_insert, marketer, place, new_id(), payload, now)

    async def behind(self, marketer: str, seq: int, sent: Sequence[int], limit: int) -> list[DeliveryRecord]:
        """What is on the feed behind a place, oldest first, but for the places in ``sent``."""
        rows = await self.db.fetch(_SQL.deliveries_behind, marketer, seq, list(sent), limit)
        return [DeliveryRecord(*row) for row in rows]

    async def acknowledge(self, kept: Sequence[Acknowledged]) -> None:
        """Take releases that were sent off their feeds, and tell of those that weren't before."""
        if kept:
            await self._acknowledging.submit(kept)

    async def _acknowledge(self, requests: Sequence[Sequence[Acknowledged]]) -> list[None]:
        """Do it for all who wait, in as few statements as events that are no longer than others."""
        kept = [one for request in requests for one in request]
        for start in range(0, len(kept), _MOST_NOTES):
            await self._acknowledge_together(kept[start : start + _MOST_NOTES])
        return [None] * len(requests)

    async def _acknowledge_together(self, kept: Sequence[Acknowledged]) -> None:
        releases = [list(column) for column in zip(*(one.release for one in kept), strict=True)]
        # Many calls', so it points to none.
        event = header(eventspb.DeliveryAcknowledged, self._clock.now(), traced=False)
        notes = [one.note for one in kept]
        await reach("broker.before_acknowledge")
        await self.db.execute(_SQL.releases_acknowledge, *releases, notes, event.event_id, event.envelope, event.type)
        await reach("broker.after_acknowledge")

    async def acknowledge_notices(self, tx: Tx, marketer: str, names: Sequence[str]) -> set[str]:
        """Take notices off the feed; answers those that are not there, and never were."""
        gone = {row["delivery_id"] for row in await tx.fetch(_SQL.notices_acknowledge, marketer, list(names))}
        before = {row["delivery_id"] for row in await tx.fetch(_SQL.acknowledged_find, marketer, list(names))}
        return set(names) - gone - before


def _participant(row: Any) -> ParticipantRecord:
    fields = dict(row)
    return ParticipantRecord(**{**fields, "state": Participant(fields["state"])})
