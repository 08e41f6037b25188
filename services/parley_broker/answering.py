"""
One release in the answer of the call that asks for it.

The very same steps as in the background, but for their order: while the exchange is being recorded, its customer is decided and
their values opened, which are reads. Only what is recorded is settled, and only what is settled is in the answer. Whatever was
sent and isn't acknowledged soon gets its place on the feed.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Awaitable, Callable

from parley.broker.v1 import broker_pb2 as brokerpb
from parley_broker.bell import Bell
from parley_broker.domain.states import TO_DECIDE, Participant
from parley_broker.names import Names
from parley_broker.releasing import Releasing
from parley_broker.settling import Prepared
from parley_broker.store import LEASE, ExchangeRecord, Introduction, ParticipantRecord, Release, Store
from parley_kit.clock import Clock
from parley_kit.coalesce import Coalescer
from parley_kit.completion import begun
from parley_kit.convoy import Convoys
from parley_kit.faultpoints import reach
from parley_kit.faults import Code, Fault
from parley_rpc.deadlines import in_time

_AWAY = frozenset({Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.CANCELLED})
"""Of a service that can't be reached or takes too long: to do each of a batch again would take longer still."""
_TRIES = 3
_TO_SEND = (*TO_DECIDE, Participant.FINALIZED)
_PLACE_AFTER_S = 0.5
_PLACE_EVERY_S = 0.1
_MOST_AT_ONCE, _MOST_LEFT = 64, 1024
_REF_BYTES = 269
"""As long as a reference to a customer is."""


