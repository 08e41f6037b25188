"""Consent's one store, on Postgres."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache
from itertools import islice
from typing import Any
from uuid import UUID

from parley.consent.v1 import consent_pb2 as consentpb
from parley_consent.domain.deciding import Effect, LiveConsent, Rule, Scope, Standing
from parley_consent.domain.records import ConsentRecord, MarketerRecord, RuleRecord, SettlementRecord
from parley_consent.domain.states import LIVE, State
from parley_db.database import Database, Tx, is_locked
from parley_db.queries import load
from parley_kit.coalesce import Coalescer
from parley_kit.faultpoints import reach
from parley_kit.faults import Unavailable
from parley_kit.offload import each
from parley_kit.pages import Page
from parley_terms.terms import Level, Terms, Use, Validity
from parley_terms.wire import terms_read

MOST_ENDED = 500
"""Consents that one transaction ends."""

MOST_SETTLEMENTS, MOST_OF_MANY = 500, 10
"""Releases that come with a consent, and with each of many: a marketer may make any number of them, and may stop no answer so."""

MOST_LIVE = 100
"""
Consents in force with one marketer that a decision looks at, of those that may cover the request, and as many paused ones. Where
there are more, none is born: a marketer that asks a little otherwise each time would have any number of them made, and read.
"""

_SQL = load("parley_consent")


@dataclass(frozen=True, slots=True)
class Stood:
    """
    Where one customer stands with one marketer in one exchange, and the revision that was read before.

    ``released_at``: when a release of theirs settled in this very exchange, if one has. ``audit_ref``: their own, once they have
    acted.
    """

    revision: int
    standing: Standing
    offer: State | None
    released_at: datetime | None
    audit_ref: bytes

    @property
    def agreed(self) -> bool:
        """They have agreed to this very exchange, and nothing has ended that."""
        return self.released_at is not None or self.offer in LIVE


@dataclass(frozen=True, slots=True)
class Asked:
    """A customer, and the marketer and exchange with which it is asked where they stand, and when that request ends."""

    customer: str
    marketer: str
    exchange: str
    until: datetime | None


@dataclass(frozen=True, slots=True)
class NewOffer:
    """An offer to one customer, and who they are to the marketer."""

    customer: str
    audit_ref: bytes
    offer_id: str
    pseudonym: str


@dataclass(frozen=True, slots=True)
class OfferBatch:
    """What is the same in every offer of an exchange."""

    marketer: MarketerRecord
    exchange: str
    terms: bytes
    text: str
    one_time: bool
    decision_deadline: datetime
    valid_until: datetime
    created_at: datetime


@dataclass(frozen=True, slots=True, eq=False)
class SettleBatch:
    """What is the same in many releases, and the events that tell of them, without payload; columns as ``settle_batch``."""

    exchange: str
    marketer: str
    marketer_name: str
    marketer_entity: str
    marketer_contact: str
    marketer_level: int
    terms: bytes
    one_time: bool
    valid_until: datetime
    born_event_id: UUID
    born_event: bytes
    event_id: UUID
    event: bytes


@dataclass(frozen=True, slots=True)
class SettleItem:
    """One release to settle, with everything that is written if it is; columns as the type ``settle_release``."""

    batch: SettleBatch
    customer: str
    release_id: str
    consent_id: str
    rule_id: str
    revision: int
    pseudonym: str
    artefact: str
    born_salt: bytes
    born_detail: bytes
    born_note: bytes
    salt: bytes
    detail: bytes
    note: bytes


@dataclass(frozen=True, slots=True)
class Settled:
    """What came of one item: a refusal (0: settled), and what opens its receipts."""

    refusal: int
    salt: bytes | None
    detail: bytes | None
    artefact: str | None
    born_salt: bytes | None
    born_detail: bytes | None


_BUSY = Settled(consentpb.SETTLE_REFUSAL_BUSY, None, None, None, None, None)


@dataclass(frozen=True, slots=True)
class Notice:
    """What the marketer of a consent will be told, and when; columns as the statements take them."""

    notice_id: str
    due_at: datetime
    marketer: str
    pseudonym: str
    notice: str


@dataclass(frozen=True, slots=True)
class DueNotice:
    """What a marketer is to be told now."""

    consent_id: str
    marketer: str
    pseudonym: str
    notice: str
    audit_ref: bytes


class Store:
    """
    Rules, consents and settlements of customers, by this service's id for them.

    Methods that take a ``tx`` are part of it; the others are single statements. Absent rows are None or left out.
    """

    def __init__(self, db: Database, audit_limit: timedelta) -> None:
        """Nothing is settled while the oldest event that isn't in the log is older than ``audit_limit``."""
        self.db = db
        self._audit_limit = audit_limit
        self._standing = Coalescer(self._stand)
        self._settling = Coalescer(self._settle)

    async def act(self, tx: Tx, customer: str, audit_ref: bytes) -> None:
        """
        Lock the customer for an act of theirs and raise their revision.

        Must be the first statement of the transaction: what follows reads what other acts and settlements committed.
        """
        await tx.execute(_SQL.customer_act, customer, audit_ref)

    async def stand(self, asked: Sequence[Asked], now: datetime) -> list[Stood]:
        """
        Where each customer stands with a marketer in an exchange, in the order asked.

        Revisions are of the moment of what they guard. What is used up or has expired is left out. Customers never seen before
        stand at revision 0, with nothing. The statement is made for nobody, too: time must not tell who isn't there.
        """
        return await self._standing.submit((asked, now))

    async def _stand(self, requests: Sequence[tuple[Sequence[Asked], datetime]]) -> list[list[Stood]]:
        """Look for all who wait, in one statement, as of the first of their moments: who decides looks at the time again."""
        asked = [one for request, _ in requests for one in request]
        columns = ([one.customer for one in asked], [one.marketer for one in asked], [one.exchange for one in asked])
        now, untils = min(moment for _, moment in requests), [one.until for one in asked]
        found = iter(await each(_stood, await self.db.fetch(_SQL.standing, *columns, now, untils, MOST_LIVE + 1)))
        return [list(islice(found, len(request))) for request, _ in requests]

    async def make_offers(self, tx: Tx, batch: OfferBatch, offers: Sequence[NewOffer]) -> set[str]:
        """Open offers, one for each customer and exchange; returns the ids of those that are new."""
        await tx.execute(
            _SQL.customer_meet,
            [offer.customer for offer in offers],
            [offer.audit_ref for offer in offers],
        )
        rows = await tx.fetch(
            _SQL.offers_insert,
            [offer.customer for offer in offers],
            [offer.offer_id for offer in offers],
            [offer.pseudonym for offer in offers],
            batch.created_at,
            batch.marketer.marketer,
            batch.marketer.name,
            batch.marketer.entity,
            batch.marketer.contact,
            batch.marketer.level,
            batch.exchange,
            batch.terms,
            batch.text,
            batch.one_time,
            batch.decision_deadline,
            batch.valid_until,
        )
        return {row["consent_id"] for row in rows}

    async def standing_rules(self, tx: Tx, customer: str, marketer: str) -> int:
        """How many rules of the customer's stand for a marketer; '': for a level or everyone."""
        return int(await tx.fetchval(_SQL.rules_count, customer, marketer))

    async def add_rule(self, tx: Tx, customer: str, rule: RuleRecord, *, unless_it_stands: bool = False) -> None:
        """Add a rule; if asked to, only where none stands that says the same."""
        await tx.execute(
            _SQL.rule_insert_new if unless_it_stands else _SQL.rule_insert,
            customer,
            rule.rule_id,
            rule.effect,
            rule.scope.marketer,
            rule.scope.least_level or 0,
            rule.terms,
            terms_read(rule.terms).use is Use.ONE_TIME,
            rule.created_at,
        )

    async def end_rule(self, tx: Tx, customer: str, rule_id: str, at: datetime) -> bool:
        """End a standing rule; whether there was one."""
        return bool(await tx.fetchval(_SQL.rule_end, customer, rule_id, at))

    async def rules(self, customer: str, page: Page) -> list[RuleRecord]:
        """A page of standing rules, newest first."""
        rows = await self.db.fetch(_SQL.rules_page, customer, page.before, page.before_id, page.size)
        return [
            RuleRecord(
                row["rule_id"],
                Effect(row["effect"]),
                _scope(row["scope_marketer"], row["scope_level"]),
                row["terms"],
                row["created_at"],
            )
            for row in rows
        ]

    async def objected(self, customer: str, tx: Tx | None = None) -> datetime | None:
        """When the customer objected to all marketing; None where they don't."""
        at: datetime | None = await (tx or self.db).fetchval(_SQL.customer_objected, customer)
        return at

    async def consent(self, tx: Tx | Database, customer: str, consent_id: str) -> ConsentRecord | None:
        """One offer or consent of the customer's, with the newest releases committed under it."""
        row = await tx.fetchrow(_SQL.consent_find, customer, consent_id, MOST_SETTLEMENTS + 1)
        return _with_settlements(row, MOST_SETTLEMENTS) if row else None

    async def settlements(self, customer: str, consent_id: str, page: Page) -> list[SettlementRecord] | None:
        """A page of the releases under a consent of the customer's, newest first; None where there is no such consent."""
        place = (page.before, page.before_id, page.size)
        rows = await self.db.fetch(_SQL.settlements_page, customer, consent_id, *place)
        return [SettlementRecord(**row) for row in rows if row["release_id"]] if rows else None

    async def consents(self, customer: str, page: Page) -> list[ConsentRecord]:
        """A page of what was agreed, newest first."""
        return await self._page(customer, page, agreed=True, open_at=None)

    async def offers(self, customer: str, page: Page, open_at: datetime | None) -> list[ConsentRecord]:
        """A page of the inbox, newest first; only offers that are open at a moment, if one is given."""
        return await self._page(customer, page, agreed=False, open_at=open_at)

    async def _page(self, customer: str, page: Page, *, agreed: bool, open_at: datetime | None) -> list[ConsentRecord]:
        rows = await self.db.fetch(
            _SQL.consents_page,
            customer,
            page.before,
            page.before_id,
            page.size,
            agreed,
            open_at is not None,
            open_at,
        )
        return [_consent(row) for row in rows]

    async def agree(self, tx: Tx, customer: str, agreed: ConsentRecord, at: datetime) -> None:
        """Make an offer a consent, with its artefact and what opens its leaf."""
        await tx.execute(
            _SQL.consent_agree,
            customer,
            agreed.consent_id,
            agreed.artefact,
            agreed.salt,
            agreed.detail,
            at,
            agreed.terms,
        )

    async def move(self, tx: Tx, customer: str, consent_id: str, state: State) -> None:
        """Change a consent's state."""
        await tx.execute(_SQL.consent_move, customer, consent_id, state)

    async def revoke(self, tx: Tx, customer: str, notices: Mapping[str, Notice], *, at: datetime, by: str) -> None:
        """End consents, by id, and plan a notice of each instead of what else was planned about it."""
        columns = map(list, zip(*map(_columns, notices.values()), strict=True))
        await tx.execute(_SQL.consents_revoke, customer, list(notices), at, by, *columns)

    async def object(self, tx: Tx, customer: str, at: datetime) -> bool:
        """Object to all marketing; whether that is new: a second time keeps the first."""
        return bool(await tx.fetchval(_SQL.customer_object, customer, at))

    async def lift_objection(self, tx: Tx, customer: str) -> bool:
        """Lift an objection; whether there was one."""
        return bool(await tx.fetchval(_SQL.customer_lift_objection, customer))

    async def live(self, tx: Tx, customer: str, now: datetime, agreed_by: datetime | None) -> list[ConsentRecord]:
        """
        Some of the customer's active and paused consents that haven't expired, with the newest releases under each.

        Those of some marketers first; all were agreed by a moment, if one is given.
        """
        rows = await tx.fetch(_SQL.consents_live, customer, now, MOST_OF_MANY + 1, agreed_by, MOST_ENDED)
        return [_with_settlements(row, MOST_OF_MANY) for row in rows]

    async def settle(self, items: Sequence[SettleItem]) -> list[Settled]:
        """
        Commit releases or refuse them, in the order given, each as it stands when its customer's row is locked.

        Whose row stays locked is refused as busy, and holds nobody else up. Raises Unavailable: outcome unknown, settle again.
        """
        return await self._settling.submit(items)

    async def _settle(self, requests: Sequence[Sequence[SettleItem]]) -> list[list[Settled]]:
        """Settle for all who wait."""
        items = [item for request in requests for item in request]
        try:
            found = await self._settle_together(items)
        except Unavailable as fault:
            if not is_locked(fault):
                raise
            found = await self._settle_free(items)
        settled = iter(found)
        return [list(islice(settled, len(request))) for request in requests]

    async def _settle_free(self, items: Sequence[SettleItem]) -> list[Settled]:
        """
        Settle for those whose rows are free, and tell the others that they aren't: all, if one of these is locked meanwhile.

        Raises Unavailable, also where what is locked is no customer's row.
        """
        free = await self._free(items)
        await reach("consent.after_free")
        try:
            settled = iter(await self._settle_together([item for item in items if item.customer in free]))
        except Unavailable as fault:
            if not is_locked(fault) or free <= await self._free(items):
                raise
            return [_BUSY] * len(items)
        return [next(settled) if item.customer in free else _BUSY for item in items]

    async def _free(self, items: Sequence[SettleItem]) -> set[str]:
        rows = await self.db.fetch(_SQL.customers_free, [item.customer for item in items])
        return {row["customer"] for row in rows}

    async def _settle_together(self, items: Sequence[SettleItem]) -> list[Settled]:
        """One autocommitted call of one function."""
        places: dict[SettleBatch, int] = {}
        for item in items:
            places.setdefault(item.batch, len(places) + 1)
        releases = [(places[item.batch], *_columns(item)[1:]) for item in items]
        rows = await self.db.fetch(_SQL.settle, list(map(_columns, places)), releases, self._audit_limit)
        return [Settled(*row) for row in rows]

    async def schedule_notice(self, tx: Tx, customer: str, consent_id: str, notice: Notice) -> None:
        """Plan what the consent's marketer will be told."""
        await tx.execute(_SQL.notice_schedule, customer, consent_id, *_columns(notice))

    async def cancel_notice(self, tx: Tx, customer: str, consent_id: str, notice: str) -> bool:
        """Drop a pending notice; whether there was one."""
        return bool(await tx.fetchval(_SQL.notice_cancel, customer, consent_id, notice))

    async def put_off_notices(self, due_before: datetime, now: datetime, longest: timedelta) -> None:
        """Give 1,000 notices or some more that were due before a moment a new one, at random, within ``longest`` from now on."""
        await self.db.execute(_SQL.notices_put_off, due_before, now, longest)
        await reach("consent.after_put_off")

    async def take_notices(self, tx: Tx, since: datetime, now: datetime) -> list[DueNotice]:
        """Take up to 100 notices that are due since a moment; they are gone if the transaction commits."""
        rows = await tx.fetch(_SQL.notices_take, since, now)
        return [
            DueNotice(row["consent_id"], row["marketer"], row["pseudonym"], row["notice"], row["audit_ref"])
            for row in rows
        ]

    async def logged(self, tx: Tx) -> int:
        """How far audit has logged this service's stream."""
        return int(await tx.fetchval(_SQL.audit_progress_find))

    async def set_logged(self, tx: Tx, seq: int) -> None:
        """Note how far audit has logged this service's stream."""
        await tx.execute(_SQL.audit_progress_set, seq)

    async def suspend(self, tx: Tx, marketer: str, seq: int, *, suspended: bool) -> None:
        """Note whether a marketer is suspended, as a place of identity's stream says: in any order, the last place counts."""
        await tx.execute(_SQL.marketer_suspend if suspended else _SQL.marketer_reinstate, marketer, seq)


