"""What keeps a test run honest: a clean environment, no network, and in CI no test that skips unnoticed."""

import ipaddress
import re
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import pytest

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)
KEPT = re.compile(r"PARLEY_(DATA|VECTORS|SERVERS|NODE|SEED)|PARLEY_\w+_URL")
ALLOWED_SKIPS = Path(__file__).parents[1] / "allowed-skips.txt"


class NetworkForbiddenError(RuntimeError):
    """A test tried to reach beyond this machine."""


def unwanted(environ: Mapping[str, str]) -> list[str]:
    """Names of Parley's settings in the environment that tests must not see."""
    return [name for name in environ if name.startswith("PARLEY_") and not KEPT.fullmatch(name)]


def allowed_skips() -> list[re.Pattern[str]]:
    """Read the reasons for which a test may skip in CI: one regular expression a line, ``#`` starts a comment."""
    lines = (line.strip() for line in ALLOWED_SKIPS.read_text(encoding="utf-8").splitlines())
    return [re.compile(line) for line in lines if line and not line.startswith("#")]


def is_allowed(reason: str, patterns: Iterable[re.Pattern[str]]) -> bool:
    """Whether a skip's whole reason matches one of the patterns."""
    return any(pattern.fullmatch(reason) for pattern in patterns)


def judge(report: Report, environ: Mapping[str, str]) -> Report:
    """In CI, turn a skip for an unlisted reason into a failure; an expected failure is no skip."""
    if not (environ.get("CI") and report.skipped) or hasattr(report, "wasxfail"):
        return report
    reason = str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)
    if not is_allowed(reason.removeprefix("Skipped: "), allowed_skips()):
        report.outcome = "failed"
        report.longrepr = f"unexpected skip in CI (see {ALLOWED_SKIPS.name}): {reason}"
    return report


def is_local(family: int, address: Any) -> bool:
    """Whether a socket address stays on this machine."""
    if family not in (socket.AF_INET, socket.AF_INET6):
        return True
    host = str(address[0]).partition("%")[0]
    return host == "localhost" or (_is_ip(host) and ipaddress.ip_address(host).is_loopback)


def forbid_network() -> None:
    """Make every Python socket of this process refuse to connect anywhere but to this machine."""
    for name in ("connect", "connect_ex"):
        setattr(socket.socket, name, _guarded(getattr(socket.socket, name)))


def _guarded(connect: Any) -> Any:
    def guarded(self: socket.socket, address: Any) -> Any:
        if not is_local(self.family, address):
            raise NetworkForbiddenError(f"tests stay on this machine: connection to {address[0]} refused")
        return connect(self, address)

    return guarded


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
