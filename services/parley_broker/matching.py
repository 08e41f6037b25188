"""Finding the customers of exchanges: matched by vault, introduced by identity."""

from dataclasses import dataclass, field

from structlog.typing import FilteringBoundLogger

from parley.broker.v1 import broker_pb2 as brokerpb
from parley_broker.bell import Bell, Turns
from parley_broker.clients import FOR_GOOD, Peers
from parley_broker.store import ExchangeRecord, Store
from parley_kit.faultpoints import reach
from parley_kit.faults import Fault
from parley_kit.telemetry import SILENT, Tracer


@dataclass(frozen=True)
class Matching:
    """Finds the customers of exchanges by criteria, page by page."""

    store: Store
    peers: Peers
    bell: Bell
    log: FilteringBoundLogger
    tracer: Tracer = SILENT.tracer
    turns: Turns = field(default_factory=Turns)

    async def take(self) -> tuple[ExchangeRecord, str] | None:
        """Take an exchange of the marketer whose turn it is, and where to go on."""
        last = self.turns.last
        leased = await self.store.lease_exchange(last)
        if leased is None and last:
            leased = await self.store.lease_exchange()
        self.turns.last = leased[0].marketer if leased else ""
        return leased

    async def turn(self) -> bool:
        """Find one page of one exchange's customers; whether there was one to find."""
        leased = await self.take()
        if leased is None:
            return False
        exchange, token = leased
        try:
            with self.tracer.span("broker.match"):
                await self._find(exchange, token)
        except Fault as fault:
            self.log.warning("exchange_waiting", reason=fault.reason)
            if fault.code in FOR_GOOD:
                async with self.store.db.tx("broker.matched") as tx:
                    await self.store.advance(tx, exchange, "")
        return True

    async def _find(self, exchange: ExchangeRecord, token: str) -> None:
        criteria = brokerpb.Audience.FromString(exchange.audience).criteria
        held = await self.peers.identity.card(exchange.marketer)
        page = await self.peers.vault.match(held.statement, exchange.name, criteria, token)
        found = (
            await self.peers.identity.introduce(exchange.marketer, exchange.name, page.candidate_refs)
            if page.candidate_refs
            else []
        )
        await reach("broker.after_introduce")
        async with self.store.db.tx("broker.matched") as tx:
            await self.store.introduce(tx, exchange.marketer, found)
            await self.store.add_participants(tx, exchange, [one.pseudonym for one in found])
            await self.store.advance(tx, exchange, page.next_page_token)
        self.store.remember(exchange.marketer, found)
        self.bell.ring()
