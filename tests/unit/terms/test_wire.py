"""Terms on the wire: what is enforced comes through, and every other part is named, those that do not exist yet too."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from parley.common.v1 import terms_pb2 as termspb
from parley.vault.v1 import vault_pb2 as vaultpb
from parley_terms.terms import (
    AllOf,
    AnyOf,
    Channel,
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
    each_criterion,
)
from parley_terms.values import Attribute, ValueType
from parley_terms.wire import (
    attribute_from,
    criteria_asked,
    criteria_from,
    field_from,
    field_to,
    question_from,
    question_to,
    terms_from,
    timestamp,
)

# All that is enforced. A part that is added to the proto is refused by path until it stands here and in the code.
ENFORCED = {
    "content.fields.attribute",
    "content.fields.form",
    "content.fields.question.one_of.values",
    "content.fields.question.range.min",
    "content.fields.question.range.max",
    "content.use",
    "purposes",
    "mode.channels",
    "mode.identity_level",
    "timing.validity.start_time",
    "timing.validity.end_time",
    "timing.decision_deadline",
}
NAMED_OTHERWISE = {"content.fields.band_width": "content.fields[0].form"}
WHOLE = {"google.protobuf.Timestamp", "google.protobuf.Duration"}
ENFORCED_CHANNELS = {"CHANNEL_DATA", "CHANNEL_WEB_INBOX"}


def leaves(descriptor: Descriptor, prefix: str = "") -> Iterator[str]:
    for field in descriptor.fields:
        if field.message_type is None or field.message_type.full_name in WHOLE:
            yield prefix + field.name
        else:
            yield from leaves(field.message_type, f"{prefix}{field.name}.")


def nodes(descriptor: Descriptor, prefix: str = "") -> Iterator[str]:
    """Messages on the way to nothing that is enforced: set, though empty, they say something."""
    for field in descriptor.fields:
        path = prefix + field.name
        if field.message_type is not None and not any(each.startswith(path) for each in ENFORCED):
            yield path
        elif field.message_type is not None and field.message_type.full_name not in WHOLE:
            yield from nodes(field.message_type, f"{path}.")


def put(message: Any, path: str) -> None:
    name, _, rest = path.partition(".")
    field = message.DESCRIPTOR.fields_by_name[name]
    if field.message_type is not None:
        inner = getattr(message, name).add() if field.is_repeated else getattr(message, name)
        inner.SetInParent()
        if name == "fields":
            inner.form = termspb.FORM_EXACT
        if rest:
            put(inner, rest)
    elif field.is_repeated:
        getattr(message, name).append(_some(field))
    else:
        setattr(message, name, _some(field))


def _some(field: FieldDescriptor) -> Any:
    return {FieldDescriptor.CPPTYPE_STRING: "text", FieldDescriptor.CPPTYPE_BOOL: True}.get(field.cpp_type, 1)


def terms_with(path: str) -> termspb.Terms:
    message = termspb.Terms()
    put(message, path)
    return message


def named(path: str) -> str:
    """The part of the terms that a path is of: that is what is refused."""
    parts = path.split(".")
    return NAMED_OTHERWISE.get(path) or ".".join(parts[:1] if parts[0] in ("goals", "obligations") else parts[:2])


LEAVES = sorted(leaves(termspb.Terms.DESCRIPTOR))


def test_list_of_what_is_enforced_names_parts_that_there_are() -> None:
    assert {*LEAVES} >= ENFORCED
    assert 20 < len(LEAVES)


@pytest.mark.parametrize("path", [path for path in LEAVES if path not in ENFORCED])
def test_part_that_is_not_enforced_is_named(path: str) -> None:
    assert (named(path),) == terms_from(terms_with(path)).unsupported


@pytest.mark.parametrize("path", sorted(nodes(termspb.Terms.DESCRIPTOR)))
def test_part_that_is_not_enforced_is_named_even_where_it_is_empty(path: str) -> None:
    assert (named(path),) == terms_from(terms_with(path)).unsupported


@pytest.mark.parametrize("path", sorted(ENFORCED))
def test_part_that_is_enforced_is_not_named_and_changes_the_terms(path: str) -> None:
    terms = terms_from(terms_with(path))

    assert () == terms.unsupported
    if path != "mode.identity_level":  # its one enforced value is what is meant without it
        assert Terms() != terms


@pytest.mark.parametrize("value", list(termspb.Channel.DESCRIPTOR.values), ids=lambda value: value.name)
def test_every_channel_is_enforced_or_named(value: Any) -> None:
    terms = terms_from(termspb.Terms(mode=termspb.Mode(channels=[termspb.CHANNEL_DATA, value.number])))
    enforced = value.name in ENFORCED_CHANNELS

    assert (() if enforced else ("mode.channels[1]",)) == terms.unsupported
    assert ({Channel.DATA, Channel(value.number)} if enforced else {Channel.DATA}) == terms.channels


@pytest.mark.parametrize("value", list(termspb.IdentityLevel.DESCRIPTOR.values), ids=lambda value: value.name)
def test_whoever_is_to_be_more_than_a_pseudonym_is_named(value: Any) -> None:
    terms = terms_from(termspb.Terms(mode=termspb.Mode(identity_level=value.number)))
    enforced = value.name in ("IDENTITY_LEVEL_UNSPECIFIED", "IDENTITY_LEVEL_PSEUDONYMOUS")

    assert (() if enforced else ("mode.identity_level",)) == terms.unsupported


def test_every_form_and_use_is_known_and_bands_are_named_by_place() -> None:
    known = {value.number for value in termspb.Form.DESCRIPTOR.values} - {0}
    fields = [termspb.Field(attribute="profile.age", form=termspb.Form.ValueType(number)) for number in sorted(known)]
    terms = terms_from(termspb.Terms(content=termspb.Content(fields=fields)))

    assert {*Form} == {field.form for field in terms.fields}
    assert ("content.fields[1].form",) == terms.unsupported
    assert {*Use} == {value.number for value in termspb.Use.DESCRIPTOR.values} - {0}


def test_several_parts_are_all_named() -> None:
    message = termspb.Terms()
    unsupported = ["content.inward", "timing.place", "goals", "obligations"]
    for path in unsupported:
        put(message, path)

    assert sorted(unsupported) == sorted(terms_from(message).unsupported)


def test_whole_terms_are_read() -> None:
    start, end, deadline = (datetime(2030, month, 1, tzinfo=UTC) for month in (1, 3, 2))
    message = termspb.Terms(
        content=termspb.Content(
            fields=[
                termspb.Field(attribute="profile.city", form=termspb.FORM_EXACT),
                termspb.Field(
                    attribute="profile.age", form=termspb.FORM_ANSWER, question=question_to(Range("18", None))
                ),
            ],
            use=termspb.USE_ONE_TIME,
        ),
        purposes=["https://w3id.org/dpv#Marketing"],
        mode=termspb.Mode(channels=[termspb.CHANNEL_WEB_INBOX, termspb.CHANNEL_DATA]),
        timing=termspb.Timing(
            validity=termspb.Validity(start_time=timestamp(start), end_time=timestamp(end)),
            decision_deadline=timestamp(deadline),
        ),
    )
    assert Terms(
        (Field("profile.city", Form.EXACT), Field("profile.age", Form.ANSWER, Range("18"))),
        Use.ONE_TIME,
        frozenset({"https://w3id.org/dpv#Marketing"}),
        frozenset({Channel.DATA, Channel.WEB_INBOX}),
        Validity(start, end),
        deadline,
    ) == terms_from(message)


def test_nothing_set_is_nothing_said() -> None:
    assert Terms() == terms_from(termspb.Terms())


@pytest.mark.parametrize("question", [OneOf(("a", "b")), Range("1", "2"), Range("1"), Range(None, "2")])
def test_questions_and_fields_come_back_as_they_were(question: Question) -> None:
    field = Field("profile.age", Form.ANSWER, question)

    assert question == question_from(question_to(question))
    assert field == field_from(field_to(field))
    assert Field("profile.age", Form.EXACT) == field_from(field_to(Field("profile.age", Form.EXACT)))


def test_question_without_a_test_is_a_range_without_bounds() -> None:
    assert Range() == question_from(termspb.Question())


def test_moments_come_back_to_the_microsecond() -> None:
    moment = datetime(2030, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)

    assert moment == timestamp(moment).ToDatetime(tzinfo=UTC)


def criterion(attribute: str) -> termspb.Criteria:
    return termspb.Criteria(test=termspb.Criterion(attribute=attribute, question=question_to(OneOf(("a",)))))


def test_criteria_are_read_whole_and_each_test_is_told() -> None:
    negated = termspb.Criteria()
    getattr(negated, "not").CopyFrom(criterion("c.c"))
    some = termspb.Criteria(any_of=termspb.CriteriaList(criteria=[criterion("b.b"), negated]))
    message = termspb.Criteria(all_of=termspb.CriteriaList(criteria=[criterion("a.a"), some]))
    one, two, three = (Criterion(name, OneOf(("a",))) for name in ("a.a", "b.b", "c.c"))

    assert AllOf((one, AnyOf((two, Not(three))))) == criteria_from(message)
    assert [one, two, three] == list(each_criterion(criteria_from(message)))


@pytest.mark.parametrize("path", ["", "all_of.criteria", "any_of.criteria", "not"])
def test_empty_condition_is_refused_wherever_it_stands(path: str) -> None:
    message = termspb.Criteria()
    if path:
        put(message, path)

    with pytest.raises(ValueError, match="a condition is empty"):
        criteria_from(message)


def negated(inner: termspb.Criteria, times: int) -> termspb.Criteria:
    for _ in range(times):
        outer = termspb.Criteria()
        getattr(outer, "not").CopyFrom(inner)
        inner = outer
    return inner


def all_of(parts: list[termspb.Criteria]) -> termspb.Criteria:
    return termspb.Criteria(all_of=termspb.CriteriaList(criteria=parts))


def test_as_many_conditions_are_read_as_there_may_be() -> None:
    most = all_of([negated(criterion("a.a"), 1) for _ in range(64)] + [criterion("a.a")] * 31)

    assert 64 + 31 == len(list(each_criterion(criteria_asked(most))))
    assert criteria_asked(negated(criterion("a.a"), 7)) == criteria_from(negated(criterion("a.a"), 7))


@pytest.mark.parametrize(
    "message",
    [
        all_of([negated(criterion("a.a"), 1) for _ in range(80)]),  # the same question, and 161 conditions
        all_of([all_of([criterion("a.a")] * 19)] * 8),
        negated(criterion("a.a"), 8),
    ],
)
def test_more_conditions_than_anybody_asks_are_refused(message: termspb.Criteria) -> None:
    with pytest.raises(ValueError, match="more than 160 conditions"):
        criteria_asked(message)
    assert criteria_from(message) is not None  # what was asked before there was a limit is read still


def test_every_kind_of_condition_is_read() -> None:
    kinds = [field.name for field in termspb.Criteria.DESCRIPTOR.oneofs_by_name["node"].fields]

    assert ["test", "all_of", "any_of", "not"] == kinds


def test_attribute_of_the_catalogue_is_read_in_all_its_parts() -> None:
    attribute = Attribute(
        "profile.age", "Age.", ValueType.INTEGER, "years", ("a",), "p", "0", "130", "category", Level.VERIFIED
    )
    message = vaultpb.Attribute(
        name="profile.age",
        description="Age.",
        type=vaultpb.VALUE_TYPE_INTEGER,
        unit="years",
        choices=["a"],
        pattern="p",
        min="0",
        max="130",
        category="category",
        least_level=termspb.VERIFICATION_LEVEL_VERIFIED,
    )
    assert attribute == attribute_from(message)
    assert {field.name for field in vaultpb.Attribute.DESCRIPTOR.fields} == {*Attribute.__dataclass_fields__}


def test_kinds_and_levels_are_those_of_the_protos() -> None:
    for ours, theirs in ((ValueType, vaultpb.ValueType), (Level, termspb.VerificationLevel)):
        numbers = {re.sub(r"^(VALUE_TYPE|VERIFICATION_LEVEL)_", "", name): number for name, number in theirs.items()}
        assert numbers == {"UNSPECIFIED": 0} | {each.name: each.value for each in ours}
