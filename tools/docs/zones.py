"""docs/trust-zones.md: what each zone knows, and who may call which of its RPCs."""

from collections.abc import Sequence

from parley_rpc.zones import Zones
from tools.docs import markdown, protos

_INTRO = """\
Parley is several services. Each is a zone of trust: it has its own database, database role, keys and list of callers. No zone
needs to know what another one knows, and a copy of one zone's data is of little use by itself.

The call graph stands once, in `deploy/trust-zones.toml`. Every server builds its allow list from it, so an RPC that is not
listed there is refused with `CALLER_NOT_ALLOWED`. Callers are zones, or people by what their token says: `customer`, `marketer`,
`importer`, `operator`. `anyone` needs no token. Broker is the only zone that calls others.

What a zone's database role may do is granted from the same file, table by table, at every start and by `parley migrate`:
databases and tables belong to the administrator. So is what its user of Valkey may do: write its own stream, and read those that
it is listed for. A reader can't be kept from reading a stream as another of its readers; what concerns a customer in an event is
sealed to one of them. Nor can it be kept from acknowledging in the other's name. Consent therefore keeps each event until audit
has said, in a stream of its own, that the event is in the log: whoever takes it in audit's place hides nothing, and stops the
settling."""

_LIMIT = """\
## What separates them

Keys, databases, database roles and users of Valkey are apart: a copy of one zone's database, or of its keys, is no more than
that. With `parley up --split` processes are apart, too: each reads its own secrets only, and calls others with its certificate
(see [Processes apart](architecture.md#processes-apart)). `parley up` alone runs all services in one process and one memory: the
calls between them pass the same guards, but whoever reads that memory reads everything. Use it to try and to test."""


def page() -> str:
    """The page."""
    zones = Zones.load()
    parts = [_zone(zones, name) for name in zones.zones]
    return markdown.page("Trust zones", "`deploy/trust-zones.toml` and the protos", _INTRO, *parts, _LIMIT)


def _zone(zones: Zones, name: str) -> str:
    zone = zones.zones[name]
    calls = [
        (f"`{method}`", ", ".join(_callers(zones, service.name, method)), protos.first_sentence(comment))
        for service in protos.of_kind("service")
        if service.name.startswith(f"parley.{name}.")
        for method, comment in service.members.items()
    ]
    about = f"Knows: {zone.knows}.\n\nMust never know: {zone.must_never_know}."
    tables = [(f"`{table}`", ", ".join(verbs)) for table, verbs in zone.tables.items()]
    return "\n\n".join(
        (
            f"## {name}",
            about,
            markdown.table(("RPC", "called by", "what it does"), calls),
            markdown.table(("table", f"what the role `parley_{name}` may do with it"), tables),
            _events(zones, name),
        )
    )


def _events(zones: Zones, name: str) -> str:
    reads = f"It reads the events of {_and(zones.reads(name))}." if zones.reads(name) else "It reads nobody's events."
    return f"Its own events are read by {_and(zones.readers[name])}. {reads}"


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _callers(zones: Zones, service: str, method: str) -> list[str]:
    return sorted(name or kind for kind, name in zones.calls.get(f"/{service}/{method}", frozenset()))
