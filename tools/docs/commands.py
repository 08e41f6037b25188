"""docs/cli.md: every command of `parley`, as its help says it."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from parley_node.cli import COMMANDS, load
from tools.docs import markdown

_CODE = re.compile(r"(?P<code>`[^`]*`)|<")
_INTRO = """\
Everything Parley does on the command line. Each command says the same with `--help`. Refusals come with the reason and the next
step. The exit code is 0 when it worked, 1 when it was refused or failed, 2 when the command line was wrong."""


@dataclass(frozen=True, slots=True)
class Found:
    """A command and the words that call it, ``("parley", "customer", "put")``."""

    words: tuple[str, ...]
    command: Any


def page() -> str:
    """The page."""
    return markdown.page("The command line", "the commands themselves", _INTRO, *map(_section, every_command()))


def every_command() -> list[Found]:
    """All that can be called, in the order of the help; groups are not among them."""
    return [found for name in COMMANDS for found in _below(load(name), ("parley", name))]


def _below(command: Any, words: tuple[str, ...]) -> Iterator[Found]:
    if not hasattr(command, "commands"):
        yield Found(words, command)
        return
    for name, inner in command.commands.items():
        if not inner.hidden:
            yield from _below(inner, (*words, name))


def _section(found: Found) -> str:
    context = found.command.context_class(found.command, info_name=" ".join(found.words))
    usage = [*found.words, *map(_bare, found.command.collect_usage_pieces(context))]
    parts = [f"## {' '.join(found.words)}", f"`{' '.join(usage)}`", _text(found.command.help)]
    records = [each.get_help_record(context) for each in found.command.params if not each.hidden]
    rows = [(f"`{spelling}`", _text(said)) for spelling, said in records]
    return "\n\n".join([*parts, *([markdown.table(("", ""), rows)] if rows else [])])


def _bare(piece: str) -> str:
    """A piece of a usage line, without the braces in which arguments that must be given stand."""
    return piece.translate({ord("{"): None, ord("}"): None}).replace("[[", "[").replace("]]", "]")


def _text(help_text: str | None) -> str:
    """Help as one paragraph. What follows a form feed is for readers of the code; what looks like a tag is text."""
    text = " ".join((help_text or "").split("\f")[0].split())
    return _CODE.sub(lambda found: found["code"] or "&lt;", text)