class Answering:
    """Answers with a release, where it may be made at once."""

    def __init__(self, store: Store, releasing: Releasing, names: Names, bell: Bell, clock: Clock) -> None:
        self._store = store
        self._releasing = releasing
        self._names = names
        self._bell = bell
        self._clock = clock
        self._preparing = Coalescer(releasing.prepare_new, alone=_is_of_one)
        self._convoys = Convoys()
        self._unplaced: dict[Release, float] = {}
        self._left: list[tuple[ExchangeRecord, ParticipantRecord, float]] = []

    async def first(
        self, exchange: ExchangeRecord, pseudonym: str, record: Callable[[], Awaitable[bool]]
    ) -> tuple[bool, brokerpb.Delivery | None]:
        """
        Record an exchange and answer it: whether it was recorded, and the release. Raises what recording raises.

        Whoever isn't there is decided as if they were, and nobody waits for an offer: under load these steps take longer than
        silence does, and would tell why it is one.
        """
        await self._convoys.join()
        recorded = begun(record())
        participant, prepared = None, None
        with contextlib.suppress(Fault):  # what fails now, or takes too long, is taken up once it is recorded
            async with in_time():
                participant = await self._newcomer(exchange, pseudonym)
                prepared = await self._preparing.submit((exchange, participant or _nobody(exchange, pseudonym)))
        if not await recorded:
            return False, None
        with contextlib.suppress(Fault):  # or in the background; why is nobody's business here
            async with in_time():
                if participant and prepared:
                    return True, await self._send(exchange, participant, prepared)
        if participant and not prepared:
            self._leave(exchange, participant)
        return True, None

    def _leave(self, exchange: ExchangeRecord, participant: ParticipantRecord) -> None:
        if len(self._left) < _MOST_LEFT:  # else it comes again with its lease
            self._left.append((exchange, participant, self._clock.monotonic()))

    async def carry_on(self) -> bool:
        """Carry on for those who were answered without a release; whether there was anybody. Raises a defect."""
        carried, self._left = self._left[:_MOST_AT_ONCE], self._left[_MOST_AT_ONCE:]
        leased_since = self._clock.monotonic() - LEASE.total_seconds()  # the others are somebody else's by now
        carrying = (self._releasing.carry(exchange, [one]) for exchange, one, left in carried if left > leased_since)
        for outcome in await asyncio.gather(*carrying, return_exceptions=True):
            if isinstance(outcome, BaseException) and not isinstance(outcome, Fault):
                raise outcome
        return bool(carried)

    async def again(self, exchange: ExchangeRecord, pseudonym: str) -> brokerpb.Delivery | None:
        """Answer an exchange that was recorded before: through every step anew, never from what was stored."""
        marketer, exchange_id = exchange.marketer, exchange.exchange_id
        participant = await self._store.participant(marketer, exchange_id, pseudonym)
        if participant and (participant.acknowledged or participant.state not in _TO_SEND):
            participant = None
        if participant and participant.state is Participant.FINALIZED:
            await self._store.reopen(marketer, [(exchange_id, pseudonym)])
        with contextlib.suppress(Fault):
            async with in_time(), self._releasing.ending(exchange, [participant] if participant else []):
                prepared = await self._preparing.submit((exchange, participant or _nobody(exchange, pseudonym)))
                # Whoever was overtaken meanwhile, by a cancellation above all, isn't settled any more.
                if participant and prepared and await self._store.undecided(exchange, [pseudonym]):
                    return await self._send(exchange, participant, prepared)
        if participant:
            self._leave(exchange, participant)
        return None

    async def _newcomer(self, exchange: ExchangeRecord, pseudonym: str) -> ParticipantRecord | None:
        known = (await self._store.introduced(exchange.marketer, [pseudonym])).get(pseudonym)
        return _requested(exchange, pseudonym, known) if known else None

    async def _prepared(self, exchange: ExchangeRecord, participant: ParticipantRecord) -> Prepared | None:
        return next(iter(await self._releasing.prepare(exchange, [participant])), None)

    async def _send(
        self, exchange: ExchangeRecord, participant: ParticipantRecord, prepared: Prepared | None
    ) -> brokerpb.Delivery | None:
        """
        Settle what is prepared, and send it.

        What the customer overtakes meanwhile, by whatever act, is prepared again: an answer without its release would tell this
        marketer the moment of an act towards another.
        """
        settled = None
        for attempt in range(_TRIES):
            prepared = await self._prepared(exchange, participant) if attempt else prepared
            if prepared is None:
                return None
            if settled := (await self._releasing.settle(exchange, [prepared])).get(participant.pseudonym):
                break
        if settled is None:
            return None
        release_id = settled.release.release_id
        release = Release(exchange.marketer, exchange.exchange_id, participant.pseudonym, release_id)
        self._unplaced[release] = self._clock.monotonic()
        await reach("broker.before_send")
        if not self._releasing.settling.is_fresh(settled):
            return None
        return brokerpb.Delivery(name=f"deliveries/{self._names.release(release)}", release=settled.release)

    def kept(self, release: Release) -> None:
        """Note that a release was acknowledged: it needs no place any more."""
        self._unplaced.pop(release, None)

    async def place(self) -> bool:
        """Give what was sent a while ago, and isn't acknowledged, its place on the feed; whether there was anything."""
        sent_before = self._clock.monotonic() - _PLACE_AFTER_S
        waiting = [release for release, sent in self._unplaced.items() if sent <= sent_before]
        if not waiting:
            return False
        await self._store.finish(waiting, self._clock.now())
        for release in waiting:
            self.kept(release)
        self._bell.ring()
        return True

    async def turn(self) -> bool:
        """Wait a little, then place. There may always be more: nobody rings for what becomes due."""
        await asyncio.sleep(_PLACE_EVERY_S)
        await self.place()
        return True


def _nobody(exchange: ExchangeRecord, pseudonym: str) -> ParticipantRecord:
    """A participant that no service knows."""
    consent_ref, vault_ref, audit_ref = (secrets.token_bytes(_REF_BYTES) for _ in range(3))
    return _requested(exchange, pseudonym, Introduction(consent_ref, vault_ref, audit_ref))


def _requested(exchange: ExchangeRecord, pseudonym: str, refs: Introduction) -> ParticipantRecord:
    return ParticipantRecord(
        marketer=exchange.marketer,
        exchange_id=exchange.exchange_id,
        pseudonym=pseudonym,
        state=Participant.REQUESTED,
        settled=False,
        acknowledged=False,
        consent_ref=refs.consent_ref,
        vault_ref=refs.vault_ref,
        audit_ref=refs.audit_ref,
    )


def _is_of_one(error: Exception) -> bool:
    """Whether an error may be one exchange's alone, as a defect may be, so that each of a batch is done again."""
    return not isinstance(error, Fault) or error.code not in _AWAY
