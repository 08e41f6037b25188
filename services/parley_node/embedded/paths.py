"""
The data directory and the socket directories.

Sockets live in 0700 directories of their own. No directory that was there before is ever chmodded.
"""

import fcntl
import hashlib
import os
import re
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from parley_node.embedded.errors import ServersUnavailable

SOCKET_PATH_MAX = 107  # bytes; sun_path is 108 with its final NUL (unix(7))
_PLAIN = re.compile(r"[\w/.+-]+", re.ASCII)  # a comma or a quote means something in settings and URLs
_LONGEST_NAME = "postgres/.s.PGSQL.5432.lock"  # the longest of a service's, audit/public.sock and its kin, is shorter
# Not tempfile.gettempdir(): TMPDIR may differ between the process that starts the servers and one that adopts them.
_SHORT_ROOT = Path("/tmp")  # noqa: S108 - created 0700, and refused when somebody else made it


@dataclass(frozen=True)
class Layout:
    """Where everything of one pair is. ``sockets`` is under ``root`` unless that path can't name a socket."""

    root: Path
    sockets: Path

    @property
    def owner_lock(self) -> Path:
        """Held by the process that owns the pair."""
        return self.root / "lock"

    @property
    def postgres_data(self) -> Path:
        """PostgreSQL's own data directory."""
        return self.root / "postgres"

    @property
    def postgres_sockets(self) -> Path:
        """The directory PostgreSQL listens in."""
        return self.sockets / "postgres"

    @property
    def valkey_data(self) -> Path:
        """Valkey's append-only file."""
        return self.root / "valkey"

    @property
    def valkey_socket(self) -> Path:
        """The socket Valkey listens on."""
        return self.sockets / "valkey" / "valkey.sock"

    def password(self, server: str) -> Path:
        """The administrator's password on ``postgres`` or ``valkey``."""
        return self.root / f"{server}.pass"

    def log(self, server: str) -> Path:
        """The log file of ``postgres`` or ``valkey``."""
        return self.root / f"{server}.log"

    def lock(self, server: str) -> Path:
        """The lock file that a running server and its children hold."""
        return self.root / f"{server}.lock"


def layout(data_dir: Path) -> Layout:
    """Decide where the parts of a pair go; touches nothing."""
    root = data_dir.absolute()
    return Layout(root=root, sockets=sockets_of(root))


def sockets_of(root: Path) -> Path:
    """Where the socket directories of a directory go: under it, unless that path can't name a socket; touches nothing."""
    inside = root / "run"
    if len(os.fsencode(inside / _LONGEST_NAME)) <= SOCKET_PATH_MAX and _PLAIN.fullmatch(str(inside)):
        return inside
    digest = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:16]
    return _SHORT_ROOT / f"parley-{digest}"


def create(where: Layout) -> None:
    """
    Create what is missing. Raises ServersUnavailable when somebody else owns the socket directory.

    ``root`` and ``sockets`` may be passed through (0711) when root makes them, because PostgreSQL may have to run as
    ``nobody``; what is in them is 0700 each.
    """
    passable = 0o711 if os.geteuid() == 0 else 0o700
    where.root.parent.mkdir(parents=True, exist_ok=True)
    for path in (where.root, where.sockets):
        make(path, passable)
    _refuse_foreign(where.sockets)
    for path in (where.postgres_sockets, where.valkey_socket.parent, where.valkey_data):
        make(path, 0o700)


def create_sockets(root: Path, names: Iterable[str]) -> None:
    """Create a private directory for each name in ``root``. Raises ServersUnavailable when somebody else owns that."""
    make(root, 0o700)
    _refuse_foreign(root)
    for name in names:
        make(root / name, 0o700)


def make(path: Path, mode: int) -> None:
    """Make a directory with a mode, unless it is there."""
    try:
        path.mkdir(mode)
    except FileExistsError:
        return
    path.chmod(mode)  # mkdir's mode is cut by the umask


def _refuse_foreign(path: Path) -> None:
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o066:
        raise ServersUnavailable(f"{path} is not a private directory of this user: remove it and start again")


def holder(path: Path) -> int | None:
    """The process that holds a lock of :func:`try_lock`, if the kernel names it (proc_locks(5)) and lets us see that it does."""
    with suppress(OSError):
        for line in Path("/proc/locks").read_text().splitlines():
            _number, kind, *_, pid, where, _start, _end = line.split()
            # File systems number their files each for itself: it must be this one that it has open.
            if kind == "FLOCK" and int(where.rpartition(":")[2]) == path.stat().st_ino and _has_open(int(pid), path):
                return int(pid)
    return None


def _has_open(pid: int, path: Path) -> bool:
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            if descriptor.samefile(path):
                return True
    return False


def try_lock(path: Path) -> int | None:
    """
    Lock ``path`` (flock(2)) and answer the open descriptor, or None while another holds it.

    Closing the descriptor, or dying, gives the lock back.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor
