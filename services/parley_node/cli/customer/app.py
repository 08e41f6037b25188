"""The command itself, and what all of its acts begin with."""

from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import typer

from parley_node import people
from parley_node.cli.calls import run, running
from parley_node.cli.wallet import CustomerFile

T = TypeVar("T")

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="Act as a customer: your bank, your rules, your inbox, your history.",
)


def act(home: Path | None, me: str, work: Callable[[people.Customer], Coroutine[Any, Any, T]]) -> T:
    """Do something as a customer of a home. Raises Stop."""

    async def acting() -> T:
        chosen, now = running(home)
        mine = CustomerFile(chosen, me)
        async with people.customer(now.address, mine.account(), mine.signer()) as customer:
            return await work(customer)

    return run(acting())
