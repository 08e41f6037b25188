"""Is the command line complete, safe to look at, and quick to answer?"""

import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from typer.testing import CliRunner

from parley.audit.v1 import audit_pb2 as auditpb
from parley.common.v1 import terms_pb2 as termspb
from parley.consent.v1 import consent_pb2 as consentpb
from parley_client import errors
from parley_kit.faults import Violation
from parley_node.cli import COMMANDS, app, load, names, show
from parley_node.cli.calls import explain
from parley_node.cli.history_text import detail_text
from parley_node.cli.receipts import choose
from parley_node.cli.stop import Stop
from parley_node.cli.terms_text import Effect, end_of, parts, rule, scope_text

runner = CliRunner()
IDS = ["offers/" + letter * 26 for letter in "ab"] + ["offers/ac" + "d" * 24]
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
EVERYONE = consentpb.RuleScope(everyone=consentpb.Everyone())


def _leaves() -> Iterator[tuple[list[str], Any]]:
    for name in COMMANDS:
        command = load(name)
        subcommands = getattr(command, "commands", None)
        if subcommands is None:
            yield [name], command
        else:
            yield from (([name, sub], leaf) for sub, leaf in subcommands.items())


LEAVES = list(_leaves())


def _name(path: Any) -> str:
    return " ".join(path) if isinstance(path, list) else ""


@pytest.mark.parametrize(("path", "command"), LEAVES, ids=_name)
def test_help_of_every_command_is_complete(path: list[str], command: Any) -> None:
    answer = runner.invoke(app, [*path, "--help"], prog_name="parley")
    assert 0 == answer.exit_code, answer.output
    assert command.help
    assert [] == [parameter.name for parameter in command.params if not getattr(parameter, "help", None)]


@pytest.mark.parametrize(("path", "command"), LEAVES, ids=_name)
def test_every_command_takes_a_home_but_those_that_need_none(path: list[str], command: Any) -> None:
    options = {option for parameter in command.params for option in parameter.opts}
    assert (path not in (["verify"], ["serve"])) == ("--home" in options)


SERVERS_NEED = {"asyncpg", "redis", "pydantic_settings", "cryptography", "opentelemetry", "structlog"}


def test_help_is_answered_without_loading_what_commands_need() -> None:
    answered = _helped([], without={"grpc", "nacl", "google.protobuf", "pydantic", "importlib.metadata", *SERVERS_NEED})
    assert all(name in answered for name in COMMANDS)


@pytest.mark.parametrize("command", ["customer", "marketer", "verify"])
def test_commands_of_customers_and_marketers_load_nothing_of_the_servers(command: str) -> None:
    _helped([command], without=SERVERS_NEED)


def _helped(command: Sequence[str], without: Iterable[str]) -> str:
    """Ask for a command's help in a process of its own, which may load none of these modules."""
    script = (
        f"import sys; from parley_node.cli import app; app({[*command, '--help']}, standalone_mode=False); "
        f"sys.exit(','.join({set(without)} & set(sys.modules)) or 0)"
    )
    answered = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, env=_paths())
    assert ("", 0) == (answered.stderr, answered.returncode)
    return answered.stdout


def _paths() -> dict[str, str]:
    return {"PYTHONPATH": ":".join(path for path in sys.path if path)}


def test_unknown_command_is_a_usage_error_with_a_suggestion() -> None:
    answer = runner.invoke(app, ["docter"], prog_name="parley")
    assert (2, True) == (answer.exit_code, "doctor" in answer.stderr)


@pytest.mark.parametrize(
    "arguments",
    [
        "customer allow --everyone",
        "customer allow --attribute profile.age --purpose Marketing",
        "customer allow --attribute profile.age --purpose Marketing --everyone --until 2020-01-01",
        "customer refuse --everyone --level verified",
        "customer refuse --marketer shop",
        "customer discoverable profile.age everyone",
        "customer join --as ../me",
        "verify",
        "up --port 70000",
        "migrate courier",
    ],
)
def test_what_cant_be_meant_is_a_usage_error(arguments: str) -> None:
    assert 2 == runner.invoke(app, arguments.split(), prog_name="parley").exit_code


def test_up_refuses_to_be_reached_over_a_network() -> None:
    answer = runner.invoke(app, ["up", "--host", "0.0.0.0"], prog_name="parley")
    assert (1, True) == (answer.exit_code, "nothing here encrypts" in answer.stderr)


# Where none can be made, should it be tried.
@pytest.mark.parametrize("home", ["/etc/passwd/parley", "/usr/bin/env/parley"])
def test_services_that_run_apart_keep_no_secrets_where_each_may_read(home: str) -> None:
    answer = runner.invoke(app, ["up", "--split", "--home", home], prog_name="parley")
    assert (1, True) == (answer.exit_code, f"every service may read what is in {home}" in answer.stderr)


def test_what_others_wrote_reaches_the_terminal_as_plain_text() -> None:
    hostile = "[red]a\x1b[2Jb\x07\u202ec\r\nd"
    found = show.plain(hostile)
    assert ("[red]a\ufffd[2Jb\ufffd\ufffdc\ufffd\nd", []) == (found.plain, found.spans)


