"""`parley migrate`: schemas up to date."""

import asyncio
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import StrEnum
from typing import Annotated

import typer

from parley_crypto.keyfiles import KeyFileUnusable
from parley_db.migrate import MigrationError, titles
from parley_node.cli import show
from parley_node.cli.calls import alone
from parley_node.cli.failing import servers_failing
from parley_node.cli.options import HomeOption, ServiceName
from parley_node.cli.stop import Stop
from parley_node.embedded.errors import ServersUnavailable
from parley_node.embedded.external import from_environment
from parley_node.home import Home, NotRunning
from parley_node.provision import provision
from parley_node.services import SERVICES
from parley_node.stores import pending, prepare, servers_of
from parley_rpc.zones import Zones

app = typer.Typer(add_completion=False)


class Phase(StrEnum):
    """When a migration runs: before new code, or once no old code is left."""

    PRE = "pre"
    POST = "post"


@app.command(name="migrate")
def migrate_command(
    service: Annotated[
        ServiceName | None,
        typer.Argument(metavar="[SERVICE]", help="One service; all if not given.", show_default=False),
    ] = None,
    *,
    planned: Annotated[bool, typer.Option("--plan", help="Only say which migrations would be applied.")] = False,
    phase: Annotated[Phase | None, typer.Option(help="Only this phase; both if not given.", show_default=False)] = None,
    home: HomeOption = None,
) -> None:
    """Make databases and roles where they are missing, bring schemas up to date, and grant what the zones' file lists."""
    names = [str(service)] if service else list(SERVICES)
    try:
        with servers_failing():
            found = asyncio.run(_migrate(Home.choose(home), names, phase, planned=planned))
    except (ServersUnavailable, MigrationError, KeyFileUnusable) as error:
        raise Stop(str(error)) from error
    done = "pending" if planned else "applied"
    nothing = "No migration is pending." if planned else "Everything is as it should be; no migration was pending."
    show.say(*(f"{done} {title}" for title in found) if found else [nothing])


async def _migrate(home: Home, names: Sequence[str], phase: Phase | None, *, planned: bool) -> list[str]:
    if planned:
        due = await _planned(home, names)
        return [title for title in due if phase is None or title.endswith(f".{phase}")]
    with _held(home):
        provision(home)
        async with servers_of(home) as pair:
            return await prepare(pair, home, Zones.load(), names, phase=phase.value if phase else None)


async def _planned(home: Home, names: Sequence[str]) -> list[str]:
    """What would be done: all of it where there are no servers yet, which a plan doesn't make."""
    if from_environment(os.environ) is None and not home.servers.exists():
        return [title for name in names for title in titles(f"parley_{name}")]
    with _held(home):
        async with servers_of(home) as pair:
            return await pending(pair, names)


@contextmanager
def _held(home: Home) -> Iterator[None]:
    """Hold a home on which nobody runs: a Parley that started meanwhile would take over servers that end with this command."""
    if from_environment(os.environ) is None and not _is_run_on(home):
        with alone(home, ""):
            yield
    else:
        yield


def _is_run_on(home: Home) -> bool:
    with suppress(NotRunning):
        home.running()
        return True
    return False
