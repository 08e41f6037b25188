"""`parley operator`: what the operator says about marketers."""

from pathlib import Path
from typing import Annotated

import typer

from parley.common.v1 import terms_pb2 as termspb
from parley.identity.v1 import identity_pb2 as identitypb
from parley.identity.v1.identity_pb2_grpc import IdentityServiceStub
from parley_client.connection import Connection
from parley_node.cli import show
from parley_node.cli.calls import as_operator
from parley_node.cli.names import whole
from parley_node.cli.options import HomeOption, LevelName, level_text
from parley_node.cli.wallet import marketer_name
from parley_node.home import Home

app = typer.Typer(no_args_is_help=True, help="Act as the operator: say how far a marketer was checked, suspend it.")

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


def _update(home: Path | None, marketer: str, change: identitypb.UpdateMarketerRequest) -> None:
    change.name = marketer_name(Home.choose(home), marketer, lambda given: whole(given, "marketers"))

    async def work(connection: Connection) -> identitypb.Marketer:
        stub = IdentityServiceStub(connection.channel)
        return await connection.call(stub.UpdateMarketer, change, service="identity")

    changed = as_operator(home, work)
    state = "suspended" if changed.suspended else level_text(changed.verification_level)
    show.say(f"{changed.display_name} ({changed.name}) is {state}. It takes effect within an hour.")
