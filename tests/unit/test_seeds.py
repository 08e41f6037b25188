"""Whether draws can be had again."""

from collections import Counter

import pytest

from tests.support import seeds
from tests.support.seeds import VARIABLE, seeded


@pytest.fixture(autouse=True)
def new_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process in which nobody has drawn."""
    monkeypatch.setenv(VARIABLE, "")
    monkeypatch.setattr(seeds, "_drawn", Counter())


def draws(name: str = "") -> list[int]:
    rng = seeded(name)
    return [rng.randrange(1_000_000) for _ in range(5)]


def test_a_seed_draws_the_same_for_a_test_whichever_others_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "7")
    alone = draws("kills")
    seeds._drawn.clear()
    draws("races")
    assert alone == draws("kills")


def test_a_test_that_draws_twice_draws_anew_each_time() -> None:
    assert draws() != draws()


def test_another_seed_draws_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "7")
    seventh = draws("kills")
    monkeypatch.setenv(VARIABLE, "8")
    seeds._drawn.clear()
    assert seventh != draws("kills")


def test_the_seed_of_a_run_is_said_and_had_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = draws("kills")
    said = capsys.readouterr().out.strip().removeprefix(f"{VARIABLE}=")
    seeds._drawn.clear()
    monkeypatch.setenv(VARIABLE, said)
    assert first == draws("kills")
