"""Who may call what: ``trust-zones.toml``, read once at start. What it does not list is refused."""

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from parley_rpc.principal import KINDS, Principal

_FILE = "trust-zones.toml"
_OPEN_TO_ALL = ("/grpc.health.v1.Health/", "/grpc.reflection.v1alpha.ServerReflection/")
_SERVICE = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*\.[A-Z][A-Za-z0-9]*")
_METHOD = re.compile(r"[A-Z][A-Za-z0-9]*")

_Caller = tuple[str, str]  # (kind, service name or nothing), so that no service can be named into a kind


@dataclass(frozen=True, slots=True)
class Zone:
    """One service in prose, for the documentation."""

    knows: str
    must_never_know: str


@dataclass(frozen=True, slots=True)
class Zones:
    """The call graph. ``calls`` maps a full method (``/package.Service/Method``) to those who may call it."""

    zones: Mapping[str, Zone]
    calls: Mapping[str, frozenset[_Caller]] = field(repr=False)

    @classmethod
    def load(cls, path: Path | None = None) -> "Zones":
        """
        Read ``path``, or the copy in the package, or the source tree's ``deploy/``. Raises ValueError on any mistake.

        Unknown keys, undeclared callers, empty and repeated entries are mistakes: a typo must not open or close a door.
        """
        return cls.parse((path or _find()).read_text(encoding="utf-8"))

    @classmethod
    def parse(cls, text: str) -> "Zones":
        """Read the text of such a file. Raises ValueError (of which TOMLDecodeError is one)."""
        document = tomllib.loads(text)
        _expect(document, {"zones", "calls"}, "the file")
        zones = {name: _zone(name, entry) for name, entry in document["zones"].items()}
        allowed: dict[str, frozenset[_Caller]] = {}
        for method, caller in _edges(document["calls"], zones):
            callers = allowed.get(method, frozenset())
            if caller in callers:
                raise ValueError(f"{method} is listed twice for {caller[1] or caller[0]}")
            allowed[method] = callers | {caller}
        return cls(zones, allowed)

    def allows(self, principal: Principal, full_method: str) -> bool:
        """Whether ``principal`` may call ``/package.Service/Method``. Health and reflection are everybody's."""
        if full_method.startswith(_OPEN_TO_ALL):
            return True
        callers = self.calls.get(full_method, frozenset())
        name = principal.id if principal.kind == "service" else ""
        return (principal.kind, name) in callers or ("anyone", "") in callers


def _find() -> Path:
    packaged = Path(str(files("parley_rpc"))) / _FILE
    return packaged if packaged.exists() else Path(__file__).parents[2] / "deploy" / _FILE


def _expect(table: Mapping[str, Any], keys: set[str], where: str) -> None:
    if wrong := set(table) ^ keys:
        raise ValueError(f"{where} must hold exactly {sorted(keys)}: see {sorted(wrong)}")


def _zone(name: str, entry: Mapping[str, Any]) -> Zone:
    _expect(entry, {"knows", "must_never_know"}, f"zone {name}")
    if name in KINDS:
        raise ValueError(f"a zone can't be called {name}: that is a kind of caller")
    return Zone(**entry)


def _edges(calls: list[Mapping[str, Any]], zones: Mapping[str, Zone]) -> Iterator[tuple[str, _Caller]]:
    for entry in calls:
        _expect(entry, {"caller", "service", "methods"}, "each of [[calls]]")
        caller = _caller(entry["caller"], zones)
        if not _SERVICE.fullmatch(entry["service"]):
            raise ValueError(f"{entry['service']!r} is no full service name")
        for method in _methods(entry):
            yield f"/{entry['service']}/{method}", caller


def _caller(name: str, zones: Mapping[str, Zone]) -> _Caller:
    if name in zones:
        return ("service", name)
    if name in KINDS - {"service"}:
        return (name, "")
    raise ValueError(f"caller {name!r} is neither a zone nor a kind of caller")


def _methods(entry: Mapping[str, Any]) -> list[str]:
    methods: list[str] = entry["methods"]
    if not methods or not all(_METHOD.fullmatch(method) for method in methods):
        raise ValueError(f"the methods of {entry['service']} must be a list of names, without wildcards")
    return methods
