"""A customer's history as they would tell it: what happened, with whom, and about what."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from parley.audit.v1 import audit_pb2 as auditpb
from parley_client.conditions import question_text
from parley_node.cli import show
from parley_terms.claims import question_of
from parley_terms.purposes import DPV

WORDS: Mapping[str, str] = {
    "identity:account:opened": "your account was opened",
    "identity:account:claimed": "you claimed your account",
    "vault:items:put": "you put items into your bank",
    "vault:items:deleted": "you deleted an item",
    "vault:items:discoverable": "you said who may match on an item",
    "consent:rule:made": "you made a rule",
    "consent:rule:ended": "you ended a rule",
    "consent:offer:made": "you were asked",
    "consent:offer:accepted": "you accepted",
    "consent:offer:refused": "you refused",
    "consent:offer:deferred": "you put it off",
    "consent:consent:born": "a rule of yours agreed",
    "consent:release:settled": "it was released",
    "broker:release:acknowledged": "the marketer has it",
    "consent:consent:paused": "you paused",
    "consent:consent:resumed": "you resumed",
    "consent:consent:withdrawn": "you withdrew",
    "consent:objection:made": "you objected to all marketing",
    "consent:objection:lifted": "you lifted your objection",
    "consent:notice:written": "notice was given",
}
"""What each kind of entry is in a customer's words; a kind of a newer version's stands for itself."""


def history_rows(entries: Sequence[auditpb.HistoryEntry], *, whole: bool) -> list[show.Row]:
    """Rows of a history, with all that it says if ``whole``; the numbers count from the newest, 1."""
    details = [json.loads(entry.detail) for entry in entries]
    if whole:
        return [_whole(number, *each) for number, each in enumerate(zip(entries, details, strict=True), start=1)]
    names = {one["marketer"]: one["marketer_name"] for one in details if one.get("marketer_name")}
    return [_told(number, *each, names) for number, each in enumerate(zip(entries, details, strict=True), start=1)]


def detail_text(value: Any) -> str:
    """Write a part of a detail for a person."""
    match value:
        case list():
            return ", ".join(map(detail_text, value))
        case {"pii_type": attribute, "form": "answer", "question": dict(asked)}:
            return f"whether {question_text(attribute, question_of(asked))}"
        case {"pii_type": attribute}:
            return str(attribute)
        case dict():
            return " ".join(f"{name} {detail_text(each)}" for name, each in value.items())
    return str(value).removeprefix(DPV)


def _whole(number: int, entry: auditpb.HistoryEntry, detail: Mapping[str, Any]) -> show.Row:
    return {
        "number": number,
        "time": show.moment(entry.time),
        "what": entry.kind,
        "detail": detail,
        "log_index": entry.log_index,
        "commitment": entry.commitment.hex(),
    }


def _told(number: int, entry: auditpb.HistoryEntry, detail: Mapping[str, Any], names: Mapping[str, str]) -> show.Row:
    marketer = detail.get("marketer", "")
    return {
        "number": number,
        "time": show.moment(entry.time),
        "what": WORDS.get(entry.kind, entry.kind),
        "with": names.get(marketer, marketer),
        "about": "; ".join(filter(None, _about(detail))),
    }


def _about(detail: Mapping[str, Any]) -> Iterable[str]:
    """What an entry is about: of what can be told, whatever its kind has."""
    yield ", ".join(_item(item) for item in detail.get("items", ()))
    yield detail_text(detail.get("fields", []))
    yield f"for {detail_text(detail['purposes'])}" if detail.get("purposes") else ""
    yield detail.get("effect", "")
    yield detail.get("notice", "")
    yield "by an import" if detail.get("imported") else ""


def _item(item: Mapping[str, Any]) -> str:
    return f"{item['attribute']} to {item['to']}" if "to" in item else str(item["attribute"])
