"""
The command line.

A command's module is imported when it is called, so that `parley --help` answers at once: a new command is one line in
``COMMANDS`` and a module with a Typer ``app``.
"""

import errno
import io
import os
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer
from typer.core import TyperCommand, TyperGroup

from parley_node.cli import hints
from parley_node.cli.stop import Stop

COMMANDS: Mapping[str, tuple[str, str]] = {
    "demo": ("parley_node.cli.demo", "Watch an exchange, from a population to the receipts."),
    "up": ("parley_node.cli.up", "Run everything: in one process, or with --split in one process per service."),
    "serve": ("parley_node.cli.serve", "Run one service, as its environment says."),
    "doctor": ("parley_node.cli.checkup", "Check this home, one line a check; each failure ends in what mends it."),
    "import": ("parley_node.cli.importing", "Import customers from a CSV file."),
    "customer": ("parley_node.cli.customer", "Act as a customer: your bank, your rules, your inbox, your history."),
    "marketer": ("parley_node.cli.marketer", "Act as a marketer: ask, and open what customers release."),
    "operator": ("parley_node.cli.operator", "Act as the operator: on marketers, and on events that were set aside."),
    "attributes": (
        "parley_node.cli.attributes",
        "Print the catalogue: what a bank may hold and a marketer may ask for.",
    ),
    "verify": ("parley_node.cli.verify", "Check a receipt offline, from four files."),
    "migrate": ("parley_node.cli.migrate", "Bring the databases' schemas and grants up to date."),
}
"""Each command: the module with its ``app``, and its line in the help."""


class _Commands(TyperGroup):
    """Commands that are imported when they are called."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = {name: TyperCommand(name, help=line) for name, (_module, line) in COMMANDS.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name = args[0]
        if name not in COMMANDS:
            return super().resolve_command(ctx, args)
        return name, load(name), args[1:]

    def invoke(self, ctx: Any) -> Any:
        hints.forget()
        try:
            return super().invoke(ctx)
        except Stop as stop:
            typer.echo(f"parley: {stop}", err=True)
            raise typer.Exit(1) from None


app = typer.Typer(cls=_Commands, no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)


def load(name: str) -> Any:
    """Import a command. gRPC, which may come with it, keeps its own lines to itself: what fails is said by whoever called it."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    command = typer.main.get_command(import_module(COMMANDS[name][0]).app)
    command.name = name
    return command


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # noqa: PLC0415 - half of what `parley --help` would import

        typer.echo(f"parley {version('parley')}")
        raise typer.Exit


@app.callback()
def parley(
    *,
    _version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Parley: the party in the middle that lets customers and marketers talk on the customer's terms."""


def _nowhere() -> TextIO:
    return Path(os.devnull).open("w", encoding="utf-8")


def main() -> None:
    """Run the command line. What a terminal can't show is replaced; where nobody listens any more, that is said in a sentence."""
    sys.stdout, sys.stderr = sys.stdout or _nowhere(), sys.stderr or _nowhere()  # neither is there where it was closed
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        try:
            app(prog_name="parley")
        finally:
            sys.stdout.flush()
    except OSError as error:
        if error.errno not in (errno.EPIPE, errno.ENOSPC):
            raise
        typer.echo(f"parley: {error.strerror}", err=True)
        os._exit(1)  # what is left can't be written either