def test_json_holds_whole_names_and_tables_short_ones(capsys: pytest.CaptureFixture[str]) -> None:
    row = {"name": IDS[0], "done": True}
    show.rows([row], as_json=True, empty="")
    show.rows([row], as_json=False, empty="")
    whole, short = capsys.readouterr().out.split("]", 1)
    assert IDS[0] in whole
    assert IDS[0] not in short
    assert "aaaaaaaaaa" in short


def test_unique_beginning_of_an_id_is_enough() -> None:
    assert IDS[1] == names.find("b", IDS, what="offer", listing="parley customer inbox")
    assert IDS[2] == names.find("offers/ac", IDS, what="offer", listing="parley customer inbox")


@pytest.mark.parametrize(("given", "said"), [("a", "2 names"), ("x", "no offer"), ("", "no offer")])
def test_ambiguous_and_unknown_beginnings_are_refused(given: str, said: str) -> None:
    with pytest.raises(Stop, match=said):
        names.find(given, IDS, what="offer", listing="parley customer inbox")


def test_whole_id_needs_no_listing() -> None:
    assert "consents/" + "a" * 26 == names.whole("a" * 26, "consents")
    assert names.whole("aaaa", "consents") is None


def test_refusal_is_explained_with_its_reason_fields_and_the_next_step() -> None:
    wrong = [Violation("items[0].value", "is a whole number")]
    reason, step = explain(errors.ValueInvalid("VALUE_INVALID", "A value is wrong", violations=wrong))
    assert ("A value is wrong (VALUE_INVALID: items[0].value: is a whole number)") == reason
    assert "parley attributes" in step


def test_allow_rule_names_what_it_allows_and_nothing_else() -> None:
    made = rule(
        Effect.ALLOW,
        EVERYONE,
        attributes=["profile.city"],
        answers=["profile.age"],
        purposes=["Marketing"],
        until=NOW,
        once=True,
    )
    assert ["https://w3id.org/dpv#Marketing"] == list(made.terms.purposes)
    assert [("profile.city", termspb.FORM_EXACT), ("profile.age", termspb.FORM_ANSWER)] == [
        (field.attribute, field.form) for field in made.terms.content.fields
    ]
    assert {
        "content": ["profile.city", "any answer about profile.age"],
        "purposes": ["Marketing"],
        "until": "2026-03-01T12:00:00Z",
        "use": "once",
    } == parts(made.terms)
    assert [termspb.CHANNEL_DATA, termspb.CHANNEL_WEB_INBOX] == list(made.terms.mode.channels)


def test_rule_for_what_is_no_purpose_names_those_that_there_are() -> None:
    with pytest.raises(Stop, match="no purpose is called 'Marketin'") as stopped:
        rule(Effect.ASK, EVERYONE, attributes=[], answers=[], purposes=["Marketin"], until=None, once=False)
    assert "DirectMarketing, " in str(stopped.value)


def test_refuse_rule_touches_whatever_it_leaves_out() -> None:
    made = rule(Effect.REFUSE, EVERYONE, attributes=[], answers=[], purposes=[], until=None, once=False)
    assert termspb.Terms() == made.terms
    assert "everyone" == scope_text(made.scope)


def test_span_ends_at_a_day_or_after_days() -> None:
    assert datetime(2026, 4, 1, tzinfo=UTC) == end_of(datetime(2026, 4, 1), None, NOW)  # noqa: DTZ001 - as it is typed
    assert datetime(2026, 3, 3, 12, tzinfo=UTC) == end_of(None, 2, NOW)
    assert end_of(None, None, NOW) is None


def test_history_entry_is_chosen_by_number_or_commitment() -> None:
    entries = [auditpb.HistoryEntry(commitment=bytes([number]) * 32) for number in (1, 171)]
    assert entries[0] == choose(entries, "1")
    assert entries[1] == choose(entries, "ABab")
    for given in ("0", "3", "ab", "ffff"):
        with pytest.raises(Stop, match="no one entry"):
            choose(entries, given)


def test_details_are_written_for_people() -> None:
    fields = [
        {"form": "exact", "pii_type": "profile.city"},
        {"form": "answer", "pii_type": "profile.age", "question": {"min": "18"}},
    ]
    assert "profile.city, whether profile.age at least 18" == detail_text(fields)
    assert "attribute profile.age version 1" == detail_text({"attribute": "profile.age", "version": 1})
    assert "Marketing" == detail_text("https://w3id.org/dpv#Marketing")


def test_sdk_alone_says_what_the_command_line_takes() -> None:
    alone = "import sys; sys.modules['typer'] = None; from parley_node.command import main; main()"
    ended = subprocess.run([sys.executable, "-c", alone], capture_output=True, text=True, check=False)
    assert (1, True) == (ended.returncode, "needs typer, which the SDK doesn't: `pip install" in ended.stderr), ended
