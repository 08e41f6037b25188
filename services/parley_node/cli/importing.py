"""`parley import`: customers from a CSV file."""

import asyncio
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from parley_node import people
from parley_node.cli import calls, show
from parley_node.cli.options import HomeOption
from parley_node.cli.stop import Stop
from parley_node.home import Home
from parley_node.importing.mapping import ColumnMapping, MappingInvalid, Problem, Row, read_mapping, read_rows
from parley_node.importing.run import Codes, CodesFile, import_customers
from parley_terms.values import Catalogue

app = typer.Typer(add_completion=False)

_SHOWN = 20


@app.command()
def importing(
    customers: Annotated[Path, typer.Argument(help="A CSV file, one customer a line.")],
    mapping: Annotated[Path, typer.Option(help="What its columns mean: see examples/bank-marketing.toml.")],
    codes: Annotated[
        Path | None,
        typer.Option(
            help="Where claim codes are written, for the owners.", show_default="beside CUSTOMERS, as NAME.codes.csv"
        ),
    ] = None,
    *,
    skip_bad_lines: Annotated[
        bool, typer.Option("--skip-bad-lines", help="Import the good lines all the same.")
    ] = False,
    renew: Annotated[
        bool, typer.Option("--renew", help="Make new codes for those who have one, too: it may have ended.")
    ] = False,
    home: HomeOption = None,
) -> None:
    """
    Import customers, and write each one's one-time claim code.

    Nothing is imported while a line is wrong. An import that was interrupted goes on when it is run again: a row is known by
    its key, and nobody is made twice. Codes that are in the file stay as they are, unless you --renew them; for a customer
    who isn't there a new one is made, and any earlier one is void. What is imported can't be matched on until its owner claims it
    and says so.
    """
    chosen, running = calls.running(home)
    written = codes or customers.with_suffix(".codes.csv")
    work = _import(chosen, running.address, customers, mapping, written, skip_bad_lines=skip_bad_lines, renew=renew)
    try:
        count, made = calls.run(work)
    except KeyboardInterrupt:
        raise Stop("the import was interrupted", "Run it again to go on.") from None
    show.say(f"{count:,} customers are imported, {len(made.made):,} of them with a new claim code.")
    if made.renewed:
        show.say(f"{made.renewed:,} had one before, which is void now.")
    show.say(f"The codes are in {written}: each is as good as the account, until it is used or has ended.")


async def _import(
    home: Home,
    address: str,
    customers: Path,
    mapping_file: Path,
    written: Path,
    *,
    skip_bad_lines: bool,
    renew: bool = False,
) -> tuple[int, Codes]:
    async with people.staff(address, home, "importer") as importer:
        mapping, rows = await _read(
            customers, mapping_file, await people.catalogue(importer), skip_bad_lines=skip_bad_lines
        )
        codes, renewed = _opened(written), list[int]()

        def keep(found: Codes) -> None:
            codes.keep(found)
            renewed.append(found.renewed)

        with closing(codes), Progress(console=Console(stderr=True)) as progress:
            bar = progress.add_task("importing", total=len(rows))
            made = await import_customers(
                importer,
                mapping.name,
                rows,
                lambda count: progress.advance(bar, count),
                known=() if renew else codes.known,
                keep=keep,
            )
    return len(rows), Codes(made, sum(renewed))


def _opened(written: Path) -> CodesFile:
    try:
        return CodesFile(written)
    except OSError as error:
        raise Stop(f"{written}: {error.strerror}", "Nothing was imported: name another file with --codes.") from error
    except ValueError as error:
        raise Stop(str(error), "Nothing was imported: name another file with --codes.") from error


async def _read(
    customers: Path, mapping_file: Path, names: Catalogue, *, skip_bad_lines: bool
) -> tuple[ColumnMapping, list[Row]]:
    try:
        mapping = await asyncio.to_thread(read_mapping, mapping_file)
        rows, problems = await asyncio.to_thread(read_rows, customers, mapping, names)
    except MappingInvalid as error:
        raise Stop(str(error), "Nothing was imported.") from error
    if problems:
        show.say(*_listed(problems))
        if not skip_bad_lines:
            lines = len({problem.line for problem in problems})
            raise Stop(f"{lines:,} lines are wrong", "Nothing was imported: correct them, or give --skip-bad-lines.")
    return mapping, rows


def _listed(problems: Sequence[Problem]) -> list[str]:
    more = [f"... and {len(problems) - _SHOWN:,} more"] if len(problems) > _SHOWN else []
    return [*(str(problem) for problem in problems[:_SHOWN]), *more]
