"""docs/cli.md: every command of `parley`, as its help says it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from parley_node.cli import COMMANDS, load
from tools.docs import markdown

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
    arguments = [each for each in found.command.params if each.param_type_name == "argument"]
    options = [each for each in found.command.params if each.param_type_name == "option" and not each.hidden]
    usage = [*found.words, *(["[OPTIONS]"] if options else []), *(_argument(each) for each in arguments)]
    parts = [f"## {' '.join(found.words)}", f"`{' '.join(usage)}`", _text(found.command.help)]
    rows = [(f"`{_argument(each)}`", _text(each.help)) for each in arguments]
    rows += [(f"`{_spelling(each)}`", _text(each.help)) for each in options]
    return "\n\n".join([*parts, *([markdown.table(("", ""), rows)] if rows else [])])


def _argument(argument: Any) -> str:
    name = (argument.metavar or argument.name).strip("[].").upper()
    spelt = name + ("..." if argument.nargs != 1 else "")
    return spelt if argument.required else f"[{spelt}]"


def _spelling(option: Any) -> str:
    names = ", ".join(option.opts) + "".join(f" / {name}" for name in option.secondary_opts)
    return names if option.is_flag else f"{names} {(option.metavar or option.type.name).upper()}"


def _text(help_text: str | None) -> str:
    """Help as one paragraph; what follows a form feed is for readers of the code."""
    return " ".join((help_text or "").split("\f")[0].split())
