"""`parley up`: everything, in one process or in one per service."""

import asyncio
import os
import shlex
import signal
import sys
from collections.abc import Coroutine, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Annotated, Any, TextIO

import typer
from pydantic import AnyHttpUrl, TypeAdapter, ValidationError

from parley_crypto.keyfiles import KeyFileUnusable
from parley_crypto.trust import TrustUnusable
from parley_db.migrate import MigrationError
from parley_kit.faults import Fault
from parley_node.cli import show
from parley_node.cli.calls import alone
from parley_node.cli.failing import servers_failing
from parley_node.cli.options import HomeOption
from parley_node.cli.stop import Stop
from parley_node.embedded.errors import ServersUnavailable
from parley_node.home import HOME, Home, Running
from parley_node.node import Options, check_settings, refuse_set, run
from parley_node.provision import provision
from parley_node.services import SERVICES
from parley_node.split import run_apart
from parley_rpc import http
from parley_rpc.channels import CannotListen, is_local
from parley_rpc.confine import is_open_to_all
from parley_rpc.descriptors import allow_many
from parley_rpc.logs import adopt_libraries, logger
from parley_rpc.serving import Serving, arm
from parley_rpc.settings import SettingsWrong

app = typer.Typer(add_completion=False)


def _http_url(text: str | None) -> str | None:
    try:
        TypeAdapter(AnyHttpUrl | None).validate_python(text)
    except ValidationError:
        raise typer.BadParameter("a URL such as http://127.0.0.1:4318/v1/traces") from None
    return text


@app.command()
def up(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where gRPC answers; 0 is any free port.")] = 7400,
    http_port: Annotated[int, typer.Option(min=0, max=65535, help="Where the log answers; 0 is any free port.")] = 7401,
    metrics_port: Annotated[
        int,
        typer.Option(
            min=0, max=65531, help="Where Prometheus finds metrics, with --split from there on; 0 is any free port."
        ),
    ] = 0,
    traces: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            callback=_http_url,
            help="Where spans are sent (OTLP over HTTP), such as http://127.0.0.1:4318/v1/traces.",
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="An address of this machine; nothing is encrypted on the way to it.")
    ] = "127.0.0.1",
    *,
    split: Annotated[
        bool, typer.Option("--split", help="One process per service, on unix sockets in the home: --port is not used.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Log to standard error, not to files of the home.")
    ] = False,
    home: HomeOption = None,
) -> None:
    """
    Run everything, until Ctrl-C: in one process, which separates nothing, or with --split in one per service.

    The servers are embedded, or those that PARLEY_POSTGRES_URL and PARLEY_VALKEY_URL name; PARLEY_<SERVICE>_<SETTING> in
    the environment sets what a service can be told.
    """
    if not is_local(f"{host}:{port}"):
        raise Stop(
            f"{host} is reached over a network, and nothing here encrypts", "Choose an address such as 127.0.0.1."
        )
    chosen = Home.choose(home)
    if split and is_open_to_all(chosen.root):
        raise Stop(f"every service may read what is in {chosen.root}", "Choose a home outside of /etc and /usr.")
    with _failures(chosen), alone(chosen, ", or choose another home with --home"), _log(chosen, verbose=verbose) as log:
        arm()
        allow_many()
        _check_settings(chosen)
        options = Options(host, port, http_port, metrics_port, traces)
        _check_ports(options, split=split)
        asyncio.run(_until_stopped(_apart(chosen, options, log) if split else _run(chosen, options, log)))


async def _until_stopped(everything: Coroutine[Any, Any, None]) -> None:
    """Run until a signal comes, or something ends that should not, whose error comes out."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    running, stopping = asyncio.create_task(everything), asyncio.create_task(stop.wait())
    await asyncio.wait({running, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not running.done():
        show.say("Stopping.")
        running.cancel()
    with suppress(asyncio.CancelledError):
        await running


async def _run(home: Home, options: Options, log: TextIO) -> None:
    say = logger("node", stream=log)
    adopt_libraries(say)
    async with run(home, options, say, told=_step) as node:
        _welcome(home, node.running)
        try:
            await node.serve()
        except Exception:
            say.exception("ended")
            raise


async def _apart(home: Home, options: Options, log: TextIO) -> None:
    say = logger("node", stream=log)
    adopt_libraries(say)
    async with run_apart(home, options, say, to_stderr=log is sys.stderr, told=_step) as node:
        _welcome(home, node.running)
        await node.serve()


def _step(step: str) -> None:
    show.say(f"  {step}")


def _check_settings(home: Home) -> None:
    """Raise SettingsWrong before anything is started."""
    refuse_set(Serving, Serving.model_fields)
    provision(home)
    check_settings(home)


def _check_ports(options: Options, *, split: bool) -> None:
    """Raise CannotListen before anything is started. Whoever takes a port from here on is found when it is opened."""
    grpc_ports = [] if split else [options.port]
    metrics_ports = [
        options.metrics_port and options.metrics_port + place for place in range(len(SERVICES) if split else 1)
    ]
    with ExitStack() as together:  # so that one port can't be given twice
        for port in (*grpc_ports, options.http_port, *metrics_ports):
            together.enter_context(http.listen(f"{options.host}:{port}"))


def _welcome(home: Home, running: Running) -> None:
    named = [] if home == Home.choose(None) else [f"  export {HOME}={shlex.quote(str(home.root))}"]
    show.say(
        "",
        f"Parley answers on {running.address} (gRPC); its log on {running.http}",
        f"Metrics are on {', '.join(dict.fromkeys(running.metrics.values()))}",
        f"Its home is {home.root}; it stops with Ctrl-C, or `kill {running.pid}`.",
        "",
        "Next, in another terminal:",
        *named,
        "  parley customer join",
        '  parley marketer register "My shop"',
        "  parley doctor",
    )
    sys.stdout.flush()


@contextmanager
def _log(home: Home, *, verbose: bool) -> Iterator[TextIO]:
    if verbose:
        yield sys.stderr
        return
    handle = os.open(home.log("parley"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(handle, "w", buffering=1) as file:
        yield file


@contextmanager
def _failures(home: Home) -> Iterator[None]:
    """Say in a sentence why it can't run, or why it ended."""
    try:
        with servers_failing(", or choose another home with --home"):
            yield
    except (ServersUnavailable, KeyFileUnusable, TrustUnusable, MigrationError) as error:
        raise Stop(str(error)) from error
    except SettingsWrong as error:
        raise Stop(str(error), "Correct it in the environment, or unset it there.") from error
    except Fault as error:
        raise Stop(error.message, "`parley doctor` looks at the log and the databases.") from error
    except CannotListen as error:
        raise Stop(str(error), "Choose another with --port, --http-port or --metrics-port, or free it.") from error
    except ExceptionGroup as errors:
        raise Stop("a part of Parley failed, and took the rest along", f"See {home.log('parley')}.") from errors
