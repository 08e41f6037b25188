"""docs/trust-zones.md: what each zone knows, and who may call which of its RPCs."""

from parley_rpc.zones import Zones
from tools.docs import markdown, protos

_INTRO = """\
Parley is several services. Each is a zone of trust: it has its own database, database role, keys and list of callers. No zone
needs to know what another one knows, and a copy of one zone's data is of little use by itself.

The call graph stands once, in `deploy/trust-zones.toml`. Every server builds its allow list from it, so an RPC that is not
listed there is refused with `CALLER_NOT_ALLOWED`. Callers are zones, or people by what their token says: `customer`, `marketer`,
`importer`, `operator`. `anyone` needs no token. Broker is the only zone that calls others."""

_LIMIT = """\
## What separates them

Keys, databases and database roles are apart: a copy of one zone's database, or of its keys, is no more than that. Processes
are not apart yet. `parley up` runs all services in one process and one memory: the calls between them pass the same guards,
but whoever reads that memory reads everything. Use it to try and to test."""


def page() -> str:
    """The page."""
    zones = Zones.load()
    parts = [_zone(zones, name) for name in zones.zones]
    return markdown.page("Trust zones", "`deploy/trust-zones.toml` and the protos", _INTRO, *parts, _LIMIT)


def _zone(zones: Zones, name: str) -> str:
    zone = zones.zones[name]
    rows = [
        (f"`{method}`", ", ".join(_callers(zones, service.name, method)), protos.first_sentence(comment))
        for service in protos.of_kind("service")
        if service.name.startswith(f"parley.{name}.")
        for method, comment in service.members.items()
    ]
    about = f"Knows: {zone.knows}.\n\nMust never know: {zone.must_never_know}."
    return f"## {name}\n\n{about}\n\n{markdown.table(('RPC', 'called by', 'what it does'), rows)}"


def _callers(zones: Zones, service: str, method: str) -> list[str]:
    return sorted(name or kind for kind, name in zones.calls.get(f"/{service}/{method}", frozenset()))
