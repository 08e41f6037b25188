"""Options that several commands share."""

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from parley_node.cli import hints
from parley_node.services import SERVICES

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,40}")


class LevelName(StrEnum):
    """How far a marketer was checked, in words."""

    UNVERIFIED = "unverified"
    VERIFIED = "verified"
    ACCREDITED = "accredited"

    @property
    def number(self) -> int:
        """As on the wire, ``VerificationLevel``."""
        return list(LevelName).index(self) + 1


def level_text(number: int) -> str:
    """Write a ``VerificationLevel`` as a word; 0 is nobody's."""
    return str(list(LevelName)[number - 1]) if number else "nobody"


ServiceName = StrEnum("ServiceName", {name.upper(): name for name in SERVICES})  # type: ignore[misc] # names of services


def _customer(name: str) -> str:
    return _file_name("customer", name)


def _marketer(name: str) -> str:
    return _file_name("marketer", name)


def _file_name(group: str, name: str) -> str:
    if not _NAME.fullmatch(name):
        raise typer.BadParameter("a name of letters, digits, - and _: it names a file on this machine")
    hints.known_as(group, name)
    return name


MOST_DAYS = 36_500
"""A hundred years: no calendar ends before."""


def _directory(text: str) -> Path:
    if not text:  # of a variable that isn't set: it would be wherever the command is typed
        raise typer.BadParameter("names no directory")
    hints.at_home(text)
    return Path(text)


HomeOption = Annotated[
    Path | None,
    typer.Option(
        "--home", metavar="PATH", parser=_directory, help="Parley's home.", show_default="$PARLEY_HOME, else ~/.parley"
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, with full names.")]
CustomerOption = Annotated[
    str, typer.Option("--as", metavar="NAME", callback=_customer, help="Which customer of this home to be.")
]
MarketerOption = Annotated[
    str, typer.Option("--as", metavar="NAME", callback=_marketer, help="Which marketer of this home to be.")
]
