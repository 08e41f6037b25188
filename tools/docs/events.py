"""docs/events.md: what each service publishes, and who reads it."""

import re
from pathlib import Path

from parley_rpc.zones import Zones
from tools.docs import markdown, protos

_SERVICES = Path(__file__).parents[2] / "services"
_GROUPS = re.compile(r"Relay\(.*?groups=(READERS|\([^)]*\))", re.DOTALL)
_READERS = re.compile(r"^READERS = (\([^)]*\))", re.MULTILINE)
_NAME = re.compile(r'"(\w+)"')
_INTRO = """\
A service tells the others what happened by events. The event and the change that it tells of commit in one transaction. A relay
then gives each event the next number of the service's stream and publishes it in Valkey. A reader applies an event and notes its
id in one transaction, so a repeat changes nothing. PostgreSQL is the truth: an emptied Valkey is filled again from there.

Every event travels in a `parley.common.v1.EventEnvelope`: an id (UUIDv7), the type, the time and the trace. No event holds a
value, a name or an address. An event with a `note`, or `notes`, becomes part of the audit log: a note's commitment is public, the
rest is sealed to audit, the reference to the customer concerned as well.

An event that a reader fails on five times is set aside as a dead letter in that reader's database, until the operator has it
tried again ([operations.md](operations.md)). Audit never sets one aside."""


def page() -> str:
    """The page."""
    parts = [_stream(name) for name in Zones.load().zones]
    return markdown.page("Events", "the `_events.proto` files and the services' relays", _INTRO, *parts)


def _stream(service: str) -> str:
    readers = _readers(service)
    rows = [
        (f"`{_short(event.name)}`", event.comment, ", ".join(_applying(event, readers)), _fields(event))
        for event in _events(service)
    ]
    heading = f"## {service}\n\nRead by {' and '.join(readers)}."
    return f"{heading}\n\n{markdown.table(('event', 'what happened', 'who acts on it', 'fields'), rows)}"


def _events(service: str) -> list[protos.Element]:
    """Messages of the service's events file: those that nothing else would be the payload of."""
    text = (protos.PROTOS / f"parley/{service}/v1/{service}_events.proto").read_text(encoding="utf-8")
    names = set(re.findall(r"^message (\w+)", text, re.MULTILINE))
    messages = [each for each in protos.of_kind("message") if each.name.startswith(f"parley.{service}.")]
    return [each for each in messages if _short(each.name) in names]


def _readers(service: str) -> list[str]:
    """Who must acknowledge the service's events, as its relay is told."""
    sources = [_source(service, name) for name in ("app.py", "events.py")]
    (groups,) = _GROUPS.findall(sources[0])
    if groups == "READERS":
        (groups,) = _READERS.findall("\n".join(sources))
    return _NAME.findall(groups)


def _applying(event: protos.Element, readers: list[str]) -> list[str]:
    """Readers that do something with an event: audit logs whatever has a note, others name the event."""
    named = f"{_short(event.name)}.DESCRIPTOR.full_name"
    logs = ["audit"] if "audit" in readers and {"note", "notes"} & set(event.members) else []
    return logs + [name for name in readers if name != "audit" and named in _source(name, "events.py")]


def _fields(event: protos.Element) -> str:
    return markdown.code(event.members)


def _source(service: str, file: str) -> str:
    path = _SERVICES / f"parley_{service}" / file
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _short(name: str) -> str:
    return name.rpartition(".")[2]
