"""Commands that a person is told to type next act on what the one at hand acted on."""

from typing import Any

import pytest

from parley_node.cli import COMMANDS, hints, load

TOLD = "`parley customer join` opens an account; `parley marketer ask` asks; `parley verify receipt` checks."


@pytest.fixture(autouse=True)
def _forgotten() -> None:
    hints.forget()


def test_command_that_names_nothing_is_told_nothing() -> None:
    hints.known_as("customer", "me")
    assert TOLD == hints.completed(TOLD)


def test_home_and_name_are_told_again_where_they_are_taken() -> None:
    hints.at_home("/srv/my parley")
    hints.known_as("customer", "ada")
    assert (
        "`parley customer join --as ada --home '/srv/my parley'` opens an account; "
        "`parley marketer ask --home '/srv/my parley'` asks; `parley verify receipt` checks."
    ) == hints.completed(TOLD)


def test_what_is_told_already_is_not_told_twice() -> None:
    hints.at_home("/srv/parley")
    hints.known_as("marketer", "ida")
    told = "`parley marketer env --as bo --home /home/bo`"
    assert told == hints.completed(told)


def test_command_within_another_is_completed() -> None:
    hints.at_home("/srv/parley")
    assert '`eval "$(parley marketer env --home /srv/parley)"`' == hints.completed('`eval "$(parley marketer env)"`')


def test_next_command_begins_anew() -> None:
    hints.at_home("/srv/parley")
    hints.known_as("customer", "ada")
    hints.forget()
    assert TOLD == hints.completed(TOLD)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_home_is_told_to_commands_that_have_one(name: str) -> None:
    hints.at_home("/srv/parley")
    told = hints.completed(f"`parley {name}`")
    assert ("--home" in told) == _takes_home(load(name))


def _takes_home(command: Any) -> bool:
    subcommands = getattr(command, "commands", {}).values()
    options = {option for each in (command, *subcommands) for one in each.params for option in one.opts}
    return "--home" in options
