"""
The matching index: who has which discoverable value, in memory.

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

    def forget(self, subject: str) -> None:
        """Take out everything of a subject. Every change begins with this."""
        for order in self._orders:
            order.touched.add(subject)
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

    def _meeting(self, name: str, question: Question, level: Level) -> set[str]:
        attribute = self._catalogue[name]
        return set().union(*(_meeting(attribute, question, posting) for posting in self._visible(name, level)))

    def _asked(self, criteria: Criteria, level: Level) -> set[str]:
        return set.intersection(
            *(self._having(name, level) for name in {test.attribute for test in each_criterion(criteria)})
        )

    def _having(self, name: str, level: Level) -> set[str]:
        return set().union(*(subjects for posting in self._visible(name, level) for subjects in posting.values()))

    def _visible(self, name: str, level: Level) -> Iterable[_Values]:
        return [self._postings[name, at] for at in Level if at <= level and (name, at) in self._postings]


class Order:
    """
    Whoever meets criteria, in an order of their own, kept in step with the index.

    To look for everybody for each page would cost a large audience more than all the rest. ``place`` says where a subject stands.
    :meth:`sort` is for any thread, the others are for the index's own.
    """

    def __init__(self, index: Index, criteria: Criteria, level: Level, place: Callable[[str], bytes]) -> None:
        self._index, self._criteria, self._level, self._place = index, criteria, level, place
        self.touched: set[str] = set()
        index.keep(self)
        self._subjects = list(self._find())

    def __len__(self) -> int:
        return len(self._subjects)

    def sort(self) -> None:
        """Put those who were found when it was made in order. To be called once, before anything else."""
        self._subjects.sort(key=self._place)

    def is_far_behind(self) -> bool:
        """Whether so many have changed that the next page would keep others waiting: another order can be made aside."""
        return len(self.touched) > _MOST_TOUCHED

    def behind(self, place: bytes, most: int) -> list[str]:
        """The first so many of those behind a place who meet the criteria now."""
        self._catch_up()
        start = bisect_right(self._subjects, place, key=self._place)
        return self._subjects[start : start + most]

    def _catch_up(self) -> None:
        touched, self.touched = self.touched, set()
        found = self._find() if touched else set()
        for subject in touched:
            at = bisect_left(self._subjects, self._place(subject), key=self._place)
            is_there = self._subjects[at : at + 1] == [subject]
            if subject in found and not is_there:
                self._subjects.insert(at, subject)
            elif is_there and subject not in found:
                del self._subjects[at]

    def _find(self) -> set[str]:
        return self._index.find(self._criteria, self._level)


def _meeting(attribute: Attribute, question: Question, posting: _Values) -> set[str]:
    match question:
        case OneOf(values):
            return set().union(*(posting.get(value, ()) for value in values))
        case Range():
            return set().union(*(who for value, who in posting.items() if answer(attribute, question, value)))


def order_of(key: bytes, exchange: str, subject: str) -> bytes:
    """Where a candidate stands among those of one exchange: 32 bytes that say nothing without the key (BLAKE2b, RFC 7693)."""
    return hashlib.blake2b(pae(exchange, subject), digest_size=32, key=key, person=b"parley/order/v1").digest()
