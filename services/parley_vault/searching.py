"""
Searching: who matches, a page at a time, in an order that says nothing.

The order of an audience is made once, not once for each of its pages, and held for as long as pages are asked for.
"""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from functools import partial

from parley_crypto.jws import Keys, StatementInvalid
from parley_crypto.keyring import KeyRing
from parley_crypto.statements import Card, verify_card
from parley_crypto.subject_ref import CandidateRef, seal_candidate
from parley_kit import pages
from parley_kit.clock import Clock
from parley_kit.faults import Unauthenticated, Unavailable
from parley_kit.offload import each, work
from parley_terms.terms import Criteria, Level
from parley_terms.values import Catalogue
from parley_vault.domain.items import check
from parley_vault.domain.matching import Order, order_of
from parley_vault.finding import Finder

MOST_HELD = 4_000_000
HELD_S = 60.0
_ROUNDS = 5
"""In which an order that was just made catches up with what changed meanwhile; each is shorter than the one before."""


@dataclass(frozen=True, slots=True)
class Search:
    """What a marketer asks for in an exchange, a page at a time."""

    card: str
    exchange: str
    criteria: Criteria
    size: int
    token: str


@dataclass(frozen=True, slots=True)
class Audience:
    """Whom a marketer looks for in an exchange: the same for all pages of a search."""

    exchange: str
    marketer: str
    level: Level
    criteria: Criteria


class Orders:
    """
    The orders of audiences whose pages are being asked for, until a minute or two after the last.

    So many subjects are held at the most, and a quarter of that for one marketer. What is more isn't held: it costs time, as long
    as there is so much, and pushes nobody else's out.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._held: dict[Audience, tuple[Order, float]] = {}
        self._purging: asyncio.TimerHandle | None = None

    def find(self, audience: Audience) -> Order | None:
        """The order of an audience, if it is held and can be brought up to date at once."""
        held = self._held.get(audience)
        return held[0] if held and not held[0].is_far_behind() else None

    def hold(self, audience: Audience, order: Order) -> None:
        """Hold an order for the next page, if there is room."""
        self.forget(audience)
        if self._has_room(audience.marketer, len(order)):
            self._held[audience] = order, self._clock.monotonic()
            self._purging = self._purging or asyncio.get_running_loop().call_later(HELD_S, self._purge)

    def forget(self, audience: Audience) -> None:
        """Let go of an order."""
        self._held.pop(audience, None)

    def _has_room(self, marketer: str, count: int) -> bool:
        sizes = Counter[str]()
        for audience, (order, _) in self._held.items():
            sizes[audience.marketer] += len(order)
        return sizes[marketer] + count <= MOST_HELD // 4 and sizes.total() + count <= MOST_HELD

    def _purge(self) -> None:
        long_ago = self._clock.monotonic() - HELD_S
        self._held = {audience: held for audience, held in self._held.items() if held[1] > long_ago}
        self._purging = asyncio.get_running_loop().call_later(HELD_S, self._purge) if self._held else None


@dataclass(frozen=True)
class Matcher:
    """Answers who matches."""

    finder: Finder
    orders: Orders
    catalogue: Catalogue
    clock: Clock
    identity: Keys
    candidates: KeyRing = field(repr=False)
    order_key: bytes = field(repr=False)

    async def match(self, search: Search) -> tuple[list[bytes], str]:
        """
        Sealed candidates, and the token of the next page (empty: that was the last).

        The order of an exchange is fixed, so pages neither overlap nor skip anyone who matches throughout. Raises
        Unauthenticated, InvalidRequest, AttributeUnknown, InvalidValue.
        """
        card, after = self._card(search.card), pages.decode(search.token)
        check(self.catalogue, search.criteria, "criteria")
        audience = Audience(search.exchange, card.marketer, Level(card.level), search.criteria)
        order = self.orders.find(audience)
        if order is None:
            order = await self._order(audience)
        page = order.behind(after, search.size + 1)
        is_last = len(page) <= search.size
        if is_last:
            self.orders.forget(audience)
        else:
            self.orders.hold(audience, order)
        token = "" if is_last else pages.encode(self._place(audience, page[search.size - 1]))
        return await each(partial(self._seal, audience), page[: search.size]), token

    def _card(self, statement: str) -> Card:
        try:
            return verify_card(statement, self.identity, self.clock.now())
        except (StatementInvalid, KeyError, ValueError) as error:
            raise Unauthenticated from error

    async def _order(self, audience: Audience) -> Order:
        index = self.finder.index
        order = Order(index, audience.criteria, audience.level, partial(self._place, audience))
        await work(len(index), order.make)
        for _ in range(_ROUNDS):
            if order.is_far_behind():
                await each(order.renew, order.changed())
        if order.is_far_behind():
            raise Unavailable(retry_after=1.0)  # so much changes just now that it is never through
        return order

    def _place(self, audience: Audience, subject: str) -> bytes:
        return order_of(self.order_key, audience.exchange, subject)

    def _seal(self, audience: Audience, subject: str) -> bytes:
        return seal_candidate(self.candidates, CandidateRef(subject, audience.exchange, audience.marketer))
