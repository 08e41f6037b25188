from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from parley_node.importing.mapping import (
    ROW_NUMBER,
    Cell,
    Column,
    MappingInvalid,
    Problem,
    Row,
    read_mapping,
    read_rows,
)
from parley_node.importing.run import Codes, CodesFile
from parley_vault.catalogue import load

CATALOGUE = load()
ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "examples" / "bank-marketing.toml"
DEMO = ROOT / "services" / "parley_node" / "demo" / "population.toml"
SECRET = "Zürp-4711"
MAPPING = """
import = "shop"
key = "id"
absent = ["", "n/a"]

[columns.age]
attribute = "profile.age"
absent = ["999"]

[columns.town]
attribute = "profile.city"

[columns.likes]
attribute = "interest.hiking"
provenance = "observed"
values = { walks = "yes", sits = "no" }
"""


def mapping_file(folder: Path, text: str = MAPPING) -> Path:
    path = folder / "mapping.toml"
    path.write_text(text)
    return path


def read(folder: Path, data: str | bytes, mapping: str = MAPPING) -> tuple[list[Row], list[Problem]]:
    path = folder / "customers.csv"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return read_rows(path, read_mapping(mapping_file(folder, mapping)), CATALOGUE)


def cells(row: Row) -> dict[str, str]:
    return {cell.attribute: cell.value for cell in row.cells}


def places(problems: list[Problem]) -> list[tuple[int, str]]:
    return [(problem.line, problem.column) for problem in problems]


def test_mapping_is_read_whole(tmp_path: Path) -> None:
    mapping = read_mapping(mapping_file(tmp_path))

    assert ("shop", "id", frozenset({"", "n/a"}), None) == (mapping.name, mapping.key, mapping.absent, mapping.campaign)
    assert (
        Column("age", "profile.age", absent=frozenset({"999"})),
        Column("town", "profile.city"),
        Column("likes", "interest.hiking", "observed", {"walks": "yes", "sits": "no"}),
    ) == mapping.columns


def test_rows_are_numbered_and_empty_cells_absent_where_nothing_else_is_said(tmp_path: Path) -> None:
    mapping = read_mapping(mapping_file(tmp_path, 'import = "shop"\n[columns.age]\nattribute = "profile.age"'))

    assert (ROW_NUMBER, frozenset({""})) == (mapping.key, mapping.absent)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('import = "shop"', "", "'import' is missing"),
        ('import = "shop"', "import = 5", "import is a text"),
        ('key = "id"', "key = 5", "key is a text"),
        ('key = "id"', 'kye = "id"', "unknown setting kye"),
        ('absent = ["", "n/a"]', 'absent = "n/a"', "absent is a list of texts"),
        ('absent = ["", "n/a"]', "absent = [5]", "each of absent is a text"),
        ('absent = ["999"]', "absent = 999", "column age: absent is a list"),
        ('attribute = "profile.age"', "", "column age: its attribute is missing"),
        ('attribute = "profile.age"', "attribute = 5", "column age: attribute is a text"),
        ('attribute = "profile.age"', 'attribut = "profile.age"', "column age: unknown setting attribut"),
        ('"profile.age"', '"profile.city"', "more than one column is profile.city"),
        ('"observed"', '"verified"', "column likes: provenance is imported or observed"),
        ('sits = "no"', "sits = 0", "column likes: each of values is a text"),
        ('{ walks = "yes", sits = "no" }', '["yes"]', "column likes: values is a table"),
        ("[columns.age]", "[columns]\nage = 5\n[columns.other]", "column age is a table"),
        ("[columns.age]", "[[columns]]", "columns"),
        ("[columns.age]", "[campaign]\n[columns.age]", "'purposes' is missing"),
        ("[columns.age]", "[columns.age", "Expected"),
    ],
)
def test_mapping_that_is_wrong_says_where_and_what_is_expected(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert 1 == MAPPING.count(old)
    with pytest.raises(MappingInvalid, match=says) as refused:
        read_mapping(mapping_file(tmp_path, MAPPING.replace(old, new)))
    assert str(refused.value).startswith(str(tmp_path / "mapping.toml"))


def test_campaign_that_is_wrong_says_what_is_expected(tmp_path: Path) -> None:
    campaign = '[campaign]\ntext = "t"\npurposes = "Marketing"\nask = []\nwhere = []\n'

    with pytest.raises(MappingInvalid, match="campaign: purposes is a list of texts"):
        read_mapping(mapping_file(tmp_path, MAPPING + campaign))


def test_mapping_without_columns_or_file_or_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MappingInvalid, match=r"'columns' is missing; examples/bank-marketing\.toml"):
        read_mapping(mapping_file(tmp_path, 'import = "shop"'))
    with pytest.raises(MappingInvalid, match="can't be read"):
        read_mapping(tmp_path / "none.toml")
    (tmp_path / "bytes.toml").write_bytes(b"\xff")
    with pytest.raises(MappingInvalid, match=r"bytes\.toml"):
        read_mapping(tmp_path / "bytes.toml")


