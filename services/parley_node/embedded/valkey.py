"""
Valkey on a Unix socket: append-only, no snapshots, no TCP.

Whoever doesn't sign in may ask for a sign of life and nothing else. Users are kept in a file, over restarts.
"""

import hashlib
import signal
import socket
from pathlib import Path

from parley_crypto.keyfiles import ensure_secret, read_secret
from parley_node.embedded.passwords import ensure_password
from parley_node.embedded.paths import Layout
from parley_node.embedded.postgres import listener_of
from parley_node.embedded.supervise import Launch

ADMINISTRATOR = "parley"


def url(where: Layout) -> str:
    """URL of the server, as redis-py reads it, naming nobody."""
    return f"unix://{where.valkey_socket}"


def admin_url(where: Layout) -> str:
    """URL of the server for its administrator, password and all. Raises KeyFileUnusable."""
    return f"unix://{ADMINISTRATOR}:{read_secret(where.password('valkey'))}@{where.valkey_socket}"


def prepare(where: Layout, valkey_server: Path) -> Launch:
    """Make the administrator, and say how to start Valkey; its directories exist already."""
    ensure_password(where.password("valkey"))
    password = read_secret(where.password("valkey"))
    if _users(where).exists() and _digest(password) not in _users(where).read_text():
        _users(where).unlink()  # the password was lost, or restored; the zones' users are made anew at each start
    ensure_secret(_users(where), lambda: _first_users(password))
    return Launch(
        command=[str(valkey_server), *_options(where)],
        stop=signal.SIGTERM,
        ready=lambda pid: ready(where, pid),
    )


def ready(where: Layout, pid: int | None = None) -> bool:
    """Whether Valkey answers, its append-only file read, and is process ``pid`` where one is given."""
    listener = listener_of(where.valkey_socket)
    return listener is not None and pid in (None, listener) and _pong(where.valkey_socket)


def _users(where: Layout) -> Path:
    return where.valkey_data / "users.acl"


def _first_users(password: str) -> str:
    administrator = f"user {ADMINISTRATOR} on #{_digest(password)} ~* &* +@all"
    return f"user default on nopass resetkeys resetchannels -@all +ping\n{administrator}\n"


def _digest(password: str) -> str:
    return hashlib.sha256(password.encode()).hexdigest()


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
        "aclfile": str(_users(where)),
        "daemonize": "no",
        "loglevel": "warning",
        "hide-user-data-from-log": "yes",
    }
    return [part for name, value in settings.items() for part in (f"--{name}", value)]
