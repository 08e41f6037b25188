"""
Printing: tables for people, JSON for programs.

What others wrote (a marketer's name, an offer's words) may hold terminal codes or text that reads backwards: none of
it reaches the terminal, and none of it is read as markup.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from parley_node.cli.hints import completed

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

Row = Mapping[str, Any]
_SHOWN = 10
_WIDE = 240


def rows(found: Sequence[Row], *, as_json: bool, empty: str) -> None:
    """Print rows with the same columns; names are cut to what the command line takes in return, but not in JSON."""
    if as_json:
        print_json(found)
    elif not found:
        say(empty)
    else:
        _print_table(found)


def record(found: Row, *, as_json: bool = False) -> None:
    """Print one thing, a line for each of its parts; names stay whole."""
    if as_json:
        print_json(found)
        return
    grid = Table.grid(padding=(0, 2))
    for name, value in found.items():
        if value not in ("", None, []):
            grid.add_row(Text(_title(name), style="bold"), plain(_cell(value)))
    _console().print(grid)


def records(found: Sequence[Row], *, as_json: bool, empty: str) -> None:
    """Print one thing after the other, which may have different parts."""
    if as_json:
        print_json(found)
        return
    for row in found:
        record(row)
        say("")
    if not found:
        say(empty)


def print_json(found: Any) -> None:
    """Print JSON for a program."""
    sys.stdout.write(json.dumps(found, indent=2) + "\n")


def say(*lines: str) -> None:
    """Print lines for a person; commands in them are about the same home and people as the one at hand."""
    console = _console()
    for line in lines:
        console.print(plain(completed(line)), soft_wrap=True)


def plain(text: str) -> Text:
    """Take the text literally; what can't be printed is replaced."""
    return Text(
        "\n".join(
            "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line) for line in text.split("\n")
        )
    )


def short(name: str) -> str:
    """Cut a resource name to the first letters of its id, which the command line takes for the whole."""
    return name.rpartition("/")[2][:_SHOWN]


def moment(stamp: "Timestamp") -> str:
    """Write a moment in UTC, to the second; nothing for none."""
    return iso(stamp.ToDatetime(tzinfo=UTC)) if stamp.seconds else ""


def iso(time: datetime) -> str:
    """Write a moment in UTC, to the second."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _print_table(found: Sequence[Row]) -> None:
    """Print a table where it fits the terminal, else a block for each row: cells cut to pieces can't be read."""
    console, table = _console(), _table(found)
    if Measurement.get(console, console.options.update(max_width=_WIDE), table).maximum <= console.width:
        console.print(table)
        return
    for row in found:
        record({name: _shortened(name, value) for name, value in row.items()})
        say("")


def _table(found: Sequence[Row]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in found[0]:
        table.add_column(_title(name), overflow="fold")
    for row in found:
        table.add_row(*(plain(_cell(_shortened(name, value))) for name, value in row.items()))
    return table


def _shortened(column: str, value: Any) -> Any:
    is_name = column in {"name", "consent", "rule", "exchange"} and isinstance(value, str) and "/" in value
    return short(value) if is_name else value


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return {True: "yes", False: "no"}.get(value, str(value)) if isinstance(value, bool) else str(value)


def _title(name: str) -> str:
    return name.replace("_", " ")


def _console() -> Console:
    """As wide as the terminal; into a pipe as wide as need be."""
    return Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=_WIDE)
