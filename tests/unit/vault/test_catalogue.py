from pathlib import Path

import pytest

from parley_terms.terms import Level
from parley_terms.values import ValueType
from parley_vault.catalogue import CatalogueInvalid, load, parse


def test_own_catalogue_names_attributes_with_their_kinds_and_levels() -> None:
    catalogue = load()

    assert (ValueType.INTEGER, "years", "0", "130") == (
        catalogue["profile.age"].type,
        catalogue["profile.age"].unit,
        catalogue["profile.age"].min,
        catalogue["profile.age"].max,
    )
    sensitive = [one for one in catalogue.values() if one.name.startswith(("contact.", "finance."))]
    assert {Level.VERIFIED} == {one.least_level for one in sensitive}
    assert sorted(catalogue) == list(catalogue)
    assert all(one.description and one.category for one in catalogue.values())
    assert all(list(one.choices) == sorted(one.choices) for one in catalogue.values())


def test_operator_adds_attributes(tmp_path: Path) -> None:
    path = tmp_path / "more.toml"
    path.write_text('["shop.points"]\ntype = "INTEGER"\ndescription = "Points."\nmin = 0\n')

    assert load(path)["shop.points"].min == "0"
    assert load(path).keys() - load().keys() == {"shop.points"}


def test_operator_can_not_change_what_an_attribute_is(tmp_path: Path) -> None:
    path = tmp_path / "more.toml"
    path.write_text('["profile.age"]\ntype = "TEXT"\ndescription = "Age."\n')

    with pytest.raises(CatalogueInvalid, match=r"profile\.age is in Parley's own catalogue"):
        load(path)


@pytest.mark.parametrize(
    "text",
    [
        "x = ",
        '["age"]\ntype = "TEXT"\ndescription = ""',
        '["shop.x"]\ntype = "NUMBER"\ndescription = ""',
        '["shop.x"]\ntype = "CHOICE"\ndescription = ""',
        '["shop.x"]\ntype = "TEXT"\ndescription = ""\nchoices = ["a"]',
        '["shop.x"]\ntype = "TEXT"\ndescription = ""\npattern = "("',
        '["shop.x"]\ntype = "INTEGER"\ndescription = ""\nmin = "one"',
        '["shop.x"]\ntype = "TEXT"\ndescription = ""\ncolour = "red"',
        '["shop.x"]\ndescription = ""',
    ],
)
def test_catalogue_with_a_mistake_is_refused_by_name(text: str) -> None:
    with pytest.raises(CatalogueInvalid, match=r"^more\.toml"):
        parse(text, "more.toml")


def test_missing_catalogue_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CatalogueInvalid, match="can't be read"):
        load(tmp_path / "none.toml")
