"""
A population that never was: seeded, plausible, correlated.

Age shapes education and family, education and age shape work, work shapes income, age and income shape loans and interests.
"""

import csv
import random
from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from pathlib import Path

_TODAY = date(2026, 11, 1)  # fixed, so that one seed is one population
_CITIES = ("Amsterdam", "Berlin", "Dublin", "Lisbon", "Ljubljana", "Lyon", "Milan", "Porto", "Tallinn", "Vienna")
_BASE_INCOME: Mapping[str, int] = {
    "administration": 31_000,
    "blue-collar": 27_000,
    "entrepreneur": 52_000,
    "management": 61_000,
    "retired": 22_000,
    "self-employed": 42_000,
    "services": 26_000,
    "student": 9_000,
    "technician": 38_000,
    "unemployed": 12_000,
}
_INTERESTS: Mapping[str, tuple[float, float]] = {
    # name: how likely at 20, how likely at 80
    "cooking": (0.35, 0.45),
    "gaming": (0.60, 0.05),
    "gardening": (0.05, 0.60),
    "hiking": (0.30, 0.40),
    "music": (0.65, 0.40),
    "technology": (0.55, 0.15),
    "travel": (0.50, 0.35),
}
COLUMNS = (
    "customer", "age", "education", "job", "marital", "city", "income", "housing_loan", "personal_loan", "channel",
    *_INTERESTS, "purchases", "last_purchase",
)  # fmt: skip


def write_population(path: Path, count: int, seed: int) -> None:
    """Write ``count`` customers as a CSV file. The same seed writes the same file."""
    dice = random.Random(seed)  # noqa: S311 - a story, not a secret
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([f"c{number:05}", *_person(dice)] for number in range(1, count + 1))


def _person(dice: random.Random) -> list[str]:
    age = min(92, max(18, round(dice.triangular(18, 92, 36))))
    education = _education(dice, age)
    job = _job(dice, age, education)
    income = round(_BASE_INCOME[job] * dice.lognormvariate(0, 0.25) * (0.8 + 0.2 * min(age, 60) / 40), -2)
    housing = dice.random() < (0.5 if 28 <= age <= 60 else 0.12)
    personal = dice.random() < (0.28 if income < 30_000 else 0.14)
    purchases = min(200, int(dice.expovariate(1 / (2 + income / 8_000))))
    last = _TODAY - timedelta(days=int(dice.expovariate(1 / 60))) if purchases else None
    return [
        str(age), education, job, _marital(dice, age), dice.choice(_CITIES), str(int(income)),
        _yes(housing), _yes(personal), _channel(dice, age),
        *(_yes(dice.random() < _between(young, old, age)) for young, old in _INTERESTS.values()),
        str(purchases), last.isoformat() if last else "",
    ]  # fmt: skip


def _education(dice: random.Random, age: int) -> str:
    university = 0.42 if 24 <= age < 50 else 0.16
    names = ("university-degree", "professional-course", "high-school", "basic-9-years")
    return _weighted(dice, names, (university, 0.2, 0.3, 0.5 - university))


def _job(dice: random.Random, age: int, education: str) -> str:
    if age >= 67 or (age > 60 and dice.random() < 0.4):
        return "retired"
    if age < 25 and dice.random() < 0.5:
        return "student"
    if education == "university-degree":
        names = ("management", "technician", "administration", "self-employed", "entrepreneur", "unemployed")
        return _weighted(dice, names, (0.33, 0.27, 0.2, 0.1, 0.06, 0.04))
    names = ("blue-collar", "services", "technician", "administration", "self-employed", "unemployed")
    return _weighted(dice, names, (0.33, 0.23, 0.18, 0.12, 0.07, 0.07))


def _marital(dice: random.Random, age: int) -> str:
    if age < 25:
        return _weighted(dice, ("single", "partnered"), (0.8, 0.2))
    return _weighted(
        dice,
        ("married", "single", "partnered", "divorced", "widowed"),
        (0.5, _between(0.35, 0.05, age), 0.12, 0.12, 0.3 if age > 70 else 0.01),
    )


def _channel(dice: random.Random, age: int) -> str:
    names = ("cellular", "email", "sms", "telephone", "post")
    return _weighted(
        dice, names, (0.4, 0.3, _between(0.3, 0.02, age), _between(0.02, 0.35, age), _between(0.0, 0.2, age))
    )


def _between(at_20: float, at_80: float, age: int) -> float:
    return at_20 + (at_80 - at_20) * min(max(age - 20, 0), 60) / 60


def _weighted(dice: random.Random, names: Sequence[str], weights: Sequence[float]) -> str:
    return dice.choices(names, weights)[0]


def _yes(value: bool) -> str:
    return "yes" if value else "no"