@pytest.mark.parametrize("path", [EXAMPLE, DEMO], ids=lambda path: path.name)
def test_our_own_mappings_fit_the_catalogue(path: Path, tmp_path: Path) -> None:
    mapping = read_mapping(path)
    header = [*{column.name for column in mapping.columns} | ({mapping.key} - {ROW_NUMBER})]
    (tmp_path / "customers.csv").write_text(",".join(header) + "\n")

    assert ([], []) == read_rows(tmp_path / "customers.csv", mapping, CATALOGUE)
    for column in mapping.columns:
        attribute = CATALOGUE[column.attribute]
        assert {*column.values.values()} <= {*attribute.choices} | {"yes", "no"}
    assert mapping.campaign
    assert {*mapping.campaign.ask} <= {column.attribute for column in mapping.columns}


def test_rows_are_read_in_canonical_text_with_where_each_value_came_from(tmp_path: Path) -> None:
    rows, problems = read(tmp_path, "likes,id,age,other,town\nwalks,c1,042,x, Zürich \nno,c2,7,y,Rome\n")

    assert [] == problems
    assert (
        Cell("profile.age", "42"),
        Cell("profile.city", "Zürich"),
        Cell("interest.hiking", "true", "observed"),
    ) == rows[0].cells
    assert ["c1", "c2"] == [row.key for row in rows]
    assert {"profile.age": "7", "profile.city": "Rome", "interest.hiking": "false"} == cells(rows[1])


def test_absent_values_are_left_out_each_column_by_its_own(tmp_path: Path) -> None:
    rows, problems = read(tmp_path, "id,age,town,likes\nc1,999,999,n/a\nc2,n/a,,sits\nc3,,n/a,\n")

    assert [] == problems
    assert [{"profile.city": "999"}, {"interest.hiking": "false"}, {}] == [cells(row) for row in rows]


def test_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    rows, problems = read(tmp_path, b"\xef\xbb\xbfid,age,town,likes\r\nc1,1,Rome,yes\r\n")

    assert ([], ["c1"]) == (problems, [row.key for row in rows])


def test_rows_without_keys_are_known_by_their_numbers(tmp_path: Path) -> None:
    by_number = MAPPING.replace('"id"', f'"{ROW_NUMBER}"')
    rows, problems = read(tmp_path, "age,town,likes\n1,Rome,yes\n\n2,old,many\n3,Rome,yes\n", by_number)

    assert ["1", "3"] == [row.key for row in rows]
    assert [(4, "likes")] == places(problems)


def test_columns_that_are_not_there_are_named_and_so_are_twins(tmp_path: Path) -> None:
    with pytest.raises(MappingInvalid, match="no column id, likes"):
        read(tmp_path, "age,town\n1,Rome\n")
    with pytest.raises(MappingInvalid, match="no column age, id, likes, town"):
        read(tmp_path, "")
    with pytest.raises(MappingInvalid, match="more than one column age"):
        read(tmp_path, "id,age,town,likes,age\n")
    assert ([], []) == read(tmp_path, "id,age,town,likes,other,other\n")


def test_attribute_that_is_not_in_the_catalogue_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        MappingInvalid, match=r"column age: profile\.shoe is not in the catalogue; see `parley attributes`"
    ):
        read(tmp_path, "id\n", MAPPING.replace("profile.age", "profile.shoe"))


def test_key_is_used_once_and_is_neither_empty_nor_long(tmp_path: Path) -> None:
    lines = ["id,age,town,likes", "c1,1,Rome,yes", ",2,Rome,yes", f"{'k' * 129},3,Rome,yes", "c1,4,Rome,yes"]
    rows, problems = read(tmp_path, "\n".join([*lines, f"{'k' * 128},5,Rome,yes"]))

    assert ["c1", "k" * 128] == [row.key for row in rows]
    assert [(3, "id"), (4, "id"), (5, "id")] == places(problems)
    assert [
        "the line has no key",
        "a key has 128 characters at most",
        "this key was used in an earlier line",
    ] == [problem.says for problem in problems]


def test_key_of_a_bad_line_is_used_up_as_well(tmp_path: Path) -> None:
    rows, problems = read(tmp_path, "id,age,town,likes\nc1,old,Rome,yes\nc1,1,Rome,yes\n")

    assert ([], [(2, "age"), (3, "id")]) == (rows, places(problems))


def test_short_and_long_lines_are_named(tmp_path: Path) -> None:
    rows, problems = read(tmp_path, "id,age,town,likes\nc1,1\nc2,1,Rome,yes,more,still\nc3,1,Rome,yes\n")

    assert ["c3"] == [row.key for row in rows]
    assert [(2, "town"), (2, "likes"), (3, "(none)")] == places(problems)
    assert ["the line is too short"] * 2 + ["the line is too long"] == [problem.says for problem in problems]


