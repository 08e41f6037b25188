"""The documents as tests read them: files, code blocks, inline code and links."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]

_FENCED = re.compile(
    r"(?:<!-- illustrative: (?P<reason>[^>]+) -->\n+)?^```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_INLINE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block. ``reason`` says why it isn't run, where it isn't."""

    document: Path
    language: str
    text: str
    reason: str = ""

    @property
    def commands(self) -> list[str]:
        """What a console block tells the reader to type."""
        return [line.removeprefix("$ ") for line in self.text.splitlines() if line.startswith("$ ")]


def blocks(document: Path, language: str, *, under: str = "") -> list[Block]:
    """The blocks of a language, of the whole document or under one heading."""
    found = _FENCED.finditer(_section(document.read_text(encoding="utf-8"), under))
    return [Block(document, language, one["text"], one["reason"] or "") for one in found if one["language"] == language]


def inline_code(document: Path) -> list[str]:
    """Everything in backticks outside of blocks."""
    return _INLINE.findall(_FENCED.sub("", document.read_text(encoding="utf-8")))


def links(document: Path) -> Iterator[tuple[str, str]]:
    """Links within the project: path (empty for the document itself) and anchor."""
    for target in _LINK.findall(_FENCED.sub("", document.read_text(encoding="utf-8"))):
        if "://" not in target:
            path, _, anchor = target.partition("#")
            yield path, anchor


def anchors(document: Path) -> set[str]:
    """The anchors that headings get on the usual sites."""
    headings = _HEADING.findall(_FENCED.sub("", document.read_text(encoding="utf-8")))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _section(text: str, heading: str) -> str:
    if not heading:
        return text
    _, _, rest = text.partition(f"\n## {heading}\n")
    assert rest, f"no heading {heading!r}"
    return rest.partition("\n## ")[0]
