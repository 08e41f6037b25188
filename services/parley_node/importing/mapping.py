"""
A mapping: what the columns of a CSV file mean.

A TOML file: ``import`` names the import, ``key`` is the column that tells rows apart (or ``row number``), ``absent`` lists what
stands for no value; each ``[columns.NAME]`` names an ``attribute``, and may add ``values`` (theirs to ours), ``absent`` (of its
own) and ``provenance`` (``imported`` or ``observed``). ``[campaign]`` says what the demo asks.
"""

import csv
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any

from parley_terms.values import Catalogue, ValueInvalid, canonical

ROW_NUMBER = "row number"
_PROVENANCES = frozenset({"imported", "observed"})
_SETTINGS = frozenset({"import", "key", "absent", "columns", "campaign"})
_COLUMN_SETTINGS = frozenset({"attribute", "provenance", "values", "absent"})
_LONGEST_KEY = 128  # characters, as identity takes them

_Record = Mapping[str | None, str | None]


class MappingInvalid(Exception):
    """The mapping file is not one, or doesn't fit the data: the message says where and what to do."""


@dataclass(frozen=True)
class Column:
    """What one column means."""

    name: str
    attribute: str
    provenance: str = "imported"
    values: Mapping[str, str] = field(default_factory=dict)
    absent: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Campaign:
    """What the demo asks of a population."""

    text: str
    purposes: tuple[str, ...]
    ask: tuple[str, ...]
    where: tuple[str, ...]


@dataclass(frozen=True)
class ColumnMapping:
    """A whole mapping."""

    name: str
    key: str
    absent: frozenset[str]
    columns: tuple[Column, ...]
    campaign: Campaign | None


@dataclass(frozen=True, slots=True)
class Cell:
    """One value of a row, in canonical text."""

    attribute: str
    value: str = field(repr=False)
    provenance: str = "imported"


