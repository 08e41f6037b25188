"""
What each zone may do: ``trust-zones.toml``, read once at start. What it does not list is refused.

Who may call what is checked by every server; what a database role may do with its tables, and who reads whose events, is
granted by whoever runs the databases.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from parley_rpc.principal import KINDS, Principal

_FILE = "trust-zones.toml"
_OPEN_TO_ALL = ("/grpc.health.v1.Health/", "/grpc.reflection.v1alpha.ServerReflection/")
_SERVICE = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*\.[A-Z][A-Za-z0-9]*")
_METHOD = re.compile(r"[A-Z][A-Za-z0-9]*")
_VERBS = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE"})

_Caller = tuple[str, str]  # (kind, service name or nothing), so that no service can be named into a kind


Tables = Mapping[str, tuple[str, ...]]
"""What a database role may do (SELECT, INSERT, ...) with each table; with others, nothing."""


@dataclass(frozen=True, slots=True)
class Zone:
    """One service: in prose, for the documentation, and what its database role may do."""

    knows: str
    must_never_know: str
    tables: Tables


@dataclass(frozen=True, slots=True)
class Zones:
    """
    All zones, and what passes between them.

    ``calls`` maps a full method (``/package.Service/Method``) to those who may call it, ``readers`` each zone that writes
    events to those who read them.
    """

    zones: Mapping[str, Zone]
    calls: Mapping[str, frozenset[_Caller]] = field(repr=False)
    readers: Mapping[str, tuple[str, ...]] = field(repr=False)

    @classmethod
    def load(cls, path: Path | None = None) -> "Zones":
        """
        Read ``path``, or the copy in the package, or the source tree's ``deploy/``. Raises ValueError on any mistake.

        Unknown keys, undeclared callers, empty and repeated entries are mistakes: a typo must not open or close a door.
        """
        return cls.parse((path or _find()).read_text(encoding="utf-8"))

    @classmethod
    @lru_cache(1)  # doctor asks once for each service
    def parse(cls, text: str) -> "Zones":
        """Read the text of such a file. Raises ValueError (of which TOMLDecodeError is one)."""
        document = tomllib.loads(text)
        _expect(document, {"tables", "zones", "calls", "events"}, "the file")
        zones = {name: _zone(name, entry, document["tables"]) for name, entry in document["zones"].items()}
        allowed: dict[str, frozenset[_Caller]] = {}
        for method, caller in _edges(document["calls"], zones):
            callers = allowed.get(method, frozenset())
            if caller in callers:
                raise ValueError(f"{method} is listed twice for {caller[1] or caller[0]}")
            allowed[method] = callers | {caller}
        return cls(zones, allowed, dict(_streams(document["events"], zones)))

    def allows(self, principal: Principal, full_method: str) -> bool:
        """Whether ``principal`` may call ``/package.Service/Method``. Health and reflection are everybody's."""
        if full_method.startswith(_OPEN_TO_ALL):
            return True
        callers = self.calls.get(full_method, frozenset())
        name = principal.id if principal.kind == "service" else ""
        return (principal.kind, name) in callers or ("anyone", "") in callers

    def callees(self, name: str) -> tuple[str, ...]:
        """The zones that a zone calls by right of its own, in the file's order."""
        called = {method.split(".")[1] for method, callers in self.calls.items() if ("service", name) in callers}
        return tuple(zone for zone in self.zones if zone in called)

    def reads(self, name: str) -> tuple[str, ...]:
        """The zones whose events a zone reads."""
        return tuple(writer for writer, readers in self.readers.items() if name in readers)


def _find() -> Path:
    packaged = Path(str(files("parley_rpc"))) / _FILE
    return packaged if packaged.exists() else Path(__file__).parents[2] / "deploy" / _FILE


def _expect(table: Mapping[str, Any], keys: set[str], where: str) -> None:
    if wrong := set(table) ^ keys:
        raise ValueError(f"{where} must hold exactly {sorted(keys)}: see {sorted(wrong)}")


def _zone(name: str, entry: Mapping[str, Any], shared: Mapping[str, list[str]]) -> Zone:
    _expect(entry, {"knows", "must_never_know", "tables"}, f"zone {name}")
    if name in KINDS:
        raise ValueError(f"a zone can't be called {name}: that is a kind of caller")
    return Zone(entry["knows"], entry["must_never_know"], _tables(name, shared, entry["tables"]))


def _tables(name: str, shared: Mapping[str, list[str]], own: Mapping[str, list[str]]) -> Tables:
    if repeated := shared.keys() & own.keys():
        raise ValueError(f"tables that every zone has are listed for {name}, too: {sorted(repeated)}")
    for table, verbs in {**shared, **own}.items():
        if not verbs or set(verbs) - _VERBS or len(set(verbs)) < len(verbs):
            raise ValueError(f"what {name} may do with {table} must be a list of {sorted(_VERBS)}, each once")
    return {table: tuple(verbs) for table, verbs in {**shared, **own}.items()}


def _streams(events: list[Mapping[str, Any]], zones: Mapping[str, Zone]) -> Iterator[tuple[str, tuple[str, ...]]]:
    seen: set[str] = set()
    for entry in events:
        _expect(entry, {"writer", "readers"}, "each of [[events]]")
        writer, readers = entry["writer"], entry["readers"]
        if strangers := {writer, *readers} - zones.keys():
            raise ValueError(f"of those who write and read events {sorted(strangers)} are no zones")
        if writer in seen or writer in readers or not readers or len(set(readers)) < len(readers):
            raise ValueError(f"events of {writer} must be listed once, with other zones that read them, each once")
        seen.add(writer)
        yield writer, tuple(readers)


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
