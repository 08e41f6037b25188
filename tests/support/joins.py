"""Attacks that join pseudonyms: what two who pool what they have could try."""

import json
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from parley_crypto.jws import unverified_claims

Pairs = Mapping[str, str]
"""Who is who: a pseudonym at one marketer, and the same customer's at the other."""


@dataclass(frozen=True)
class Known:
    """
    What one side has of one pseudonym: artefacts as bytes, and numbers by name.

    ``numbers`` are places in an order, moments and sizes: an attack pairs those that are closest.
    """

    pseudonym: str
    artefacts: Sequence[bytes] = field(repr=False)
    numbers: Mapping[str, float] = field(default_factory=dict)


def by_bytes(ours: Sequence[Known], theirs: Sequence[Known], length: int) -> Pairs:
    """
    Pair by substrings of so many bytes that each side has of one pseudonym alone.

    Whoever shares most is taken; where nothing is shared, or several share as much, one is drawn.
    """
    left, right = _telling(ours, length), _telling(theirs, length)
    shared: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for piece in left.keys() & right.keys():
        shared[left[piece]][right[piece]] += 1
    everyone = [known.pseudonym for known in theirs]
    return {known.pseudonym: _best(shared[known.pseudonym], everyone) for known in ours}


def _best(scores: Mapping[str, int], everyone: Sequence[str]) -> str:
    most = max(scores.values(), default=0)
    return random.choice([name for name, score in scores.items() if score == most] if most else everyone)


def _telling(side: Iterable[Known], length: int) -> dict[bytes, str]:
    """Substrings found with one pseudonym of the side only: the others are constants, or say nothing."""
    owner: dict[bytes, str] = {}
    for known in side:
        for piece in _shingles(known.artefacts, length):
            owner[piece] = known.pseudonym if owner.get(piece, known.pseudonym) == known.pseudonym else ""
    return {piece: name for piece, name in owner.items() if name}


def _shingles(artefacts: Iterable[bytes], length: int) -> set[bytes]:
    return {data[i : i + length] for data in artefacts for i in range(len(data) - length + 1)}


def by_number(name: str) -> Callable[[Sequence[Known], Sequence[Known]], Pairs]:
    """Pair whoever is closest by a number; several as close: one is drawn."""

    def attack(ours: Sequence[Known], theirs: Sequence[Known]) -> Pairs:
        return {known.pseudonym: _closest(known.numbers[name], theirs, name) for known in ours}

    return attack


def _closest(number: float, theirs: Sequence[Known], name: str) -> str:
    distance = min(abs(known.numbers[name] - number) for known in theirs)
    return random.choice([known.pseudonym for known in theirs if abs(known.numbers[name] - number) == distance])


def right(found: Pairs, truth: Pairs) -> int:
    """How many pairs are right."""
    return sum(truth[ours] == theirs for ours, theirs in found.items())


def renamed(side: Iterable[Known], names: Pairs) -> list[Known]:
    """The same side, had its pseudonyms been the other's: what a marketer-independent pseudonym would give away."""
    return [
        Known(
            known.pseudonym,
            [data.replace(known.pseudonym.encode(), names[known.pseudonym].encode(), -1) for data in known.artefacts],
            known.numbers,
        )
        for known in side
    ]


def texts(jws: str) -> Iterator[bytes]:
    """A signed statement as it is, and what it says."""
    yield jws.encode()
    yield json.dumps(unverified_claims(jws), sort_keys=True).encode()
