"""`parley operator`: what the operator says about marketers, and does about events that were set aside."""

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from parley.common.v1 import terms_pb2 as termspb
from parley.identity.v1 import identity_pb2 as identitypb
from parley.identity.v1.identity_pb2_grpc import IdentityServiceStub
from parley_client.connection import Connection
from parley_node.cli import show
from parley_node.cli.calls import as_operator
from parley_node.cli.failing import servers_failing
from parley_node.cli.names import whole
from parley_node.cli.options import HomeOption, JsonOption, LevelName, ServiceName, level_text
from parley_node.cli.stop import Stop
from parley_node.cli.wallet import marketer_name
from parley_node.dead_letters import Letter, letters
from parley_node.dead_letters import replay as replay_all
from parley_node.home import Home, NotRunning
from parley_node.services import SERVICES
from parley_node.stores import Servers, servers_up

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Act as the operator: on marketers, and on events that were set aside.",
)

T = TypeVar("T")
Marketer = Annotated[str, typer.Argument(help="marketers/..., or what it is called on this home, such as shop.")]


@app.command()
def suspend(marketer: Marketer, home: HomeOption = None) -> None:
    """Suspend a marketer: it may not ask anybody anything, and nothing more is released to it."""
    _update(home, marketer, identitypb.UpdateMarketerRequest(suspended=True))


@app.command()
def reinstate(marketer: Marketer, home: HomeOption = None) -> None:
    """End a suspension."""
    _update(home, marketer, identitypb.UpdateMarketerRequest(suspended=False))


@app.command()
def level(
    marketer: Marketer,
    to: Annotated[LevelName, typer.Argument(metavar="LEVEL", help="How far it was checked.")],
    home: HomeOption = None,
) -> None:
    """Say how far a marketer was checked."""
    checked = termspb.VerificationLevel.ValueType(to.number)
    _update(home, marketer, identitypb.UpdateMarketerRequest(verification_level=checked))


@app.command(name="dead-letters")
def dead_letters(*, as_json: JsonOption = False, home: HomeOption = None) -> None:
    """List events that a reader failed on five times and set aside: where, which, and the kind of error; not what is in them."""
    found = _on_databases(home, letters)
    show.rows([_row(letter) for letter in found], as_json=as_json, empty="No event is set aside.")


@app.command()
def replay(
    service: Annotated[
        ServiceName | None,
        typer.Argument(metavar="[SERVICE]", help="Whose; of all services if not given.", show_default=False),
    ] = None,
    home: HomeOption = None,
) -> None:
    """Have services apply again what they set aside, while they run, and say what came of it."""
    names = [str(service)] if service else list(SERVICES)
    done = _on_databases(home, lambda pair: replay_all(pair, names))
    if done.untried:
        raise Stop(f"{done.untried} were not tried yet, as their reader doesn't run", "`parley doctor` looks at it.")
    if done.failed:
        raise Stop(
            f"{done.applied} applied; {done.failed} failed again and stay set aside",
            "`parley operator dead-letters` says with what.",
        )
    show.say(f"{done.applied} applied." if done.applied else "No event is set aside.")


def _row(letter: Letter) -> show.Row:
    return {
        "reader": letter.reader,
        "stream": letter.stream,
        "place": letter.seq,
        "event": letter.event_id,
        "type": letter.type,
        "error": letter.error_type,
        "since": show.iso(letter.died_at),
    }


def _on_databases(home: Path | None, work: Callable[[Servers], Coroutine[Any, Any, T]]) -> T:
    """Do something as the administrator of the databases. Raises Stop."""
    try:
        with servers_failing():
            return asyncio.run(work(servers_up(Home.choose(home))))
    except NotRunning as error:
        raise Stop(str(error)) from error


def _update(home: Path | None, marketer: str, change: identitypb.UpdateMarketerRequest) -> None:
    change.name = marketer_name(Home.choose(home), marketer, lambda given: whole(given, "marketers"))

    async def work(connection: Connection) -> identitypb.Marketer:
        stub = IdentityServiceStub(connection.channel)
        return await connection.call(stub.UpdateMarketer, change, service="identity")

    changed = as_operator(home, work)
    state = "suspended" if changed.suspended else level_text(changed.verification_level)
    show.say(f"{changed.display_name} ({changed.name}) is {state}. It takes effect within an hour.")
