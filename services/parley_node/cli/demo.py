"""`parley demo`: a story a newcomer can watch."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from parley_node.cli.calls import alone
from parley_node.cli.options import HomeOption
from parley_node.cli.stop import Stop
from parley_node.demo.story import Source, Story, fresh
from parley_node.embedded.errors import ServersUnavailable
from parley_node.home import Home
from parley_node.importing.mapping import MappingInvalid, read_mapping
from parley_node.node import check_settings
from parley_rpc.settings import SettingsWrong

app = typer.Typer(add_completion=False)


@app.command()
def demo(
    customers: Annotated[
        Path | None, typer.Option(help="A CSV file of customers; without it they are made up.")
    ] = None,
    mapping: Annotated[Path | None, typer.Option(help="What its columns mean, and what the campaign asks.")] = None,
    *,
    home: HomeOption = None,
) -> None:
    """
    Watch an exchange: a population imported, a campaign, consents, sealed releases, a withdrawal, receipts.

    Everything is real but the people; it lives in HOME/demo, which is made anew each time.
    """
    if (customers is None) != (mapping is None):
        raise Stop("a file of customers and its mapping go together", "Give both --customers and --mapping.")
    source = Source(customers, mapping) if customers and mapping else None
    told = fresh(Home.choose(home))
    try:
        check_settings(told)  # before what an earlier telling left is gone
        if source:
            read_mapping(source.mapping)
        with alone(told, ": the demo makes its home anew"):
            asyncio.run(Story(told, Console(), source).tell())
    except MappingInvalid as error:
        raise Stop(str(error), "Nothing was imported: correct the file or its mapping.") from error
    except ServersUnavailable as error:
        raise Stop(str(error)) from error
    except SettingsWrong as error:
        raise Stop(str(error), "Correct it in the environment, or unset it there.") from error
