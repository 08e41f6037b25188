"""
Taking each customer of an exchange through decide, release and settle.

Every step is kept before the next is taken, so that it goes on after a crash at any point; every step may be repeated.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta

from structlog.typing import FilteringBoundLogger

from parley.common.v1 import permit_pb2 as permitpb
from parley.common.v1 import terms_pb2 as termspb
from parley.consent.v1 import consent_pb2 as consentpb
from parley.vault.v1 import vault_pb2 as vaultpb
from parley_broker.bell import Bell, Turns
from parley_broker.clients import FOR_GOOD, Peers
from parley_broker.domain.outcomes import Refusal, after
from parley_broker.domain.states import TO_DECIDE, Participant
from parley_broker.settling import Prepared, Settled, Settling
from parley_broker.store import LEASE, ExchangeRecord, ParticipantRecord, Release, Store
from parley_kit.clock import Clock
from parley_kit.faultpoints import reach
from parley_kit.faults import Code, Fault
from parley_kit.telemetry import SILENT, Tracer

_PERMIT_INVALID = "PERMIT_INVALID"
_LATER = timedelta(seconds=30)
"""How long a participant is left alone whose customer has paused."""
_WITHOUT_PERMIT = {
    consentpb.DECISION_OUTCOME_ASKED: Participant.OFFERED,
    consentpb.DECISION_OUTCOME_REFUSED: Participant.TERMINATED,
}


@dataclass(frozen=True, slots=True)
class Allowed:
    """A participant of an exchange whose values may be opened under a permit."""

    exchange: ExchangeRecord
    participant: ParticipantRecord
    permit: permitpb.Permit = field(repr=False)


@dataclass(frozen=True)
class Releasing:
    """Takes participants as far as they get just now."""

    store: Store
    peers: Peers
    settling: Settling
    bell: Bell
    clock: Clock
    log: FilteringBoundLogger
    batch: int
    tracer: Tracer = SILENT.tracer
    turns: Turns = field(default_factory=Turns)

    async def turn(self) -> bool:
        """
        Take some participants of one marketer on; whether there were any.

        What fails must not slow the others down: it comes again with its lease. Raises a defect, after all others had their turn.
        """
        leased = await self.take()
        if not leased:
            return False
        async with self._in_hand(leased):
            defects = await self._carry_each(leased)
        if defects:
            raise defects[0]
        return True

    async def _carry_each(self, leased: Sequence[ParticipantRecord]) -> Sequence[Exception]:
        """Carry one exchange after the other; answers the defects among what failed."""
        defects = []
        for exchange_id, participants in _by_exchange(leased).items():
            try:
                exchange = await self.store.exchange(self.store.db, leased[0].marketer, exchange_id)
                assert exchange is not None
                await self.carry(exchange, participants)
            except Fault as fault:
                self.log.warning("exchange_waiting", reason=fault.reason, count=len(participants))
                if fault.code is Code.UNAVAILABLE:  # to the others as well; what is slow may be one customer's doing
                    break
            except Exception as defect:  # noqa: BLE001 - the turn raises it
                defects.append(defect)
        return defects

    @asynccontextmanager
    async def _in_hand(self, leased: Sequence[ParticipantRecord]) -> AsyncIterator[None]:
        """Keep what was taken for the length of a block, which may be longer than a lease: no other worker does it again."""
        keeping = asyncio.create_task(self._keep(leased))
        try:
            yield
        finally:
            keeping.cancel()
            await asyncio.wait([keeping])
        if not keeping.cancelled():
            keeping.result()  # a defect is the turn's: nobody else would hear of it

    async def _keep(self, leased: Sequence[ParticipantRecord]) -> None:
        while True:
            await asyncio.sleep(LEASE.total_seconds() / 2)
            with suppress(Fault):  # then it lapses, as after a crash
                await self.store.keep(leased)

    async def take(self) -> list[ParticipantRecord]:
        """Take participants of the marketer whose turn it is, unless its feed can't keep up: it must not slow the others down."""
        ahead, last = sorted(self.settling.ahead()), self.turns.last
        leased = await self.store.lease_participants(self.batch, ahead, last)
        if not leased and last:
            leased = await self.store.lease_participants(self.batch, ahead)
        self.turns.last = leased[0].marketer if leased else ""
        return leased

    async def carry(self, exchange: ExchangeRecord, participants: Sequence[ParticipantRecord]) -> None:
        """
        Decide, release, settle, and give what was settled its place on the feed, to be sent at once.

        What another service refuses for good ends these participants, and stops no others.
        """
        to_decide = [one for one in participants if one.state in TO_DECIDE]
        # Apart, as of an exchange that was cancelled others are asked about otherwise than those who had their release.
        for settled in (True, False):
            if alike := [one for one in to_decide if one.settled is settled]:
                with self.tracer.span("broker.carry"):
                    await self._carry(exchange, alike)

    async def _carry(self, exchange: ExchangeRecord, to_decide: Sequence[ParticipantRecord]) -> None:
        async with self.ending(exchange, to_decide):
            prepared = await self.prepare(exchange, to_decide)
            # Whoever was overtaken meanwhile, by a cancellation above all, isn't settled any more.
            wanted = await self.store.undecided(exchange, [one.participant.pseudonym for one in prepared])
            settled = await self.settle(exchange, [one for one in prepared if one.participant.pseudonym in wanted])
            where = exchange.marketer, exchange.exchange_id
            released = {Release(*where, name, one.release.release_id): one for name, one in settled.items()}
            for release in await self.store.finish(list(released), self.clock.now()):
                self.settling.hold(release.key, released[release])
            self.bell.ring()

    @asynccontextmanager
    async def ending(self, exchange: ExchangeRecord, participants: Sequence[ParticipantRecord]) -> AsyncIterator[None]:
        """End participants with what another service refuses for good, within the block."""
        try:
            yield
        except Fault as fault:
            if fault.code not in FOR_GOOD:
                raise
            await self.store.decided(exchange, {one.pseudonym: Participant.TERMINATED for one in participants})

    async def prepare(self, exchange: ExchangeRecord, participants: Sequence[ParticipantRecord]) -> list[Prepared]:
        """Have participants decided, and what is allowed opened and sealed; the others are moved on."""
        answer = await self.peers.consent.decide(await self._asking(exchange, participants))
        await reach("broker.after_decide")
        decided = list(zip(participants, answer.decisions, strict=True))
        await self._move_on(exchange, decided)
        allowed = _allowed(exchange, decided)
        outcomes, opened = await self._release(answer.batch, allowed)
        await self.store.decided(exchange, _void(allowed, outcomes))
        return list(_prepared(answer.batch, allowed, outcomes, opened))

    async def prepare_new(self, new: Sequence[tuple[ExchangeRecord, ParticipantRecord]]) -> list[Prepared | None]:
        """
        Prepare what is allowed at once, of exchanges that may not be recorded yet: nobody is asked or moved.

        In the order given; None where there is nothing to settle now.
        """
        asked = [await self._asking(exchange, [one], opens_no_offer=True) for exchange, one in new]
        answer = await self.peers.consent.decide_each(asked)
        await reach("broker.after_decide")
        allowed = [
            one
            for (exchange, participant), response in zip(new, answer.responses, strict=True)
            for one in _allowed(exchange, zip([participant], response.decisions, strict=True))
        ]
        prepared = _prepared(answer.batch, allowed, *(await self._release(answer.batch, allowed)))
        ready = {(one.exchange.name, one.participant.pseudonym): one for one in prepared}
        return [ready.get((exchange.name, participant.pseudonym)) for exchange, participant in new]

    async def _asking(
        self, exchange: ExchangeRecord, participants: Sequence[ParticipantRecord], *, opens_no_offer: bool = False
    ) -> consentpb.DecideRequest:
        held = await self.peers.identity.card(exchange.marketer)
        return consentpb.DecideRequest(
            marketer_card=held.statement,
            exchange=exchange.name,
            terms=termspb.Terms.FromString(exchange.terms),
            offer_text=exchange.offer_text,
            entries=[
                consentpb.DecideEntry(consent_ref=one.consent_ref, audit_ref=one.audit_ref) for one in participants
            ],
            opens_no_offer=opens_no_offer,
            only_settled=exchange.cancelled_at is not None and not all(one.settled for one in participants),
        )

    async def _move_on(
        self, exchange: ExchangeRecord, decided: Sequence[tuple[ParticipantRecord, consentpb.Decision]]
    ) -> None:
        """Note what came of those who have no permit."""
        await self.store.decided(
            exchange,
            {
                one.pseudonym: _WITHOUT_PERMIT[decision.outcome]
                for one, decision in decided
                if decision.outcome in _WITHOUT_PERMIT
            },
        )
        later = [one.pseudonym for one, decision in decided if decision.outcome == consentpb.DECISION_OUTCOME_LATER]
        await self.store.postpone(exchange, later, _LATER)

    async def _release(
        self, batch: permitpb.PermitBatch, allowed: Sequence[Allowed]
    ) -> tuple[Sequence[vaultpb.ReleaseOutcome], float]:
        """Have values opened; answers what came of it, and when it was asked for (on the monotonic clock)."""
        if not allowed:
            return [], 0.0
        entries = [vaultpb.ReleaseEntry(vault_ref=one.participant.vault_ref, permit=one.permit) for one in allowed]
        # Not when it was answered: that may be long after the values were read.
        asked = self.clock.monotonic()
        outcomes = await self.peers.vault.release(batch, entries)
        await reach("broker.after_release")
        return outcomes, asked

    async def settle(self, exchange: ExchangeRecord, prepared: Sequence[Prepared]) -> dict[str, Settled]:
        """Settle what is prepared; answers what may be sent now, by pseudonym, and moves the others on."""
        if not prepared:
            return {}
        outcomes = list(zip(prepared, await self.settling.settle(prepared), strict=True))
        await reach("broker.after_settle")
        refused = {
            one.participant.pseudonym: leads_to
            for one, outcome in outcomes
            if not isinstance(outcome, Settled) and (leads_to := after(Refusal(outcome))) is not None
        }
        await self.store.unsettled(exchange, refused)
        return {one.participant.pseudonym: outcome for one, outcome in outcomes if isinstance(outcome, Settled)}