def _columns(of: SettleBatch | SettleItem | Notice) -> tuple[Any, ...]:
    """As asyncpg takes a composite, or arguments."""
    return tuple(getattr(of, name) for name in of.__slots__)


def _stood(row: Any) -> Stood:
    many = Counter(state for _, state, _ in row["consents"])
    more = max(many.values(), default=0) > MOST_LIVE
    live = tuple(map(_live, row["consents"]))
    standing = Standing(row["objected"], tuple(map(_rule, row["rules"])), live, more)
    return Stood(
        row["revision"],
        standing,
        State(row["offer"]) if row["offer"] else None,
        row["released_at"],
        row["audit_ref"] or b"",
    )


def _rule(row: Any) -> Rule:
    rule_id, effect, marketer, level, terms = row
    return Rule(rule_id, Effect(effect), _scope(marketer, level), terms_read(terms))


def _scope(marketer: str, level: int) -> Scope:
    return Scope(marketer, Level(level) if level else None)


def _live(row: Any) -> LiveConsent:
    consent_id, state, terms = row
    return LiveConsent(consent_id, state == State.PAUSED, _begun(terms))


@lru_cache(4096)
def _begun(raw: bytes) -> Terms:
    """What was agreed has begun: it starts when it is agreed, and this process's clock may be behind the one that said when."""
    terms = terms_read(raw)
    return replace(terms, validity=Validity(end=terms.validity.end))


def _with_settlements(row: Any, most: int) -> ConsentRecord:
    settlements = [SettlementRecord(*each) for each in row["settlements"]]
    return _consent(row, settlements[:most], more=len(settlements) > most)


def _consent(row: Any, settlements: Sequence[SettlementRecord] = (), *, more: bool = False) -> ConsentRecord:
    return ConsentRecord(
        consent_id=row["consent_id"],
        state=State(row["state"]),
        marketer=MarketerRecord(
            row["marketer"],
            row["marketer_name"],
            row["marketer_entity"],
            row["marketer_contact"],
            row["marketer_level"],
        ),
        pseudonym=row["pseudonym"],
        exchange=row["exchange"],
        terms=row["terms"],
        offer_text=row["offer_text"],
        rule_id=row["rule_id"],
        artefact=row["artefact"],
        salt=row["salt"] or b"",
        detail=row["detail"] or b"",
        decision_deadline=row["decision_deadline"],
        valid_until=row["valid_until"],
        created_at=row["created_at"],
        agreed_at=row["agreed_at"],
        revoked_at=row["revoked_at"],
        revoked_by=row["revoked_by"],
        settlements=tuple(settlements),
        more=more,
    )
