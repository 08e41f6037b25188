"""
PostgreSQL on a Unix socket: made once, refused when it is another major's, ready when it says so.

Whoever reaches the socket still has to show a password (SCRAM): zones share this user, and nothing else.
"""

import os
import re
import shutil
import signal
import socket
import struct
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from parley_crypto.keyfiles import ensure_secret
from parley_node.embedded.errors import ServersUnavailable
from parley_node.embedded.identity import Identity
from parley_node.embedded.passwords import new, pgpass, scram
from parley_node.embedded.paths import Layout
from parley_node.embedded.supervise import Launch, lock_options

PORT = 5432  # only names the socket file: there is no TCP
SUPERUSER = "parley"

_PID_FILE = "postmaster.pid"
_PATIENCE_S = 1.0
_STATUS_LINE = 7  # PostgreSQL, src/include/utils/pidfile.h: LOCK_FILE_LINE_PM_STATUS, from 0
_PEERCRED = struct.Struct("3i")  # struct ucred: pid, uid, gid (unix(7))


_HBA = """\
# Written by Parley at each start.
local all all scram-sha-256
local replication parley scram-sha-256
"""


def dsn(where: Layout, database: str, role: str, passfile: Path) -> str:
    """URL of a database for a role, over the socket; it signs in with the password of a file."""
    socket_directory, file = quote(str(where.postgres_sockets), safe="/"), quote(str(passfile), safe="/")
    url = f"postgresql://{quote(role, safe='')}@/{quote(database, safe='')}"
    return f"{url}?host={socket_directory}&port={PORT}&passfile={file}"


def admin_dsn(where: Layout, database: str = "postgres") -> str:
    """URL of a database for the superuser."""
    return dsn(where, database, SUPERUSER, where.password("postgres"))


def prepare(where: Layout, identity: Identity) -> Launch:
    """
    Make the data directory where there is none, and say how to start on it.

    Raises ServersUnavailable when initdb fails or the directory belongs to another major version.
    """
    identity.give(where.postgres_sockets)
    if where.postgres_data.exists():
        identity.give(where.postgres_data)
        refuse_other_major(where.postgres_data, _major(identity))
    else:
        _initialise(where, identity)
    _ask_for_passwords(where, identity)
    return Launch(
        command=[str(identity.pginstall / "bin" / "postgres"), "-D", str(where.postgres_data), *_options(where)],
        stop=signal.SIGINT,  # fast shutdown: ends sessions, writes a checkpoint
        ready=lambda pid: ready(where, pid),
        leash=identity.options,
        tidy=lambda: remove_stale_locks(where),
    )


def settings(where: Layout) -> Mapping[str, str]:
    """
    Server settings; everything else is PostgreSQL's default, fsync and synchronous_commit among it.

    Statements, parameters and constraint details may hold values of customers: none of them reaches the log, and
    errors of statements are not logged at all (``log`` ranks above ``error`` there).
    """
    return {
        "listen_addresses": "",
        "unix_socket_directories": str(where.postgres_sockets),
        "unix_socket_permissions": "0700",
        "port": str(PORT),
        "max_connections": "200",
        "shared_buffers": "64MB",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "log_min_messages": "log",
        "log_min_error_statement": "panic",
        "log_error_verbosity": "terse",
        "log_parameter_max_length_on_error": "0",
        "log_checkpoints": "off",
    }


def ready(where: Layout, pid: int | None = None) -> bool:
    """
    Whether PostgreSQL takes connections, and is process ``pid`` where one is given.

    Its pid file is read first, so that a server in recovery isn't bothered; the socket proves that the file isn't stale.
    """
    lines = _lines(where.postgres_data / _PID_FILE)
    if len(lines) <= _STATUS_LINE or lines[_STATUS_LINE].strip() != "ready":
        return False
    listener = listener_of(where.postgres_sockets / f".s.PGSQL.{PORT}")
    return listener is not None and pid in (None, listener)


