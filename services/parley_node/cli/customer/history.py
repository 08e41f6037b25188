"""What happened to one's information, and the receipts of it."""

from pathlib import Path
from typing import Annotated

import typer

from parley_node.cli import show
from parley_node.cli.customer.app import act, app
from parley_node.cli.history_text import history_rows
from parley_node.cli.options import CustomerOption, HomeOption, JsonOption
from parley_node.cli.receipts import customer_receipt, refuse_taken
from parley_node.home import Home


@app.command()
def history(me: CustomerOption = "me", *, as_json: JsonOption = False, home: HomeOption = None) -> None:
    """List what happened to your information: who got what, when, under which consent. Newest first."""
    found = act(home, me, lambda customer: customer.history())
    show.rows(history_rows(found, whole=as_json), as_json=as_json, empty="Nothing happened yet.")


@app.command()
def receipt(
    entry: Annotated[str, typer.Argument(help="A number of the history, or the first letters of a commitment.")],
    out: Annotated[Path, typer.Option("--out", file_okay=False, help="Where to put its four files.")],
    me: CustomerOption = "me",
    home: HomeOption = None,
) -> None:
    """Save the receipt of something that happened, for `parley verify`, which needs no server."""
    policy = Home.choose(home).policy
    refuse_taken(out)
    act(home, me, lambda customer: customer_receipt(customer, entry, policy, out))
    show.say(f"Saved; `parley verify {out}` checks it, without any server.")
