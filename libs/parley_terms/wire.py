"""Terms between wire and value. Parts that aren't enforced are never dropped: they are named in ``Terms.unsupported``."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp

from parley.common.v1 import terms_pb2 as termspb
from parley.vault.v1 import vault_pb2 as vaultpb
from parley_terms.terms import (
    AllOf,
    AnyOf,
    Channel,
    Criteria,
    Criterion,
    Field,
    Form,
    Level,
    Not,
    OneOf,
    Question,
    Range,
    Terms,
    Use,
    Validity,
)
from parley_terms.values import Attribute, ValueType

_UNENFORCED = {
    "": frozenset({"goals", "obligations"}),
    "content": frozenset({"inward"}),
    "timing": frozenset({"weekly_windows", "quiet_hours", "frequency_caps", "place"}),
}
"""What is refused where it is set, by the part of the terms that it is in."""
MOST_CONDITIONS, DEEPEST_CONDITION = 160, 8
"""Of criteria, questions and what joins them counted alike: vault asks each of everybody."""

_ENFORCED_CHANNELS = {channel.value for channel in Channel}


def terms_from(message: termspb.Terms) -> Terms:
    """Read terms from the wire."""
    return terms_read(message.SerializeToString(deterministic=True))


@lru_cache(4096)
def terms_read(raw: bytes) -> Terms:
    """Read terms as they are kept. Rules of many are alike to the letter, and one exchange's terms are read at every step."""
    message = termspb.Terms.FromString(raw)
    return Terms(
        fields=tuple(field_from(field) for field in message.content.fields),
        use=Use(message.content.use) if message.content.use else None,
        purposes=frozenset(message.purposes),
        channels=frozenset(Channel(channel) for channel in message.mode.channels if channel in _ENFORCED_CHANNELS),
        validity=Validity(
            _time(message.timing.validity, "start_time"),
            _time(message.timing.validity, "end_time"),
        ),
        decision_deadline=_time(message.timing, "decision_deadline"),
        unsupported=tuple(_unsupported(message)),
    )


def _unsupported(message: termspb.Terms) -> Iterator[str]:
    for index, field in enumerate(message.content.fields):
        if field.form == termspb.FORM_BANDED or field.band_width:
            yield f"content.fields[{index}].form"
    for index, channel in enumerate(message.mode.channels):
        if channel not in _ENFORCED_CHANNELS:
            yield f"mode.channels[{index}]"
    if message.mode.identity_level > termspb.IDENTITY_LEVEL_PSEUDONYMOUS:
        yield "mode.identity_level"
    for part, names in _UNENFORCED.items():
        for known, _ in (getattr(message, part) if part else message).ListFields():
            if known.name in names:
                yield f"{part}.{known.name}" if part else known.name


def _time(message: Any, name: str) -> datetime | None:
    return getattr(message, name).ToDatetime(tzinfo=UTC) if message.HasField(name) else None


def timestamp(moment: datetime) -> Timestamp:
    """Write a moment."""
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp


def field_from(message: termspb.Field) -> Field:
    """Read a field."""
    question = question_from(message.question) if message.HasField("question") else None
    return Field(message.attribute, Form(message.form), question)


def field_to(field: Field) -> termspb.Field:
    """Write a field."""
    message = termspb.Field(attribute=field.attribute, form=termspb.Form.ValueType(field.form))
    if field.question is not None:
        message.question.CopyFrom(question_to(field.question))
    return message


def question_from(message: termspb.Question) -> Question:
    """Read a question; an empty one is a range without bounds, which no attribute accepts."""
    if message.WhichOneof("test") == "one_of":
        return OneOf(tuple(message.one_of.values))
    return Range(message.range.min or None, message.range.max or None)


def question_to(question: Question) -> termspb.Question:
    """Write a question."""
    match question:
        case OneOf(values):
            return termspb.Question(one_of=termspb.OneOf(values=values))
        case Range(least, most):
            return termspb.Question(range=termspb.Range(min=least or "", max=most or ""))


def criteria_asked(message: termspb.Criteria) -> Criteria:
    """Read what a request asks. Raises ValueError where a condition is empty, or there are too many, or too deep in others."""
    deepest, many = _extent(message)
    if many > MOST_CONDITIONS or deepest > DEEPEST_CONDITION:
        raise ValueError(f"has more than {MOST_CONDITIONS} conditions, or some are more than {DEEPEST_CONDITION} deep")
    return criteria_from(message)


def _extent(message: termspb.Criteria) -> tuple[int, int]:
    """How deep conditions are in one another, and how many there are."""
    within = [_extent(part) for part in _parts(message)]
    return 1 + max((deep for deep, _ in within), default=0), 1 + sum(many for _, many in within)


def _parts(message: termspb.Criteria) -> Sequence[termspb.Criteria]:
    match message.WhichOneof("node"):
        case "all_of":
            return message.all_of.criteria
        case "any_of":
            return message.any_of.criteria
        case "not":
            return [getattr(message, "not")]
    return []


def criteria_from(message: termspb.Criteria) -> Criteria:
    """Read criteria. Raises ValueError where a condition is empty."""
    match message.WhichOneof("node"):
        case "test":
            return Criterion(message.test.attribute, question_from(message.test.question))
        case "all_of":
            return AllOf(tuple(criteria_from(part) for part in message.all_of.criteria))
        case "any_of":
            return AnyOf(tuple(criteria_from(part) for part in message.any_of.criteria))
        case "not":
            return Not(criteria_from(getattr(message, "not")))
    raise ValueError("a condition is empty")


def attribute_from(message: vaultpb.Attribute) -> Attribute:
    """Read an attribute of the catalogue."""
    return Attribute(
        name=message.name,
        description=message.description,
        type=ValueType(message.type),
        unit=message.unit,
        choices=tuple(message.choices),
        pattern=message.pattern,
        min=message.min,
        max=message.max,
        category=message.category,
        least_level=Level(message.least_level),
    )
