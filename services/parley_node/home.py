"""Parley's home on this machine: where keys, data and what people need to reach it are kept."""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

HOME = "PARLEY_HOME"


class NotRunning(Exception):
    """Nothing runs on this home: start it with `parley up`."""


@dataclass(frozen=True)
class Running:
    """
    Where a running Parley answers: gRPC, the log over HTTP, and for each service where its metrics are.

    ``told`` is what `parley up` was told beside the home, and to run services apart: to start it again as it ran.
    """

    address: str
    http: str
    pid: int
    metrics: Mapping[str, str] = field(default_factory=dict)
    told: Sequence[str] = ()

    @property
    def apart(self) -> bool:
        """Whether its services run apart."""
        return "{service}" in self.address


@dataclass(frozen=True)
class Home:
    """One home: a directory that only its owner may enter."""

    root: Path

    @classmethod
    def choose(cls, given: Path | None, environ: Mapping[str, str] = os.environ) -> "Home":
        """The home that was asked for, or the environment's, or ``~/.parley``."""
        return cls((given or Path(environ.get(HOME) or Path.home() / ".parley")).expanduser().resolve())

    def make(self) -> None:
        """Create it where it is missing, and what is missing above it: for its owner alone, each."""
        for path in (*reversed(self.root.parents), self.root):
            path.mkdir(mode=0o700, exist_ok=True)

    def empty(self) -> None:
        """Remove all that is in it but its lock, which somebody may hold; create it where it is missing."""
        self.make()
        for path in self.root.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            elif path != self.lock:
                path.unlink()

    @property
    def servers(self) -> Path:
        """Where the embedded servers keep their data."""
        return self.root / "servers"

    def keys(self, zone: str) -> Path:
        """Where a zone's secrets are."""
        return self.root / "keys" / zone

    def staff_key(self, role: str) -> Path:
        """Where the operator's or the importer's key is."""
        return self.keys("staff") / f"{role}.key"

    def postgres_password(self, zone: str) -> Path:
        """The password of a zone's database role, as PostgreSQL's clients read it (pgpass)."""
        return self.keys(zone) / "postgres.pass"

    def valkey_password(self, zone: str) -> Path:
        """The password of a zone's user of Valkey."""
        return self.keys(zone) / "valkey.pass"

    def tls_certificate(self, zone: str) -> Path:
        """What a zone shows to others when its services run apart (PEM)."""
        return self.keys(zone) / "tls.pem"

    def tls_key(self, zone: str) -> Path:
        """What it proves that with (PEM)."""
        return self.keys(zone) / "tls.key"

    @property
    def tls_authority(self) -> Path:
        """Who signed the zones' certificates (PEM)."""
        return self.root / "authority.pem"

    def log(self, process: str) -> Path:
        """The log of a process: ``parley`` that of the one that was started, otherwise a service's name."""
        return self.root / f"{process}.log"

    @property
    def trust(self) -> Path:
        """The key set that everything else is checked with."""
        return self.root / "trust.json"

    @property
    def policy(self) -> Path:
        """The log policy that receipts are checked with."""
        return self.root / "policy"

    @property
    def staff(self) -> Path:
        """Who may sign in as operator or importer."""
        return self.root / "staff.json"

    @property
    def published(self) -> Path:
        """The newest checkpoint that was published: kept apart from the database, so that no restore can fork the log."""
        return self.root / "published" / "checkpoint"

    @property
    def people(self) -> Path:
        """Where the command line keeps customers' and marketers' own keys."""
        return self.root / "people"

    @property
    def lock(self) -> Path:
        """Held by whoever runs on it, from before the first step to after the last."""
        return self.root / "up.lock"

    @property
    def _running(self) -> Path:
        return self.root / "running.json"

    def started(self, running: Running) -> None:
        """Note where Parley answers."""
        self._running.write_text(
            json.dumps({**running.__dict__, "begun": _begun(running.pid), "home": str(self.root)}) + "\n"
        )

    def stopped(self) -> None:
        """Note that it doesn't any more."""
        self._running.unlink(missing_ok=True)

    def running(self) -> Running:
        """
        Where Parley answers. Raises NotRunning.

        A note that a killed process left doesn't count, whoever has its id now; nor does one that was copied with its home.
        """
        with suppress(OSError, ValueError, AttributeError, TypeError):
            note = json.loads(self._running.read_text())
            begun, home = note.pop("begun", None), note.pop("home", None)  # one of an earlier version doesn't say
            running = Running(**{**note, "told": tuple(note.get("told", ()))})
            if home in (None, str(self.root)) and begun in (None, _begun(running.pid)):
                return running
        raise NotRunning(f"nothing runs on {self.root}: start it with `parley up`")


def _begun(pid: int) -> int:
    """When a process began, in the kernel's ticks since the machine did (proc_pid_stat(5)). Raises OSError where it has ended."""
    state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    if state in "ZX":
        raise ProcessLookupError
    return int(fields[18])
