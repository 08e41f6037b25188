"""Commands that a person is told to type next: about the same home, and as the same customer or marketer, as the one at hand."""

import re
import shlex

_COMMAND = re.compile(r"(?<=[`(])parley (\w+)([^`)]*)")
_HOMELESS = {"serve", "verify"}
_OWN_NAME = {"customer": "me", "marketer": "shop"}
"""Who somebody is who doesn't say."""

_home: list[str] = []
_names: dict[str, str] = {}


def forget() -> None:
    """Begin with a command of which nothing is known yet."""
    _home.clear()
    _names.clear()


def at_home(path: str) -> None:
    """Note which home the command at hand names."""
    _home[:] = [path]


def known_as(group: str, name: str) -> None:
    """Note as which customer or marketer (``group``) of its home the command at hand acts."""
    if name != _OWN_NAME[group]:
        _names[group] = name


def completed(text: str) -> str:
    """The same text, and what the command at hand was told stands in the commands in it, too."""
    return _COMMAND.sub(_complete, text)


def _complete(command: re.Match[str]) -> str:
    group, rest = command.groups()
    if group in _names and "--as" not in rest:
        rest += f" --as {shlex.quote(_names[group])}"
    if _home and group not in _HOMELESS and "--home" not in rest:
        rest += f" --home {shlex.quote(_home[0])}"
    return f"parley {group}{rest}"
