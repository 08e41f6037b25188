"""SQL as text of its own: named, described queries in ``.sql`` files beside the code that uses them."""

import re
from collections.abc import Iterator, Mapping
from importlib.resources import files
from typing import LiteralString

_HEAD = re.compile(r"^-- name: *(?P<name>.*?) *$", re.MULTILINE)
_NAME = re.compile(r"[a-z][a-z0-9_]*")


class Queries:
    """The queries of one file, as attributes: ``queries.consent_insert``. An unknown name raises AttributeError."""

    def __init__(self, source: str, statements: Mapping[str, LiteralString]) -> None:
        self._source = source
        vars(self).update(statements)  # found as any attribute is: one is asked for with every statement

    def __getattr__(self, name: str) -> LiteralString:
        raise AttributeError(f"{self._source} has no query named {name!r}")


def load(package: str, filename: str = "queries.sql") -> Queries:
    """Read a package's queries. Raises ValueError for a malformed, undescribed, empty or repeated one."""
    text = files(package).joinpath(filename).read_text(encoding="utf-8")
    source = f"{package}/{filename}"
    return Queries(source, parse(text, source))


def parse(text: str, source: str) -> dict[str, LiteralString]:
    """Split ``-- name: x`` blocks into name and SQL. Raises ValueError (see :func:`load`)."""
    statements: dict[str, LiteralString] = {}
    for name, block in _blocks(text, source):
        if not _NAME.fullmatch(name) or name in statements:
            raise ValueError(f"{source}: query name {name!r} is malformed or used twice")
        statements[name] = _statement(block, f"{source}: {name}")
    return statements


def _blocks(text: str, source: str) -> Iterator[tuple[str, str]]:
    heads = list(_HEAD.finditer(text))
    if _sql_lines(text[: heads[0].start()] if heads else text):
        raise ValueError(f"{source}: SQL stands before the first '-- name:' line")
    ends = [head.start() for head in heads[1:]] + [len(text)]
    for head, end in zip(heads, ends, strict=True):
        yield head["name"], text[head.end() : end]


def _statement(block: str, where: str) -> LiteralString:
    lines = block.strip().splitlines()
    if not lines or not lines[0].startswith("-- "):
        raise ValueError(f"{where} has no sentence that describes it")
    sql = _sql_lines(block)
    if not sql:
        raise ValueError(f"{where} has no SQL")
    # Files of the package are as literal as its code; nothing built at run time passes here.
    return "\n".join(sql).rstrip(";")


def _sql_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip() and not line.startswith("--")]
