"""
A mapping: what the columns of a CSV file mean.

A TOML file: ``import`` names the import, ``key`` is the column that tells rows apart (or ``row number``), ``absent`` lists what
stands for no value; each ``[columns.NAME]`` names an ``attribute``, and may add ``values`` (theirs to ours), ``absent`` (of its
own) and ``provenance`` (``imported`` or ``observed``). ``[campaign]`` says what the demo asks.
"""

import csv
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from parley_terms.values import Catalogue, ValueInvalid, canonical

ROW_NUMBER = "row number"
_PROVENANCES = frozenset({"imported", "observed"})


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
        table = tomllib.loads(path.read_text("utf-8"))
        return ColumnMapping(
            name=table["import"],
            key=table.get("key", ROW_NUMBER),
            absent=frozenset(table.get("absent", [""])),
            columns=tuple(_column(name, entry) for name, entry in table["columns"].items()),
            campaign=_campaign(table["campaign"]) if "campaign" in table else None,
        )
    except OSError as error:
        raise MappingInvalid(f"{path}: can't be read ({error.strerror})") from error
    except KeyError as error:
        raise MappingInvalid(f"{path}: {error} is missing; examples/bank-marketing.toml shows a whole one") from error
    except (tomllib.TOMLDecodeError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise MappingInvalid(f"{path}: {error}") from error


def _column(name: str, entry: Mapping[str, Any]) -> Column:
    if unknown := sorted(set(entry) - {"attribute", "provenance", "values", "absent"}):
        raise MappingInvalid(f"column {name}: unknown setting {', '.join(unknown)}")
    if entry.get("provenance", "imported") not in _PROVENANCES:
        raise MappingInvalid(f"column {name}: provenance is imported or observed")
    return Column(
        name=name,
        attribute=entry["attribute"],
        provenance=entry.get("provenance", "imported"),
        values=entry.get("values", {}),
        absent=frozenset(entry.get("absent", [])),
    )


def _campaign(entry: Mapping[str, Any]) -> Campaign:
    return Campaign(entry["text"], tuple(entry["purposes"]), tuple(entry["ask"]), tuple(entry["where"]))


def read_rows(path: Path, mapping: ColumnMapping, catalogue: Catalogue) -> tuple[list[Row], list[Problem]]:
    """
    Read a whole file: its good rows, and every problem by line.

    Raises MappingInvalid where columns or attributes are missing altogether.
    """
    _check_attributes(mapping, catalogue)
    rows, problems, seen = [], [], set()
    for line, key, record in _records(path, mapping):
        cells, wrong = _cells(line, record, mapping, catalogue)
        if key in seen:
            wrong.append(Problem(line, mapping.key, "this key was used in an earlier line"))
        seen.add(key)
        problems += wrong
        if not wrong:
            rows.append(Row(key, cells))
    return rows, problems


def _check_attributes(mapping: ColumnMapping, catalogue: Catalogue) -> None:
    for column in mapping.columns:
        if column.attribute not in catalogue:
            raise MappingInvalid(
                f"column {column.name}: {column.attribute} is not in the catalogue; see `parley attributes`"
            )


def _records(path: Path, mapping: ColumnMapping) -> Iterator[tuple[int, str, Mapping[str, str]]]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            _check_columns(path, mapping, reader.fieldnames or ())
            for number, record in enumerate(reader, start=1):
                key = str(number) if mapping.key == ROW_NUMBER else (record[mapping.key] or "")
                yield reader.line_num, key, record
    except OSError as error:
        raise MappingInvalid(f"{path}: can't be read ({error.strerror})") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise MappingInvalid(f"{path}: not a UTF-8 CSV file") from error


def _check_columns(path: Path, mapping: ColumnMapping, names: Sequence[str]) -> None:
    wanted = {column.name for column in mapping.columns} | ({mapping.key} - {ROW_NUMBER})
    if missing := sorted(wanted - set(names)):
        raise MappingInvalid(f"{path}: no column {', '.join(missing)}")


def _cells(
    line: int, record: Mapping[str, str], mapping: ColumnMapping, catalogue: Catalogue
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