@pytest.mark.parametrize(
    ("row", "column"),
    [
        (f"c1,{SECRET},Rome,yes", "age"),
        (f"c1,1,{SECRET}\x01,yes", "town"),
        (f"c1,1,{SECRET * 40},yes", "town"),
        (f"c1,1,Rome,{SECRET}", "likes"),
        (f"{SECRET},1,Rome,yes\n{SECRET},1,Rome,yes", "id"),
        (f"{SECRET * 40},1,Rome,yes", "id"),
        (f"c1,1,Rome,yes,{SECRET}", "(none)"),
    ],
)
def test_problem_names_the_line_and_the_column_and_never_what_stands_there(
    tmp_path: Path, row: str, column: str
) -> None:
    _, (problem,) = read(tmp_path, f"id,age,town,likes\nc0,1,Rome,yes\n{row}\n")

    assert (2 + len(row.splitlines()), column) == (problem.line, problem.column)
    assert str(problem).startswith(f"line {problem.line}, column {column}: ")
    assert SECRET not in str(problem)


def test_line_of_a_problem_is_where_its_record_starts(tmp_path: Path) -> None:
    lines = [
        "id,age,town,likes",
        "",
        'c1,1,"New',
        "",
        'York",yes',
        "c2,old,Rome,yes",
        'c3,old,"a',
        'b",yes',
        "c4,old,Rome,yes",
    ]
    for ending in ("\n", "\r\n", "\r"):
        _, problems = read(tmp_path, ending.join(lines) + ending)

        assert [(3, "town"), (6, "age"), (7, "age"), (7, "town"), (9, "age")] == places(problems)


def test_every_problem_of_a_file_is_told(tmp_path: Path) -> None:
    rows, problems = read(tmp_path, "id,age,town,likes\n" + "".join(f"c{n},old,Rome,{n}\n" for n in range(2, 50)))

    assert ([], 96) == (rows, len(problems))


@pytest.mark.parametrize(
    "data", [b"id,age,town,likes\n\xff,1,Rome,yes\n", b"\xff\xfe", b'id,age,town,likes\n"' + b"x" * 140_000]
)
def test_file_that_is_no_csv_in_utf8_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(MappingInvalid, match=r"customers\.csv: not a UTF-8 CSV file"):
        read(tmp_path, data)


def test_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(MappingInvalid, match="can't be read"):
        read_rows(tmp_path / "none.csv", read_mapping(mapping_file(tmp_path)), CATALOGUE)


@pytest.mark.parametrize("thing", [Cell("profile.city", SECRET), Row(SECRET, (Cell("profile.city", SECRET),))])
def test_no_value_and_no_key_is_in_any_printed_form(thing: Any) -> None:
    assert SECRET not in repr(thing)


def test_claim_codes_are_for_the_owner_alone_though_the_file_was_there_for_everyone(tmp_path: Path) -> None:
    path = tmp_path / "codes.csv"
    path.touch(0o644)
    codes = CodesFile(path)
    codes.keep(Codes({"c1": "AAAAA-BBBBB", "c,2": "CCCCC-DDDDD"}, 0))
    codes.close()

    assert 0o600 == path.stat().st_mode & 0o777
    assert 'row,claim code\nc1,AAAAA-BBBBB\n"c,2",CCCCC-DDDDD\n' == path.read_text()


def test_claim_codes_that_are_in_the_file_stay_there(tmp_path: Path) -> None:
    path = tmp_path / "codes.csv"
    for code in ("c1", "c,2"):
        codes = CodesFile(path)
        codes.keep(Codes({code: "AAAAA-BBBBB"}, 0))
        codes.close()

    with closing(CodesFile(path)) as again:
        assert {"c1", "c,2"} == again.known
    assert 3 == len(path.read_text().splitlines())


def test_claim_code_that_was_cut_short_is_none(tmp_path: Path) -> None:
    path = tmp_path / "codes.csv"
    path.write_text("row,claim code\nc1,AAAAA-BBBBB\nc2,CCC")

    with closing(CodesFile(path)) as codes:
        assert {"c1"} == codes.known
        codes.keep(Codes({"c2": "DDDDD-EEEEE"}, 0))
    assert "row,claim code\nc1,AAAAA-BBBBB\nc2,DDDDD-EEEEE\n" == path.read_text()


def test_claim_code_takes_the_place_of_an_earlier_one(tmp_path: Path) -> None:
    path = tmp_path / "codes.csv"
    path.write_text("row,claim code\nc1,AAAAA-BBBBB\nc2,CCCCC-DDDDD\n")

    with closing(CodesFile(path)) as codes:
        codes.keep(Codes({"c1": "EEEEE-FFFFF"}, 1))
    assert "row,claim code\nc1,EEEEE-FFFFF\nc2,CCCCC-DDDDD\n" == path.read_text()
    assert [path] == list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["id,city\n1,Rome\n", "row,claim code\nc1\n", "notes"])
def test_claim_codes_are_not_added_to_another_kind_of_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "customers.csv"
    path.write_text(text)
    path.chmod(0o644)

    with pytest.raises(ValueError, match="holds no claim codes"):
        CodesFile(path)
    assert (text, 0o644) == (path.read_text(), path.stat().st_mode & 0o777)
