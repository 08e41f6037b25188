"""
The matching index: who has which discoverable value, in memory.

It is changed on the event loop. Whoever looks for everybody may do so in a thread meanwhile: each step is one operation on a set,
during which nobody else runs, and who changes between two of them is looked at again.

Only what a customer made discoverable is in it. An item counts for a marketer only from the level up that its customer chose, and
never below the level that the catalogue asks for the attribute.
"""

import hashlib
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import reduce
from weakref import WeakSet

from parley_crypto.pae import pae
from parley_terms.terms import AllOf, AnyOf, Criteria, Criterion, Level, Not, OneOf, Question, Range, each_criterion
from parley_terms.values import Attribute, Catalogue, answer

_Values = dict[str, set[str]]  # value -> subjects
_MOST_TOUCHED = 64


@dataclass(frozen=True, slots=True)
class Fact:
    """A discoverable value: from which level up it may be matched on."""

    value: str = field(repr=False)
    level: Level


class Index:
    """Attribute, level and value to subjects."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue
        self._postings: dict[tuple[str, Level], _Values] = defaultdict(dict)
        self._facts: dict[str, dict[str, Fact]] = {}
        self._orders: WeakSet[Order] = WeakSet()

    def keep(self, order: "Order") -> None:
        """Let an order know, for as long as there is one, of whom anything changes."""
        self._orders.add(order)

    def add(self, subject: str, facts: Mapping[str, Fact]) -> None:
        """Add discoverable values, by attribute; the index must hold none of these yet. Unknown attributes are left out."""
        for name, fact in facts.items():
            if attribute := self._catalogue.get(name):
                self._add(subject, name, Fact(fact.value, max(fact.level, attribute.least_level)))

    def _add(self, subject: str, name: str, fact: Fact) -> None:
        self._facts.setdefault(subject, {})[name] = fact
        self._postings[name, fact.level].setdefault(fact.value, set()).add(subject)

    def __len__(self) -> int:
        return len(self._facts)

    def forget(self, subject: str) -> None:
        """Take out everything of a subject. Every change begins with this."""
        for order in self._orders:
            order.touch(subject)
        for name, fact in self._facts.pop(subject, {}).items():
            posting = self._postings[name, fact.level]
            posting[fact.value].discard(subject)
            if not posting[fact.value]:
                del posting[fact.value]

    def find(self, criteria: Criteria, level: Level) -> set[str]:
        """
        The subjects that meet criteria which fit the catalogue, as a marketer of this level may know them.

        ``Not`` is the complement among those of whom every attribute named in it may be asked.
        """
        match criteria:
            case Criterion(name, question):
                return self._meeting(name, question, level)
            case AllOf(parts):
                return reduce(
                    lambda met, part: met and met & self.find(part, level), parts[1:], self.find(parts[0], level)
                )
            case AnyOf(parts):
                return set().union(*(self.find(part, level) for part in parts))
            case Not(part):
                return self._asked(part, level) - self.find(part, level)

    def meets(self, subject: str, criteria: Criteria, level: Level) -> bool:
        """Whether :meth:`find` finds a subject."""
        match criteria:
            case Criterion(name, question):
                value = self._value(subject, name, level)
                return value is not None and answer(self._catalogue[name], question, value)
            case AllOf(parts):
                return all(self.meets(subject, part, level) for part in parts)
            case AnyOf(parts):
                return any(self.meets(subject, part, level) for part in parts)
            case Not(part):
                named = {test.attribute for test in each_criterion(part)}
                is_asked = all(self._value(subject, name, level) is not None for name in named)
                return is_asked and not self.meets(subject, part, level)

    def _value(self, subject: str, name: str, level: Level) -> str | None:
        fact = self._facts.get(subject, {}).get(name)
        return fact.value if fact and fact.level <= level else None

    def _meeting(self, name: str, question: Question, level: Level) -> set[str]:
        attribute = self._catalogue[name]
        return set().union(*(_meeting(attribute, question, posting) for posting in self._visible(name, level)))

    def _asked(self, criteria: Criteria, level: Level) -> set[str]:
        return set.intersection(
            *(self._having(name, level) for name in {test.attribute for test in each_criterion(criteria)})
        )

    def _having(self, name: str, level: Level) -> set[str]:
        return set().union(*(set().union(*posting.values()) for posting in self._visible(name, level)))

    def _visible(self, name: str, level: Level) -> Iterable[_Values]:
        return [self._postings[name, at] for at in Level if at <= level and (name, at) in self._postings]


class Order:
    """
    Whoever meets criteria, in an order of their own, kept in step with the index.

    To look for everybody for each page would cost a large audience more than all the rest. ``place`` says where a subject stands.
    :meth:`make` is for any thread, the others are for the index's own.
    """

    def __init__(self, index: Index, criteria: Criteria, level: Level, place: Callable[[str], bytes]) -> None:
        self._index, self._criteria, self._level, self._place = index, criteria, level, place
        self._touched: set[str] = set()
        self._subjects: list[str] = []
        self._is_served = False
        index.keep(self)

    def __len__(self) -> int:
        return len(self._subjects)

    def make(self) -> None:
        """Find everybody and put them in order. To be called once; who changes meanwhile is behind, and to be renewed."""
        self._subjects = sorted(self._index.find(self._criteria, self._level), key=self._place)

    def touch(self, subject: str) -> None:
        """Hear that a subject changes. Once it is served, who is far behind is made anew, and needs to hear of no more."""
        if not (self._is_served and self.is_far_behind()):
            self._touched.add(subject)

    def is_far_behind(self) -> bool:
        """Whether so many have changed that the next page would keep others waiting."""
        return len(self._touched) > _MOST_TOUCHED

    def behind(self, place: bytes, most: int) -> list[str]:
        """The first so many of those behind a place who meet the criteria now; not of an order that is far behind."""
        for subject in self.changed():
            self.renew(subject)
        self._is_served = True
        start = bisect_right(self._subjects, place, key=self._place)
        return self._subjects[start : start + most]

    def changed(self) -> set[str]:
        """Those who have changed since this was asked, all of whom are to be renewed now."""
        changed, self._touched = self._touched, set()
        return changed

    def renew(self, subject: str) -> None:
        """Put a subject in or take it out, as it meets the criteria now."""
        at = bisect_left(self._subjects, self._place(subject), key=self._place)
        is_there = self._subjects[at : at + 1] == [subject]
        if self._index.meets(subject, self._criteria, self._level):
            if not is_there:
                self._subjects.insert(at, subject)
        elif is_there:
            del self._subjects[at]


def _meeting(attribute: Attribute, question: Question, posting: _Values) -> set[str]:
    match question:
        case OneOf(values):
            return set().union(*(posting.get(value, ()) for value in values))
        case Range():
            return set().union(*(who for value, who in posting.copy().items() if answer(attribute, question, value)))


def order_of(key: bytes, exchange: str, subject: str) -> bytes:
    """Where a candidate stands among those of one exchange: 32 bytes that say nothing without the key (BLAKE2b, RFC 7693)."""
    return hashlib.blake2b(pae(exchange, subject), digest_size=32, key=key, person=b"parley/order/v1").digest()
