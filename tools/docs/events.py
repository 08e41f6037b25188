"""docs/events.md: what each service publishes, and who reads it."""

import re
from collections.abc import Sequence
from pathlib import Path

from parley_rpc.zones import Zones
from tools.docs import markdown, protos

_SERVICES = Path(__file__).parents[2] / "services"
_INTRO = """\
A service tells the others what happened by events. The event and the change that it tells of commit in one transaction. A relay
then gives each event the next number of the service's stream and publishes it in Valkey. A reader applies an event and notes its
id in one transaction, so a repeat changes nothing. PostgreSQL is the truth: an emptied Valkey is filled again from there.

Every event travels in a `parley.common.v1.EventEnvelope`: an id (UUIDv7), the type, the time and the trace. No event holds a
value, a name or an address. An event with a `note`, or `notes`, becomes part of the audit log: a note's commitment is public, the
rest is sealed to audit, the reference to the customer concerned as well.

An event that a reader fails on five times is set aside as a dead letter in that reader's database, until the operator has it
tried again ([operations.md](operations.md)). Audit never sets one aside, nor does consent one of identity's."""


def page() -> str:
    """The page."""
    zones = Zones.load()
    parts = [_stream(name, zones.readers[name]) for name in zones.zones]
    return markdown.page("Events", "the `_events.proto` files and deploy/trust-zones.toml", _INTRO, *parts)


def _stream(service: str, readers: Sequence[str]) -> str:
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


def _applying(event: protos.Element, readers: Sequence[str]) -> list[str]:
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
