"""`parley attributes`: the catalogue."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from parley_client.connection import Connection
from parley_client.errors import ParleyError
from parley_node.cli import show
from parley_node.cli.options import HomeOption, JsonOption, level_text
from parley_node.home import Home, NotRunning
from parley_node.people import catalogue
from parley_terms.values import Attribute, Catalogue
from parley_vault.catalogue import load

app = typer.Typer(add_completion=False)


@app.command()
def attributes(
    prefix: Annotated[str, typer.Argument(help="Only names that begin so, such as profile.")] = "",
    *,
    as_json: JsonOption = False,
    home: HomeOption = None,
) -> None:
    """Print the catalogue: the running one, with what its operator added, or else the one that comes with Parley."""
    found = [each for name, each in sorted(asyncio.run(_catalogue(home)).items()) if name.startswith(prefix)]
    show.rows([_row(each) for each in found], as_json=as_json, empty=f"No attribute begins with {prefix!r}.")


async def _catalogue(home: Path | None) -> Catalogue:
    try:
        async with Connection(Home.choose(home).running().address) as connection:
            return await catalogue(connection)
    except (NotRunning, ParleyError):
        return load()


def _row(attribute: Attribute) -> show.Row:
    return {
        "name": attribute.name,
        "type": attribute.type.name.lower(),
        "values": _values(attribute),
        "least_level": level_text(attribute.least_level),
        "description": attribute.description,
    }


def _values(attribute: Attribute) -> str:
    bounds = f"{attribute.min or '...'} to {attribute.max or '...'}" if attribute.min or attribute.max else ""
    parts = (", ".join(attribute.choices), bounds, attribute.unit, attribute.pattern)
    return " ".join(part for part in parts if part)
