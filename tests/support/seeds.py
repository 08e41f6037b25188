"""Draws that can be had again: one seed for a run, and of it a stream of draws for each test."""

import os
import secrets
from collections import Counter
from random import Random

VARIABLE = "PARLEY_SEED"

_drawn: Counter[str] = Counter()


def choose() -> str:
    """The run's seed: what ``PARLEY_SEED`` says, or a new one."""
    os.environ[VARIABLE] = os.environ.get(VARIABLE) or str(secrets.randbits(32))
    return os.environ[VARIABLE]


def seeded(name: str = "") -> Random:
    """
    Draws for the test that runs, or for what has a ``name`` and is shared by several.

    The same seed draws the same for the same test, whichever others run, and in whatever order. It is printed, so that a
    test that fails says how to have it again.
    """
    name = name or os.environ["PYTEST_CURRENT_TEST"].rpartition(" ")[0]
    _drawn[name] += 1
    print(f"{VARIABLE}={choose()}")
    return Random(f"{choose()} {name} {_drawn[name]}")