@dataclass(frozen=True, slots=True)
class Row:
    """One customer of the file."""

    key: str = field(repr=False)
    cells: tuple[Cell, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong in a line; it names the column and what is expected, never the value."""

    line: int
    column: str
    says: str

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}: {self.says}"


def read_mapping(path: Path) -> ColumnMapping:
    """Read a mapping file. Raises MappingInvalid."""
    try:
        return _mapping(_table("the mapping", tomllib.loads(path.read_text("utf-8")), _SETTINGS))
    except OSError as error:
        raise MappingInvalid(f"{path}: can't be read ({error.strerror})") from error
    except KeyError as error:
        raise MappingInvalid(f"{path}: {error} is missing; examples/bank-marketing.toml shows a whole one") from error
    except (TypeError, ValueError) as error:
        raise MappingInvalid(f"{path}: {error}") from error


def _mapping(table: Mapping[str, Any]) -> ColumnMapping:
    entries = _table("columns", table["columns"])
    columns = tuple(_column(f"column {name}", name, entry) for name, entry in entries.items())
    if twice := _twice([column.attribute for column in columns]):
        raise ValueError(f"more than one column is {twice[0]}")
    return ColumnMapping(
        name=_text("import", table["import"]),
        key=_text("key", table.get("key", ROW_NUMBER)),
        absent=frozenset(_texts("absent", table.get("absent", [""]))),
        columns=columns,
        campaign=_campaign(_table("campaign", table["campaign"])) if "campaign" in table else None,
    )


def _column(where: str, name: str, given: Any) -> Column:
    entry = _table(where, given, _COLUMN_SETTINGS)
    if "attribute" not in entry:
        raise ValueError(f"{where}: its attribute is missing")
    if entry.get("provenance", "imported") not in _PROVENANCES:
        raise ValueError(f"{where}: provenance is imported or observed")
    values = _table(f"{where}: values", entry.get("values", {}))
    return Column(
        name=name,
        attribute=_text(f"{where}: attribute", entry["attribute"]),
        provenance=entry.get("provenance", "imported"),
        values={theirs: _text(f"{where}: each of values", ours) for theirs, ours in values.items()},
        absent=frozenset(_texts(f"{where}: absent", entry.get("absent", []))),
    )


def _campaign(entry: Mapping[str, Any]) -> Campaign:
    purposes, ask, where = (_texts(f"campaign: {name}", entry[name]) for name in ("purposes", "ask", "where"))
    return Campaign(_text("campaign: text", entry["text"]), purposes, ask, where)


def _table(where: str, value: Any, settings: frozenset[str] | None = None) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"{where} is a table")
    if settings is not None and (unknown := sorted(set(value) - settings)):
        raise ValueError(f"{where}: unknown setting {', '.join(unknown)}")
    return value


def _texts(where: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError(f"{where} is a list of texts")
    return tuple(_text(f"each of {where}", one) for one in value)


def _text(where: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{where} is a text, in quotes")
    return value


def _twice(names: Sequence[str]) -> list[str]:
    return sorted(name for name, count in Counter(names).items() if count > 1)


def read_rows(path: Path, mapping: ColumnMapping, catalogue: Catalogue) -> tuple[list[Row], list[Problem]]:
    """
    Read a whole file: its good rows, and every problem by line.

    Raises MappingInvalid where columns or attributes are missing altogether.
    """
    _check_attributes(mapping, catalogue)
    rows, problems = [], []
    seen: set[str] = set()
    for line, key, record in _records(path, mapping):
        cells, wrong = _cells(line, record, mapping, catalogue)
        if unusable := _unusable(key, seen):
            wrong.append(Problem(line, mapping.key, unusable))
        seen.add(key)
        problems += wrong
        if not wrong:
            rows.append(Row(key, cells))
    return rows, problems


def _unusable(key: str, seen: AbstractSet[str]) -> str:
    if not key:
        return "the line has no key"
    if len(key) > _LONGEST_KEY:
        return f"a key has {_LONGEST_KEY} characters at most"
    return "this key was used in an earlier line" if key in seen else ""


def _check_attributes(mapping: ColumnMapping, catalogue: Catalogue) -> None:
    for column in mapping.columns:
        if column.attribute not in catalogue:
            raise MappingInvalid(
                f"column {column.name}: {column.attribute} is not in the catalogue; see `parley attributes`"
            )


def _records(path: Path, mapping: ColumnMapping) -> Iterator[tuple[int, str, _Record]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            names = next(reader, [])
            _check_columns(path, mapping, names)
            for number, (line, values) in enumerate(_lines(reader), start=1):
                record = dict(zip_longest(names, values))  # None: for a name no value, or for a value no name
                yield line, str(number) if mapping.key == ROW_NUMBER else (record[mapping.key] or ""), record
    except OSError as error:
        raise MappingInvalid(f"{path}: can't be read ({error.strerror})") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise MappingInvalid(f"{path}: not a UTF-8 CSV file") from error


def _lines(reader: Any) -> Iterator[tuple[int, list[str]]]:
    """Each record that isn't blank, with the line it starts on: a value in quotes may hold line breaks."""
    start = reader.line_num + 1
    for values in reader:
        if values:
            yield start, values
        start = reader.line_num + 1


def _check_columns(path: Path, mapping: ColumnMapping, names: Sequence[str]) -> None:
    wanted = {column.name for column in mapping.columns} | ({mapping.key} - {ROW_NUMBER})
    if missing := sorted(wanted - set(names)):
        raise MappingInvalid(f"{path}: no column {', '.join(missing)}")
    if twice := [name for name in _twice(names) if name in wanted]:
        raise MappingInvalid(f"{path}: more than one column {twice[0]}")


def _cells(
    line: int, record: _Record, mapping: ColumnMapping, catalogue: Catalogue
) -> tuple[tuple[Cell, ...], list[Problem]]:
    cells, problems = [], []
    for column in mapping.columns:
        raw = record.get(column.name)
        if raw is None:
            problems.append(Problem(line, column.name, "the line is too short"))
        elif raw not in mapping.absent and raw not in column.absent:
            try:
                value = canonical(catalogue[column.attribute], column.values.get(raw, raw))
                cells.append(Cell(column.attribute, value, column.provenance))
            except ValueInvalid as error:
                problems.append(Problem(line, column.name, str(error)))
    if None in record:
        problems.append(Problem(line, "(none)", "the line is too long"))
    return tuple(cells), problems
