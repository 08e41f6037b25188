"""
Requests against the rules that their protos state (``parley.common.v1.rules``), before any handler sees them.

One pass over the fields that are set; what a message type needs is worked out once. Nothing of a value is ever repeated
in a violation. A field that this version does not know is refused: it might be a dial that nobody here would enforce.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.unknown_fields import UnknownFieldSet

from parley.common.v1 import options_pb2
from parley_kit.faults import Violation
from parley_rpc.status import MAX_VIOLATIONS

MAX_TEXT = 1_024
MAX_BYTES = 65_536
MAX_ITEMS = 100
MAX_DEPTH = 64

_Check = Callable[[Any, int, list[Violation]], None]
_Entry = tuple[_Check | None, _Check | None]
_Test = Callable[[Any], object]  # by truth


@dataclass(frozen=True, slots=True)
class _Shape:
    """What one message type needs: fields that must be there, and a check per field number where there is one."""

    needed: tuple[tuple[str, str, _Test], ...]
    checks: Mapping[int, _Check]


def validate(message: Message) -> list[Violation]:
    """
    Violations of the rules, each with its proto path (``terms.fields[2].attribute``, map values as ``named[*]``).

    Empty when the message is good. Stops once there are as many as a status carries.
    """
    found: list[Violation] = []
    _walk(message, 1, found)
    return found[:MAX_VIOLATIONS]


def _walk(message: Message, depth: int, found: list[Violation]) -> None:
    if depth > MAX_DEPTH:
        found.append(Violation("", f"is nested deeper than {MAX_DEPTH} levels"))
        return
    if unknown := UnknownFieldSet(message):
        numbers = {entry.field_number for entry in unknown}  # type: ignore[attr-defined] # the stubs know the older protocol only
        few = sorted(numbers)[:MAX_VIOLATIONS]
        found.append(Violation("", f"holds fields that this version does not know: {few}"))
    shape = _shape(message.DESCRIPTOR)
    for name, description, is_met in shape.needed:
        if not is_met(message):
            found.append(Violation(name, description))
    for field, value in message.ListFields():
        check = shape.checks.get(field.number)
        if check and len(found) < MAX_VIOLATIONS:
            before = len(found)
            check(value, depth, found)
            if len(found) > before:
                _prefix(field.name, found, before)


def _prefix(name: str, found: list[Violation], start: int) -> None:
    for index in range(start, len(found)):
        rest = found[index].field
        joint = "." if rest and not rest.startswith("[") else ""
        found[index] = Violation(f"{name}{joint}{rest}", found[index].description)


@cache
def _shape(descriptor: Descriptor) -> _Shape:
    if descriptor.full_name in _TIMES:
        return _Shape((("", "is no valid time", _TIMES[descriptor.full_name]),), {})
    needed = [entry for field in descriptor.fields if (entry := _need(field))]
    checks = {field.number: check for field in descriptor.fields if (check := _check(field))}
    return _Shape(tuple(needed), checks)


def _is_timestamp(message: Timestamp) -> bool:
    return -62_135_596_800 <= message.seconds <= 253_402_300_799 and 0 <= message.nanos <= 999_999_999


def _is_duration(message: Duration) -> bool:
    alike = message.seconds == 0 or message.nanos == 0 or (message.seconds > 0) == (message.nanos > 0)
    return abs(message.seconds) <= 315_576_000_000 and abs(message.nanos) <= 999_999_999 and alike


# Outside these ranges (stated in the well-known protos) every conversion in a handler would raise.
_TIMES: Mapping[str, _Test] = {
    "google.protobuf.Timestamp": _is_timestamp,
    "google.protobuf.Duration": _is_duration,
}


def _rules(field: FieldDescriptor) -> options_pb2.FieldRules:
    return field.GetOptions().Extensions[options_pb2.rules]


def _need(field: FieldDescriptor) -> tuple[str, str, _Test] | None:
    rules = _rules(field)
    if field.is_repeated:
        least = rules.min_items or int(rules.required)
        return (field.name, f"needs {least} or more", partial(_has_items, field.name, least)) if least else None
    if not rules.required:
        return None
    emptiable = field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_ENUM)
    test = _has_field if field.has_presence and not emptiable else _has_value
    return (field.name, "is required", partial(test, field.name))


def _has_items(name: str, least: int, message: Any) -> bool:
    return len(getattr(message, name)) >= least


def _has_field(name: str, message: Any) -> bool:
    return bool(message.HasField(name))


def _has_value(name: str, message: Any) -> bool:
    return bool(getattr(message, name))


def _check(field: FieldDescriptor) -> _Check | None:
    if not field.is_repeated:
        return _check_one(field)
    most = _rules(field).max_items or MAX_ITEMS
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        entry = field.message_type.fields_by_name
        return partial(_check_map, most, (_check_one(entry["key"]), _check_one(entry["value"])))
    return partial(_check_items, most, _check_one(field))


def _check_items(most: int, check: _Check | None, values: Iterable[Any], depth: int, found: list[Violation]) -> None:
    if _too_many(most, values, found) or check is None:
        return
    for index, value in enumerate(values):
        before = len(found)
        check(value, depth, found)
        if len(found) > before:
            _prefix(f"[{index}]", found, before)
            if len(found) >= MAX_VIOLATIONS:
                return


def _check_map(most: int, parts: _Entry, values: Mapping[Any, Any], depth: int, found: list[Violation]) -> None:
    if _too_many(most, values, found):
        return
    before = len(found)
    for entry in values.items():
        for check, part in zip(parts, entry, strict=True):
            if check and len(found) < MAX_VIOLATIONS:
                check(part, depth, found)
    _prefix("[*]", found, before)  # a key may be anything, so it is never repeated


def _too_many(most: int, values: Any, found: list[Violation]) -> bool:
    if len(values) <= most:
        return False
    found.append(Violation("", f"has more than {most} elements"))
    return True


def _check_one(field: FieldDescriptor) -> _Check | None:
    rules = _rules(field)
    match field.type:
        case FieldDescriptor.TYPE_MESSAGE:
            return partial(_check_message, rules.max_len)
        case FieldDescriptor.TYPE_STRING:
            pattern = re.compile(rules.pattern) if rules.pattern else None
            return partial(_check_text, rules.max_len or MAX_TEXT, pattern)
        case FieldDescriptor.TYPE_BYTES:
            return partial(_check_bytes, rules.max_len or MAX_BYTES)
        case FieldDescriptor.TYPE_ENUM if field.enum_type:
            return partial(_check_enum, frozenset(field.enum_type.values_by_number))
        case FieldDescriptor.TYPE_DOUBLE | FieldDescriptor.TYPE_FLOAT:
            return _check_number
    return None


def _check_message(most: int, value: Message, depth: int, found: list[Violation]) -> None:
    if most and value.ByteSize() > most:
        found.append(Violation("", f"is longer than {most} bytes"))
    else:
        _walk(value, depth + 1, found)


def _check_text(most: int, pattern: re.Pattern[str] | None, value: str, _depth: int, found: list[Violation]) -> None:
    if len(value) > most:
        found.append(Violation("", f"is longer than {most} characters"))
    elif "\0" in value:  # no database keeps it
        found.append(Violation("", "holds a NUL character"))
    elif pattern and not pattern.fullmatch(value):
        found.append(Violation("", f"does not match {pattern.pattern}"))


def _check_bytes(most: int, value: bytes, _depth: int, found: list[Violation]) -> None:
    if len(value) > most:
        found.append(Violation("", f"is longer than {most} bytes"))


def _check_enum(known: frozenset[int], value: int, _depth: int, found: list[Violation]) -> None:
    if value not in known:
        found.append(Violation("", "is a choice that this version does not know"))


def _check_number(value: float, _depth: int, found: list[Violation]) -> None:
    if not math.isfinite(value):
        found.append(Violation("", "is not a finite number"))
