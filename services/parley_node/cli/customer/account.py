"""Having an account."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

import typer

from parley_client.connection import Connection
from parley_node import people
from parley_node.cli import show
from parley_node.cli.calls import run, running
from parley_node.cli.customer.app import app
from parley_node.cli.options import CustomerOption, HomeOption
from parley_node.cli.stop import Stop
from parley_node.cli.wallet import CustomerFile


@app.command()
def join(me: CustomerOption = "me", home: HomeOption = None) -> None:
    """Open an account, with a key that stays on this machine."""
    _open(home, me, lambda connection, mine: people.register(connection, mine.signer()))


@app.command()
def claim(
    code: Annotated[str, typer.Argument(help="The one-time code you were given.")],
    me: CustomerOption = "me",
    home: HomeOption = None,
) -> None:
    """Make an imported account yours: bind it to a key that stays on this machine."""
    _open(home, me, lambda connection, mine: people.claim(connection, code, mine.signer()))


def _open(home: Path | None, me: str, how: Callable[[Connection, CustomerFile], Awaitable[str]]) -> None:
    async def work() -> str:
        chosen, now = running(home)
        mine = CustomerFile(chosen, me)
        if mine.joined:
            raise Stop(f"customer {me!r} has an account on this home", "Choose another name with --as.")
        async with Connection(now.address) as connection:
            account = await how(connection, mine)
        mine.keep(account)
        return account

    show.say(f"Your account is {run(work())}; its key stays on this machine.")
