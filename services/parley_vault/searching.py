"""
Searching: who matches, a page at a time, in an order that says nothing.

Everybody is looked for once for an exchange, not once for each of its pages, which in a large campaign would cost more than all
the rest. Whoever is on a page matches at that moment, whatever was found before.
"""

import base64
import binascii
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice

from parley_crypto.jws import Keys, StatementInvalid
from parley_crypto.keyring import KeyRing
from parley_crypto.statements import Card, verify_card
from parley_crypto.subject_ref import CandidateRef, seal_candidate
from parley_kit.clock import Clock
from parley_kit.faults import InvalidRequest, Unauthenticated, Violation
from parley_kit.offload import each, work
from parley_terms.terms import Criteria, Level
from parley_terms.values import Catalogue
from parley_vault.domain.items import check
from parley_vault.domain.matching import order_of
from parley_vault.finding import Finder

_MOST_ORDERS = 16
_ORDER_S = 60.0


@dataclass(frozen=True, slots=True)
class Search:
    """What a marketer asks for in an exchange, a page at a time."""

    card: str
    exchange: str
    criteria: Criteria
    size: int
    token: str


@dataclass(frozen=True, slots=True)
class Asked:
    """What is the same for all pages of a search."""

    exchange: str
    marketer: str
    level: Level
    criteria: Criteria


class Orders:
    """Everybody found for the latest few searches, each in its order, for a minute: then it is looked for newcomers."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._held: OrderedDict[Asked, tuple[float, Sequence[str]]] = OrderedDict()

    def find(self, asked: Asked) -> Sequence[str] | None:
        """The subjects, unless that is too long ago."""
        until, order = self._held.get(asked, (0.0, None))
        return order if self._clock.monotonic() < until else None

    def hold(self, asked: Asked, order: Sequence[str]) -> None:
        """Hold an order, and let go of the oldest."""
        self._held.pop(asked, None)
        self._held[asked] = (self._clock.monotonic() + _ORDER_S, order)
        if len(self._held) > _MOST_ORDERS:
            self._held.popitem(last=False)

    def forget(self, asked: Asked) -> None:
        """Let go of an order: its last page was given."""
        self._held.pop(asked, None)


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
        card, after = self._card(search.card), _after(search.token)
        check(self.catalogue, search.criteria, "criteria")
        asked = Asked(search.exchange, card.marketer, Level(card.level), search.criteria)
        order = self.orders.find(asked) or await self._order(asked)
        start = bisect_right(order, after, key=partial(self._place, asked))
        page = await self._meeting(asked, islice(order, start, None), search.size + 1)
        if len(page) <= search.size:
            self.orders.forget(asked)
        return await each(partial(self._seal, asked), page[: search.size]), self._token(asked, page, search.size)

    def _card(self, statement: str) -> Card:
        try:
            return verify_card(statement, self.identity, self.clock.now())
        except (StatementInvalid, KeyError, ValueError) as error:
            raise Unauthenticated from error

    async def _order(self, asked: Asked) -> Sequence[str]:
        found = self.finder.index.find(asked.criteria, asked.level)
        order = await work(len(found), lambda: sorted(found, key=partial(self._place, asked)))
        self.orders.hold(asked, order)
        return order

    def _place(self, asked: Asked, subject: str) -> bytes:
        return order_of(self.order_key, asked.exchange, subject)

    async def _meeting(self, asked: Asked, subjects: Iterator[str], most: int) -> list[str]:
        """The first so many of these who match now."""
        found: list[str] = []
        while some := list(islice(subjects, most - len(found))):
            met = await each(partial(self.finder.index.meets, asked.criteria, asked.level), some)
            found += [subject for subject, is_met in zip(some, met, strict=True) if is_met]
        return found

    def _seal(self, asked: Asked, subject: str) -> bytes:
        return seal_candidate(self.candidates, CandidateRef(subject, asked.exchange, asked.marketer))

    def _token(self, asked: Asked, page: Sequence[str], size: int) -> str:
        return base64.urlsafe_b64encode(self._place(asked, page[size - 1])).decode() if len(page) > size else ""


def _after(token: str) -> bytes:
    try:
        return base64.b64decode(token, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise InvalidRequest(violations=[Violation("page_token", "is none of ours")]) from None
