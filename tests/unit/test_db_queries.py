import pytest

from parley_db.queries import Queries, load, parse

GOOD = """-- The queries of a test.

-- name: first
-- Asks the first thing.
SELECT 1
-- and why so
FROM a;

-- name: second
-- Asks the second thing.
SELECT 2;
"""


def test_a_file_becomes_named_statements_without_comments_and_semicolons() -> None:
    assert parse(GOOD, "test") == {"first": "SELECT 1\nFROM a", "second": "SELECT 2"}


def test_a_query_is_an_attribute() -> None:
    assert Queries("test", parse(GOOD, "test")).second == "SELECT 2"


def test_an_unknown_name_raises_and_says_where() -> None:
    with pytest.raises(AttributeError, match="test has no query named 'third'"):
        _ = Queries("test", parse(GOOD, "test")).third


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("-- name: a\n-- Is.\nSELECT 1;\n-- name: a\n-- Is.\nSELECT 2;", "'a' is malformed or used twice"),
        ("-- name: A b\n-- Is.\nSELECT 1;", "'A b' is malformed"),
        ("-- name:\n-- Is.\nSELECT 1;", "'' is malformed"),
        ("-- name: a\nSELECT 1;", "a has no sentence"),
        ("-- name: a\n-- Is.\n", "a has no SQL"),
        ("SELECT 1;\n-- name: a\n-- Is.\nSELECT 1;", "before the first"),
    ],
)
def test_a_malformed_file_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        parse(text, "test")


def test_the_shared_queries_load() -> None:
    assert "INSERT INTO outbox" in load("parley_db").outbox_append
    assert "relay_step" in load("parley_bus").relay_step
