"""`parley verify`: a receipt, offline."""

from pathlib import Path
from typing import Annotated, Any

import typer

from parley_client.receipts import FILES
from parley_crypto.tlog.receipt import Receipt
from parley_node.cli import show
from parley_node.cli.history_text import detail_text
from parley_node.cli.options import JsonOption
from parley_node.cli.stop import Stop
from parley_node.verify import ReceiptInvalid, verify_files

app = typer.Typer(add_completion=False)


@app.command()
def verify(
    directory: Annotated[
        Path | None,
        typer.Argument(
            metavar="[DIR]", help=f"Holds the four files, as saved: {', '.join(FILES)}.", show_default=False
        ),
    ] = None,
    policy: Annotated[Path | None, typer.Option(metavar="FILE", help="Which log and witnesses you believe.")] = None,
    proof: Annotated[Path | None, typer.Option(metavar="FILE", help="The log's proof.")] = None,
    entry: Annotated[Path | None, typer.Option(metavar="FILE", help="The log's entry.")] = None,
    opening: Annotated[Path | None, typer.Option(metavar="FILE", help="What opens the entry: yours alone.")] = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """
    Check a receipt offline: from a directory, or from files named one by one, which win.

    A policy that came with the receipt proves little: name one that you have from elsewhere with --policy.
    """
    given = (policy, proof, entry, opening)
    if directory is None and None in given:
        raise typer.BadParameter("give a directory, or all of --policy, --proof, --entry and --opening")
    folder = directory or Path()
    files = [path or folder / name for path, name in zip(given, FILES, strict=True)]
    try:
        receipt = verify_files(*files)
    except ReceiptInvalid as error:
        raise Stop(str(error), error.diagnostics()) from error
    found = proven(receipt)
    if not as_json:
        show.say(f"Valid: leaf {receipt.index:,} of a log of {receipt.checkpoint.size:,}.")
        if policy is None:
            show.say("That is by the policy that came with it, which proves little: name yours with --policy.")
    show.record(found if as_json else {name: detail_text(value) for name, value in found.items()}, as_json=as_json)


def proven(receipt: Receipt) -> dict[str, Any]:
    """What a receipt proves, for a person: what happened, and where it stands."""
    detail = {name: value for name, value in receipt.detail.items() if name not in ("kind", "time")}
    happened = {"what": receipt.detail.get("kind", ""), "time": receipt.detail.get("time", "")}
    return {**happened, **detail, "log": receipt.checkpoint.origin, "log_index": receipt.index}
