import csv
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import mean

import pytest

import parley_node.demo
from parley_node.demo.population import COLUMNS, write_population
from parley_node.importing.mapping import read_mapping, read_rows
from parley_vault.catalogue import load

COUNT = 3000
MAPPING = Path(parley_node.demo.__file__).with_name("population.toml")
Person = dict[str, str]


@pytest.fixture(scope="module")
def population(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("population") / "customers.csv"
    write_population(path, COUNT, 7)
    return path


@pytest.fixture(scope="module")
def people(population: Path) -> list[Person]:
    with population.open(newline="") as file:
        return list(csv.DictReader(file))


def share(people: Iterable[Person], meets: Callable[[Person], bool]) -> float:
    return mean(meets(person) for person in people)


def aged(people: Iterable[Person], least: int, most: int) -> list[Person]:
    return [person for person in people if least <= int(person["age"]) <= most]


def test_one_seed_is_one_population(tmp_path: Path) -> None:
    texts = {}
    for name, seed in (("a", 7), ("b", 7), ("c", 8)):
        write_population(tmp_path / name, 50, seed)
        texts[name] = (tmp_path / name).read_text()

    assert texts["a"] == texts["b"]
    assert texts["a"] != texts["c"]


def test_more_people_of_one_seed_begin_with_the_same(tmp_path: Path) -> None:
    for count in (10, 20):
        write_population(tmp_path / str(count), count, 7)

    assert (tmp_path / "20").read_text().startswith((tmp_path / "10").read_text())


def test_everybody_can_be_imported(population: Path) -> None:
    mapping = read_mapping(MAPPING)
    rows, problems = read_rows(population, mapping, load())

    assert [] == problems
    assert [f"c{number:05}" for number in range(1, COUNT + 1)] == [row.key for row in rows]
    assert {*COLUMNS} == {column.name for column in mapping.columns} | {mapping.key}


def test_ages_are_those_of_adults_of_every_age(people: list[Person]) -> None:
    ages = [int(person["age"]) for person in people]

    assert 18 <= min(ages) <= max(ages) <= 92
    assert 40 < mean(ages) < 56
    assert all(aged(people, decade, decade + 9) for decade in range(20, 80, 10))


def test_old_age_is_spent_in_retirement_and_youth_in_study(people: list[Person]) -> None:
    assert 1 == share(aged(people, 67, 92), lambda person: person["job"] == "retired")
    assert 0 == share(aged(people, 18, 60), lambda person: person["job"] == "retired")
    assert 0.3 < share(aged(people, 18, 24), lambda person: person["job"] == "student") < 0.7
    assert 0 == share(aged(people, 25, 92), lambda person: person["job"] == "student")


def test_education_leads_to_work_and_work_to_income(people: list[Person]) -> None:
    working = aged(people, 25, 60)
    taught = [person for person in working if person["education"] == "university-degree"]
    others = [person for person in working if person["education"] != "university-degree"]

    assert share(taught, lambda person: person["job"] == "management") > 0.2
    assert 0 == share(others, lambda person: person["job"] == "management")
    assert mean(int(person["income"]) for person in taught) > 1.2 * mean(int(person["income"]) for person in others)


def test_loans_follow_age_and_income(people: list[Person]) -> None:
    poor, rich = ([p for p in people if (int(p["income"]) < 30_000) is low] for low in (True, False))

    assert share(aged(people, 28, 60), lambda person: person["housing_loan"] == "yes") > 0.4
    assert share(aged(people, 61, 92), lambda person: person["housing_loan"] == "yes") < 0.25
    assert share(poor, lambda person: person["personal_loan"] == "yes") > 1.4 * share(
        rich, lambda person: person["personal_loan"] == "yes"
    )


@pytest.mark.parametrize(("interest", "more"), [("gaming", "young"), ("technology", "young"), ("gardening", "old")])
def test_interests_change_with_age(people: list[Person], interest: str, more: str) -> None:
    young = share(aged(people, 18, 35), lambda person: person[interest] == "yes")
    old = share(aged(people, 65, 92), lambda person: person[interest] == "yes")

    assert (young > 1.5 * old) if more == "young" else (old > 1.5 * young)


def test_whoever_bought_nothing_has_no_last_purchase_and_nobody_buys_tomorrow(people: list[Person]) -> None:
    for person in people:
        assert (person["purchases"] == "0") == (person["last_purchase"] == "")
        assert person["last_purchase"] <= "2026-11-01"
    assert 0.02 < share(people, lambda person: person["purchases"] == "0") < 0.4


def test_families_grow_with_age(people: list[Person]) -> None:
    assert 0 == share(aged(people, 18, 24), lambda person: person["marital"] in ("married", "divorced", "widowed"))
    assert share(aged(people, 71, 92), lambda person: person["marital"] == "widowed") > 0.1


def test_campaign_of_the_demo_finds_some_and_not_most(people: list[Person]) -> None:
    campaign = read_mapping(MAPPING).campaign
    assert campaign
    assert ("interest.hiking is yes", "profile.age from 25 to 60") == campaign.where
    found = share(people, lambda person: person["hiking"] == "yes" and 25 <= int(person["age"]) <= 60)

    assert 0.1 < found < 0.5


def test_nobody_is_named(people: list[Person]) -> None:
    assert all(re.fullmatch(r"c\d{5}", person["customer"]) for person in people)
