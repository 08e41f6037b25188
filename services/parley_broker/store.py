"""Broker's one store, on Postgres."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from parley.identity.v1 import identity_pb2 as identitypb
from parley_broker.domain.states import Participant
from parley_db.database import Database, Tx
from parley_db.queries import load
from parley_kit.ids import new_id

_SQL = load("parley_broker")
LEASE = timedelta(seconds=5)
"""How long a worker has something in hand: after a crash it is taken up again this much later."""


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
    """One customer in an exchange, with the references carried for them and what is prepared, if anything."""

    marketer: str
    exchange_id: str
    pseudonym: str
    state: Participant
    settled: bool
    permit: bytes | None = field(repr=False)
    batch: bytes | None = field(repr=False)
    sealed: bytes | None = field(repr=False)
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
class NewDelivery:
    """What is put on a feed."""

    payload: bytes = field(repr=False)
    exchange_id: str = ""
    pseudonym: str = ""


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A delivery acknowledged for the first time; pseudonym and audit ref are set for a release."""

    delivery_id: str
    exchange_id: str
    pseudonym: str
    audit_ref: bytes | None


class Store:
    """
    Exchanges, participants and feeds, by marketer.

    Methods that take a ``tx`` are part of it; the others are single statements. Absent rows are None or left out. Moves
    between states happen only from the state they start in: whoever comes late changes nothing.
    """

    def __init__(self, db: Database) -> None:
        self.db = db

    async def add_exchange(self, tx: Tx, exchange: ExchangeRecord, *, matched: bool) -> None:
        """Make an exchange; ``matched`` if nobody is to be looked for."""
        await tx.execute(
            _SQL.exchange_insert,
            exchange.marketer,
            exchange.exchange_id,
            exchange.terms,
            exchange.audience,
            exchange.offer_text,
            exchange.decision_deadline,
            exchange.created_at,
            matched,
        )

    async def exchange(self, tx: Tx | Database, marketer: str, exchange_id: str) -> ExchangeRecord | None:
        """One exchange of the marketer's."""
        row = await tx.fetchrow(_SQL.exchange_find, marketer, exchange_id)
        return ExchangeRecord(marketer, **row) if row else None

    async def exchanges(self, marketer: str, before: datetime, before_id: str, size: int) -> list[ExchangeRecord]:
        """A page of the marketer's exchanges, newest first."""
        rows = await self.db.fetch(_SQL.exchanges_page, marketer, before, before_id, size)
        return [ExchangeRecord(marketer, **row) for row in rows]

    async def cancel(self, tx: Tx, marketer: str, exchange_id: str, at: datetime) -> None:
        """End an exchange, and everything of it that isn't released. A second time keeps the first."""
        await tx.execute(_SQL.exchange_cancel, marketer, exchange_id, at)
        await tx.execute(_SQL.participants_cancel, marketer, exchange_id)

    async def lapse(self, now: datetime) -> None:
        """End what decision deadlines have overtaken."""

        async def body(tx: Tx) -> None:
            if over := await tx.fetch(_SQL.exchanges_lapse, now):
                keys = [row["marketer"] for row in over], [row["exchange_id"] for row in over]
                await tx.execute(_SQL.participants_lapse, *keys)

        await self.db.run("broker.lapse", body)

    async def lease_exchange(self) -> tuple[ExchangeRecord, str] | None:
        """Take an exchange whose customers are still to be found, and where to go on; no two workers get the same."""
        row = await self.db.fetchrow(_SQL.exchange_lease, LEASE)
        if row is None:
            return None
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

    async def add_participants(
        self, tx: Tx, exchange: ExchangeRecord, pseudonyms: Sequence[str], *, lease: timedelta = timedelta()
    ) -> None:
        """Add customers who were introduced; others are nobody. ``lease`` keeps workers off for so long."""
        await tx.execute(_SQL.participants_insert, exchange.marketer, exchange.exchange_id, list(pseudonyms), lease)

    async def lease_participants(self, limit: int) -> list[ParticipantRecord]:
        """Take participants of one exchange that have something to be done; no two workers get the same."""
        rows = await self.db.fetch(_SQL.participants_lease, limit, LEASE)
        return [_participant(row) for row in rows]

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
            rows = await tx.fetch(_SQL.participants_decided, *where, list(states), list(states.values()))
            await tx.execute(_SQL.deliveries_void, *where, [row["pseudonym"] for row in rows])

        await self.db.run("broker.decided", body)

    async def postpone(self, exchange: ExchangeRecord, pseudonyms: Sequence[str], span: timedelta) -> None:
        """Leave participants for a while whose customer has said neither yes nor no; nothing of them is on the feed."""
        if not pseudonyms:
            return
        where = (exchange.marketer, exchange.exchange_id, list(pseudonyms))
        async with self.db.tx("broker.postpone") as tx:
            await tx.execute(_SQL.participants_postpone, *where, span)
            await tx.execute(_SQL.deliveries_void, *where)

    async def reopen(self, marketer: str, deliveries: Sequence[DeliveryRecord]) -> None:
        """Take releases that are to be sent again through every step anew, in the places they have."""
        await self.db.execute(
            _SQL.participants_reopen,
            marketer,
            [delivery.exchange_id for delivery in deliveries],
            [delivery.pseudonym for delivery in deliveries],
            LEASE,
        )

    async def prepared(
        self, exchange: ExchangeRecord, batch: bytes, prepared: Mapping[str, tuple[bytes, bytes]]
    ) -> set[str]:
        """Keep permits and sealed values by pseudonym; returns those that were still to be decided."""
        rows = await self.db.fetch(
            _SQL.participants_prepared,
            exchange.marketer,
            exchange.exchange_id,
            list(prepared),
            [permit for permit, _ in prepared.values()],
            [sealed for _, sealed in prepared.values()],
            batch,
        )
        return {row["pseudonym"] for row in rows}

    async def finish(self, exchange: ExchangeRecord, settled: Sequence[ParticipantRecord], now: datetime) -> set[str]:
        """
        Finish participants whose release was committed and give each a place on the feed, unless it has one: both or nothing.

        Returns whom it finished. What was acknowledged or prepared anew since is left alone: values go out only under the
        permit they were settled by.
        """
        where = (exchange.marketer, exchange.exchange_id)

        async def body(tx: Tx) -> set[str]:
            names, permits = [one.pseudonym for one in settled], [one.permit for one in settled]
            rows = await tx.fetch(_SQL.participants_settled, *where, names, permits)
            finished = {row["pseudonym"] for row in rows}
            placed = {row["pseudonym"] for row in await tx.fetch(_SQL.deliveries_placed, *where, list(finished))}
            new = [NewDelivery(b"", exchange.exchange_id, name) for name in names if name in finished - placed]
            await self.deliver(tx, exchange.marketer, new, now)
            return finished

        return await self.db.run("broker.finish", body)

    async def unsettled(
        self, marketer: str, exchange_id: str, refused: Sequence[tuple[ParticipantRecord, Participant]]
    ) -> None:
        """
        Drop prepared values that may not be released and go where the refusals lead; who ends is off the feed.

        A refusal is about one permit: what was acknowledged or prepared anew since is left alone.
        """
        names, permits = [one.pseudonym for one, _ in refused], [one.permit for one, _ in refused]
        states = [state for _, state in refused]

        async def body(tx: Tx) -> None:
            rows = await tx.fetch(_SQL.participants_unsettled, marketer, exchange_id, names, permits, states)
            ended = {one.pseudonym for one, state in refused if state is Participant.TERMINATED}
            void = [row["pseudonym"] for row in rows if row["pseudonym"] in ended]
            await tx.execute(_SQL.deliveries_void, marketer, exchange_id, void)

        await self.db.run("broker.unsettled", body)

    async def accepted(self, tx: Tx, marketer: str, exchange_id: str, pseudonym: str) -> None:
        """Note that a customer accepted: their participant is to be decided again."""
        await tx.execute(_SQL.participant_accepted, marketer, exchange_id, pseudonym)

    async def deliver(self, tx: Tx, marketer: str, deliveries: Sequence[NewDelivery], now: datetime) -> None:
        """Put things on a marketer's feed, in places that follow each other in the order of commits."""
        if not deliveries:
            return
        last = await tx.fetchval(_SQL.feed_places, marketer, len(deliveries))
        first = last - len(deliveries) + 1
        await tx.execute(
            _SQL.deliveries_insert,
            marketer,
            list(range(first, last + 1)),
            [new_id() for _ in deliveries],
            [delivery.exchange_id for delivery in deliveries],
            [delivery.pseudonym for delivery in deliveries],
            [delivery.payload for delivery in deliveries],
            now,
        )

    async def behind(self, marketer: str, seq: int, sent: Sequence[int], limit: int) -> list[DeliveryRecord]:
        """What is on the feed behind a place, oldest first, but for the places in ``sent``."""
        rows = await self.db.fetch(_SQL.deliveries_behind, marketer, seq, list(sent), limit)
        return [DeliveryRecord(*row) for row in rows]

    async def delivery_of(self, marketer: str, exchange_id: str, pseudonym: str) -> DeliveryRecord | None:
        """The delivery of one release, until it is acknowledged."""
        row = await self.db.fetchrow(_SQL.delivery_of, marketer, exchange_id, pseudonym)
        return DeliveryRecord(*row) if row else None

    async def acknowledge(
        self, tx: Tx, marketer: str, delivery_ids: Sequence[str]
    ) -> tuple[list[Acknowledged], set[str]]:
        """Take deliveries off the feed; returns those that are new, and the ids that are unknown."""
        rows = await tx.fetch(_SQL.deliveries_acknowledge, marketer, list(delivery_ids))
        gone = [Acknowledged(*row) for row in rows]
        before = {row["delivery_id"] for row in await tx.fetch(_SQL.acknowledged_find, marketer, list(delivery_ids))}
        return gone, set(delivery_ids) - before - {one.delivery_id for one in gone}


def _participant(row: Any) -> ParticipantRecord:
    fields = dict(row)
    return ParticipantRecord(**{**fields, "state": Participant(fields["state"])})
