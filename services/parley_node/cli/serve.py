"""`parley serve`: one service, as its environment says."""

from importlib import import_module
from typing import Annotated

import typer

from parley_node.cli.options import ServiceName

app = typer.Typer(add_completion=False)


@app.command()
def serve(service: Annotated[ServiceName, typer.Argument(metavar="SERVICE", help="Which one.")]) -> None:
    """
    Run one service, until SIGTERM or Ctrl-C: what `parley up --split` starts five of, and what Kubernetes runs.

    All that it is told comes from the environment, as docs/configuration.md lists it; nothing of a home is read but the files
    that are named there.
    """
    serving = import_module("parley_rpc.serving")
    package = f"parley_{service}"
    serving.main(str(service), import_module(f"{package}.config").Config, import_module(f"{package}.app").build)
