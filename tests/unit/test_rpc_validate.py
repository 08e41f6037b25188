import json

import pytest

from parley_kit.faults import Violation
from parley_rpc.status import MAX_VIOLATIONS
from parley_rpc.validate import validate
from tests.support import echo_pb2 as echopb


def good() -> echopb.Ruled:
    return echopb.Ruled(name="abc", tags=["a"], colour=echopb.COLOUR_RED, amount=0)


def changed(**fields: object) -> echopb.Ruled:
    message = good()
    for name in fields:
        message.ClearField(name)  # type: ignore[arg-type]
    message.MergeFrom(echopb.Ruled(**fields))  # type: ignore[arg-type]
    return message


def nested(depth: int) -> echopb.Child:
    child = echopb.Child(name="x")
    for _ in range(depth - 1):
        child = echopb.Child(name="x", child=child)
    return child


def test_good_message_has_no_violations() -> None:
    assert validate(good()) == []


@pytest.mark.parametrize(
    ("message", "field", "description"),
    [
        (changed(name=""), "name", "is required"),
        (changed(name="abcdefghi"), "name", "is longer than 8 characters"),
        (changed(name="abC"), "name", "does not match [a-z]+"),
        (changed(name="abc\n"), "name", "does not match [a-z]+"),
        (changed(secret="ä" * 1025), "secret", "is longer than 1024 characters"),
        (changed(blob=bytes(65_537)), "blob", "is longer than 65536 bytes"),
        (changed(tags=[]), "tags", "needs 1 or more"),
        (changed(tags=["a"] * 4), "tags", "has more than 3 elements"),
        (changed(tags=["a", "abcde"]), "tags[1]", "is longer than 4 characters"),
        (changed(numbers=range(101)), "numbers", "has more than 100 elements"),
        (changed(colour=0), "colour", "is required"),
        (changed(colour=7), "colour", "is a choice that this version does not know"),
        (changed(colours=[1, 7]), "colours[1]", "is a choice that this version does not know"),
        (changed(child=echopb.Child()), "child.name", "is required"),
        (changed(children=[echopb.Child(name="x"), echopb.Child()]), "children[1].name", "is required"),
        (changed(named={"personal": echopb.Child()}), "named[*].name", "is required"),
        (changed(named={"k" * 1025: echopb.Child(name="x")}), "named[*]", "is longer than 1024 characters"),
        (changed(named={str(n): echopb.Child(name="x") for n in range(101)}), "named", "has more than 100 elements"),
        (changed(small=echopb.Child(name="abcdefghi")), "small", "is longer than 10 bytes"),
        (changed(small=nested(99)), "small", "is longer than 10 bytes"),  # and isn't looked into
        (changed(chosen=echopb.Child()), "chosen.name", "is required"),
        (changed(word="abcd"), "word", "is longer than 3 characters"),
        (changed(amount=None), "amount", "is required"),
        (changed(share=float("nan")), "share", "is not a finite number"),
        (changed(share=float("-inf")), "share", "is not a finite number"),
        (changed(at={"seconds": 253_402_300_800}), "at", "is no valid time"),
        (changed(at={"nanos": -1}), "at", "is no valid time"),
        (changed(span={"seconds": 1, "nanos": -1}), "span", "is no valid time"),
        (changed(span={"seconds": 315_576_000_001}), "span", "is no valid time"),
    ],
)
def test_broken_rule_is_named_with_its_path(message: echopb.Ruled, field: str, description: str) -> None:
    assert [Violation(field, description)] == validate(message)


@pytest.mark.parametrize(
    "message",
    [
        changed(name="abcdefgh"),
        changed(secret="ä" * 1024),
        changed(blob=bytes(65_536)),
        changed(tags=["abcd"] * 3),
        changed(numbers=range(100)),
        changed(child=nested(63)),
        changed(small=echopb.Child(name="abcdefgh")),
        changed(amount=-1),
        changed(at={"seconds": -62_135_596_800}, span={"seconds": -1, "nanos": -1}),
    ],
)
def test_limits_themselves_are_allowed(message: echopb.Ruled) -> None:
    assert validate(message) == []


def test_nesting_ends_at_64_levels() -> None:
    (violation,) = validate(changed(child=nested(64)))

    assert violation.description == "is nested deeper than 64 levels"
    assert violation.field.startswith("child.child.")


def test_field_from_the_future_is_refused_at_any_depth() -> None:
    unknown = b"\xa0\x06\x01"  # field 100, varint
    top = echopb.Ruled.FromString(good().SerializeToString() + unknown)
    deep = good()
    deep.children.append(echopb.Child.FromString(echopb.Child(name="x").SerializeToString() + unknown))

    assert [Violation("", "holds fields that this version does not know: [100]")] == validate(top)
    assert [Violation("children[0]", "holds fields that this version does not know: [100]")] == validate(deep)


def test_of_many_fields_from_the_future_as_few_are_named_as_of_other_mistakes() -> None:
    many = echopb.Ruled.FromString(good().SerializeToString() + b"".join(map(_unknown, range(2_000, 1_000, -1))))

    (violation,) = validate(many)

    named = violation.description.removeprefix("holds fields that this version does not know: ")
    assert json.loads(named) == list(range(1_001, 1_001 + MAX_VIOLATIONS))


def _unknown(number: int) -> bytes:
    key = number << 3  # a varint of two bytes: the field's number, and wire type 0
    return bytes([key & 0x7F | 0x80, key >> 7, 1])


def test_many_mistakes_are_cut_at_what_a_status_carries() -> None:
    children = [echopb.Child(child=echopb.Child()) for _ in range(100)]

    assert len(validate(changed(children=children))) == MAX_VIOLATIONS
    unread = echopb.Child.FromString(b"\xa0\x06\x01")  # two mistakes each: an odd one before them overshoots
    assert len(validate(changed(name="", children=[unread] * 100))) == MAX_VIOLATIONS
    assert len(validate(changed(named={str(n): echopb.Child() for n in range(100)}))) == MAX_VIOLATIONS


def test_no_value_is_repeated_in_a_violation() -> None:
    message = changed(name="JANE", word="jane", colours=[4711], named={"jane" * 300: echopb.Child()})

    assert "jane" not in repr(validate(message)).lower()
    assert "4711" not in repr(validate(message))
