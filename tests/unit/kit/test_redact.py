import ast
from collections.abc import Iterator
from pathlib import Path

from parley_kit.redact import ALLOWED_LOG_FIELDS, keep_allowed

PERSONAL = {"value", "name", "address", "email", "subject", "customer", "pseudonym", "token", "key", "row", "code_hash"}


def test_allowed_fields_are_kept_as_they_are() -> None:
    fields = {"event": "started", "code": 3, "count": 7400}

    assert fields == keep_allowed(fields)


def test_anything_else_is_named_and_never_shown() -> None:
    assert {"event": "put", "dropped": ["customer", "value"]} == keep_allowed(
        {"value": "Zürich", "event": "put", "customer": "c"}
    )


def test_what_was_dropped_can_not_be_smuggled_in() -> None:
    assert {"dropped": ["dropped"]} == keep_allowed({"dropped": ["Zürich"]})


def test_nothing_is_dropped_from_nothing() -> None:
    assert {} == keep_allowed({})


def test_no_field_for_personal_data_is_allowed() -> None:
    assert set() == PERSONAL & ALLOWED_LOG_FIELDS


SAYS = {"info", "warning", "error", "exception", "log", "bad", "bind_contextvars", "wrap_logger", "State", "_tell"}
"""What takes the fields of a line."""


def fields_written(tree: ast.AST) -> Iterator[str]:
    """Fields that a module puts into lines: as keywords of what says them, or as keys of a line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            yield from (word.arg for word in node.keywords if name in SAYS and word.arg)
        elif (
            isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant) and isinstance(node.ctx, ast.Store)
        ):
            yield str(node.slice.value)


def test_every_field_that_is_allowed_is_written_somewhere() -> None:
    root = Path(__file__).parents[3]
    sources = [path for folder in ("libs", "services") for path in (root / folder).glob("parley_*/**/*.py")]
    written = {field for path in sources for field in fields_written(ast.parse(path.read_text()))}

    assert {"event", "level", "timestamp"} == ALLOWED_LOG_FIELDS - written  # structlog's own
