"""Markdown, as the generated pages need it."""

from collections.abc import Iterable, Sequence


def page(title: str, source: str, intro: str, *parts: str) -> str:
    """A whole page, which says on top where it comes from. Parts are blocks of their own."""
    notice = f"<!-- Generated from {source} by `make docs`. Don't edit it here. -->"
    return "\n\n".join([notice, f"# {title}", intro, *parts]) + "\n"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table. Cells are Markdown; line breaks and bars in them are taken care of."""
    lines = [list(header), ["---"] * len(header), *([_cell(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def code(names: Iterable[str]) -> str:
    """Names, each as code."""
    return ", ".join(f"`{name}`" for name in names)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|") or "-"
