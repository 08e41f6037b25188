"""The catalogue of attributes: the package's own, and what the operator adds."""

import re
import tomllib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from parley_rpc.settings import SettingsWrong
from parley_terms.terms import Level
from parley_terms.values import Attribute, Catalogue, ValueInvalid, ValueType, canonical

_NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)+")
_LONGEST_NAME = 64


class CatalogueInvalid(SettingsWrong):
    """A catalogue file is not one: the message names the file and the attribute."""


def load(additions: Path | None = None) -> Catalogue:
    """Read the package's catalogue, by name, and add to it. Raises CatalogueInvalid; an addition can't change what is there."""
    own = parse(files("parley_vault").joinpath("catalogue.toml").read_text("utf-8"), "catalogue.toml")
    added = _read(additions) if additions else {}
    if twice := sorted(own.keys() & added.keys()):
        raise CatalogueInvalid(f"{additions}: {twice[0]} is in Parley's own catalogue; choose another name")
    return dict(sorted((own | added).items()))


def _read(path: Path) -> dict[str, Attribute]:
    try:
        return parse(path.read_text("utf-8"), str(path))
    except OSError as error:
        raise CatalogueInvalid(f"{path}: can't be read") from error


def parse(text: str, source: str) -> dict[str, Attribute]:
    """Read a catalogue file: a table for each attribute. Raises CatalogueInvalid."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise CatalogueInvalid(f"{source}: {error}") from error
    return {name: _attribute(name, table, f"{source}: {name}") for name, table in tables.items()}


def _attribute(name: str, table: Mapping[str, Any], where: str) -> Attribute:
    if not _NAME.fullmatch(name) or len(name) > _LONGEST_NAME:
        raise CatalogueInvalid(f'{where} is no name of an attribute, such as ["profile.age"]')
    try:
        attribute = Attribute(name, **{key: _setting(key, value) for key, value in table.items()})
        _check(attribute)
    except (TypeError, KeyError, ValueError, re.error) as error:
        raise CatalogueInvalid(f"{where} is not described well: {error}") from error
    return attribute


def _setting(key: str, value: Any) -> Any:
    match key:
        case "type":
            return ValueType[value]
        case "least_level":
            return Level[value]
        case "choices":
            return tuple(sorted(value))
        case "min" | "max":
            return str(value)
    return value


def _check(attribute: Attribute) -> None:
    """Raise ValueError or re.error for what no value could ever meet."""
    re.compile(attribute.pattern)
    if (attribute.type is ValueType.CHOICE) != bool(attribute.choices):
        raise ValueInvalid("a CHOICE has choices, and nothing else has")
    for bound in filter(None, (attribute.min, attribute.max)):
        canonical(attribute, bound)
