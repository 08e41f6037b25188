"""Valkey on a Unix socket: append-only, no snapshots, no TCP."""

import signal
import socket
from pathlib import Path

from parley_node.embedded.paths import Layout
from parley_node.embedded.postgres import listener_of
from parley_node.embedded.supervise import Launch


def url(where: Layout) -> str:
    """URL of the server, as redis-py reads it."""
    return f"unix://{where.valkey_socket}"


def prepare(where: Layout, valkey_server: Path) -> Launch:
    """Say how to start Valkey; its directories exist already."""
    return Launch(
        command=[str(valkey_server), *_options(where)],
        stop=signal.SIGTERM,
        ready=lambda pid: ready(where, pid),
    )


def ready(where: Layout, pid: int | None = None) -> bool:
    """Whether Valkey answers, its append-only file read, and is process ``pid`` where one is given."""
    listener = listener_of(where.valkey_socket)
    return listener is not None and pid in (None, listener) and _pong(where.valkey_socket)


def _pong(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
            probe.sendall(b"PING\r\n")
            return probe.recv(16).startswith(b"+PONG")
        except OSError:
            return False


def _options(where: Layout) -> list[str]:
    """
    Settings as arguments.

    ``everysec`` may lose a second on a power cut: streams are rebuilt from PostgreSQL, nothing rests on them. A crash
    report would print the command at hand: hide-user-data-from-log keeps values out of it.
    """
    settings = {
        "port": "0",
        "unixsocket": str(where.valkey_socket),
        "unixsocketperm": "700",
        "dir": str(where.valkey_data),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        "daemonize": "no",
        "loglevel": "warning",
        "hide-user-data-from-log": "yes",
    }
    return [part for name, value in settings.items() for part in (f"--{name}", value)]