def _by_exchange(participants: Iterable[ParticipantRecord]) -> Mapping[str, Sequence[ParticipantRecord]]:
    found: dict[str, list[ParticipantRecord]] = {}
    for one in participants:
        found.setdefault(one.exchange_id, []).append(one)
    return found


def _allowed(
    exchange: ExchangeRecord, decided: Iterable[tuple[ParticipantRecord, consentpb.Decision]]
) -> list[Allowed]:
    return [
        Allowed(exchange, one, decision.permit)
        for one, decision in decided
        if decision.outcome == consentpb.DECISION_OUTCOME_ALLOWED
    ]


def _prepared(
    batch: permitpb.PermitBatch, allowed: Sequence[Allowed], outcomes: Sequence[vaultpb.ReleaseOutcome], opened: float
) -> Iterator[Prepared]:
    for one, outcome in zip(allowed, outcomes, strict=True):
        if outcome.sealed_release:
            yield Prepared(one.exchange, one.participant, one.permit, batch, outcome.sealed_release, opened)


def _void(allowed: Sequence[Allowed], outcomes: Sequence[vaultpb.ReleaseOutcome]) -> Mapping[str, Participant]:
    """Permits that vault will never honour end their participants; expired ones are decided again after the lease."""
    return {
        one.participant.pseudonym: Participant.TERMINATED
        for one, outcome in zip(allowed, outcomes, strict=True)
        if outcome.refusal == _PERMIT_INVALID
    }