def listener_of(path: Path) -> int | None:
    """Process id of who listens on a Unix socket (SO_PEERCRED), or None when nobody does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PATIENCE_S)  # one that hangs takes nobody in once its queue is full
        try:
            probe.connect(str(path))
        except OSError:
            return None
        pid, _, _ = _PEERCRED.unpack(probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEERCRED.size))
    return int(pid)


def refuse_other_major(data: Path, major: str) -> None:
    """Raise ServersUnavailable, saying how to move on, when ``data`` was made by another major version."""
    made_by = (data / "PG_VERSION").read_text().strip()
    if made_by != major:
        raise ServersUnavailable(
            f"{data} was made by PostgreSQL {made_by} and this is {major}: start it once more with {made_by}, dump it "
            f"(`pg_dumpall > parley.sql`), move {data} away, start Parley, and load the dump (`psql -f parley.sql`)",
        )


def remove_stale_locks(where: Layout) -> None:
    """
    Remove lock files whose process id now belongs to something else.

    PostgreSQL cleans up after dead processes itself, but takes any living one for a postmaster, and after a reboot or
    in a container the same small ids come round again. A living process whose working directory is the data
    directory is a server, whoever started it, and its files stay.
    """
    for path in (where.postgres_data / _PID_FILE, where.postgres_sockets / f".s.PGSQL.{PORT}.lock"):
        lines = _lines(path)
        if lines and not serves(lines[0].strip(), where.postgres_data):
            path.unlink(missing_ok=True)


def serves(pid: str, data: Path) -> bool:
    """Whether a process with this id may be a server on ``data``; a dead one counts, as PostgreSQL judges those better."""
    process = Path("/proc") / pid.lstrip("-")
    try:
        return (process / "cwd").resolve(strict=True) == data.resolve()
    except OSError:
        return not process.exists()


def _initialise(where: Layout, identity: Identity) -> None:
    """Make the data directory under another name first: one that has its name is whole."""
    unfinished = where.root / "postgres.new"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(0o700)
    identity.give(unfinished)
    made = identity.run(
        [
            "initdb",
            "-D",
            str(unfinished),
            "-U",
            SUPERUSER,
            "--auth=trust",  # until a moment later: no server runs on it before passwords are asked for
            "--encoding=UTF8",
            "--locale=C",
            "--no-instructions",
        ],
    )
    if made.returncode != 0:
        raise ServersUnavailable(f"initdb failed as {identity.label}: {made.stderr.strip()}")
    unfinished.rename(where.postgres_data)


def _ask_for_passwords(where: Layout, identity: Identity) -> None:
    """
    Give the superuser a password, and let nobody in without one; also on data of a release that trusted the socket.

    The order makes it whole again after an end at any point: what is written last says that all is done.
    """
    hba, passfile = where.postgres_data / "pg_hba.conf", where.password("postgres")
    if passfile.exists() and hba.read_text() == _HBA:
        return
    remove_stale_locks(where)
    password = new()
    told = identity.run(
        ["postgres", "--single", "-D", str(where.postgres_data), "postgres"],
        stdin=f"ALTER ROLE {SUPERUSER} PASSWORD '{scram(password, os.urandom(16))}'\n",
        options=lock_options(where.lock("postgres")),
    )
    if told.returncode != 0:
        raise ServersUnavailable(f"{where.postgres_data} can't be given a password: {told.stderr.strip()}")
    passfile.unlink(missing_ok=True)
    ensure_secret(passfile, lambda: pgpass(SUPERUSER, password))
    hba.write_text(_HBA)


def _major(identity: Identity) -> str:
    asked = identity.run(["postgres", "-V"])
    found = re.search(r"\) (\d+)", asked.stdout)
    if found is None:
        raise ServersUnavailable(f"PostgreSQL does not run here as {identity.label}: {asked.stderr.strip()}")
    return found[1]


def _options(where: Layout) -> list[str]:
    return [part for name, value in settings(where).items() for part in ("-c", f"{name}={value}")]


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
