"""Can people get through with the command line alone? Black box, against `parley up` in a process of its own."""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from parley_client.receipts import FILES
from parley_node.embedded import paths, postgres
from parley_node.home import Home, Running
from tests.support.canaries import none_in_clear, word
from tests.support.cli import UP, Parley, commands, environment, parley_up, start
from tests.support.dumps import Apart
from tests.support.servers import scratch_directory

LISBON, FARO = word(), word()
WAITING = r"Waiting for another Parley, process \d+, to end on this home\.\n"


@pytest.fixture(scope="module")
async def parley() -> AsyncIterator[Parley]:
    """Commands on a home on which Parley runs; at the end no canary may be anywhere in clear."""
    with scratch_directory() as root, parley_up(root / "home"), commands(root / "home") as running:
        yield running
        await none_in_clear(Apart(running.home))


def test_whole_story_by_hand(parley: Parley, tmp_path: Path) -> None:
    parley.run("customer", "join")
    parley.run("customer", "put", "profile.age", "34", "profile.city", LISBON, "interest.hiking", "yes")
    parley.run("customer", "discoverable", "profile.age", "verified")
    parley.run("customer", "discoverable", "interest.hiking", "verified")
    assert {("profile.age", "34"), ("profile.city", LISBON), ("interest.hiking", "true")} == {
        (item["attribute"], item["value"]) for item in parley.json("customer", "items")
    }
    parley.run("marketer", "register", "Walks [red]Ltd")
    parley.run(
        *("marketer", "ask", "--where", "profile.age from 30 to 45", "--where", "interest.hiking is yes"),
        *("--field", "profile.city", "--question", "profile.age at least 18", "--purpose", "Marketing"),
        *("--text", "Walk with us"),
    )
    (offer,) = parley.until("customer", "inbox")
    assert [
        "profile.city",
        "whether profile.age at least 18",
        "whether profile.age from 30 to 45",
        "whether interest.hiking is true",
    ] == offer["content"]
    shown = parley.run("customer", "show", offer["name"].removeprefix("offers/")[:9]).out
    assert "Walk with us" in shown
    assert "Walks [red]Ltd" in shown

    parley.run("customer", "accept", offer["name"])
    (release,) = parley.until("marketer", "deliveries", "--wait", "0.5")
    assert (LISBON, True, True) == (
        release["profile.city"],
        release["profile.age at least 18"],
        release["profile.age from 30 to 45"],
    )
    known = ("marketer", "ask-known", release["pseudonym"], "--field", "profile.city", "--purpose", "Marketing")
    assert LISBON == parley.json(*known)["profile.city"]

    (consent,) = parley.json("customer", "consents")
    assert 2 == len(parley.json("customer", "consent", consent["name"])["releases"])
    assert "releases made before: 2" in parley.run("customer", "withdraw", consent["name"]).out
    assert {} == parley.json(*known)
    (notice,) = parley.until("marketer", "deliveries", "--wait", "0.5")
    assert ("ConsentRevoked", consent["name"]) == (notice["notice"], notice["consent"])

    _receipts_hold(parley, release["release"], tmp_path)


def _receipts_hold(parley: Parley, release: str, folder: Path) -> None:
    """Receipts of both sides are verified offline; with one byte changed they aren't."""
    wanted = {"consent:consent:withdrawn", "consent:release:settled", "broker:release:acknowledged"}
    history = parley.until("customer", "history", holds=lambda entries: wanted <= {each["what"] for each in entries})
    about = {each["what"]: each for each in history if each["detail"].get("release") == release}
    assert {"consent:release:settled", "broker:release:acknowledged"} == about.keys()
    settled = about["consent:release:settled"]
    parley.run("customer", "receipt", settled["commitment"][:10], "--out", str(folder / "customer"))
    parley.run("marketer", "receipt", release[:8], "--out", str(folder / "marketer"))
    for side in ("customer", "marketer"):
        proven = parley.json("verify", str(folder / side))
        assert (release, "consent:release:settled") == (proven["release"], proven["what"])
    for name in FILES:
        path = folder / "customer" / name
        content = path.read_bytes()
        path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
        refused = parley.try_("verify", str(folder / "customer"))
        assert (1, "") == (refused.code, refused.out)
        assert "Not a valid receipt" in refused.err
        path.write_bytes(content)


def test_rules_answer_for_the_customer(parley: Parley) -> None:
    parley.run("customer", "join", "--as", "ruled")
    me = ("--as", "ruled")
    parley.run("customer", "put", "profile.age", "77", "profile.city", FARO, *me)
    parley.run("customer", "discoverable", "profile.age", "unverified", *me)
    parley.run(
        *("customer", "allow", "--attribute", "profile.city", "--answers-about", "profile.age"),
        *("--purpose", "Marketing", "--level", "verified", "--days", "60", *me),
    )
    parley.run("marketer", "register", "Rules", "--as", "rules")
    parley.run(
        *("marketer", "ask", "--where", "profile.age is 77", "--field", "profile.city", "--purpose", "Marketing"),
        *("--as", "rules"),
    )
    (release,) = parley.until("marketer", "deliveries", "--wait", "0.5", "--as", "rules")
    assert FARO == release["profile.city"]
    (rule,) = parley.json("customer", "rules", *me)
    assert (["profile.city", "any answer about profile.age"], "verified and above") == (rule["content"], rule["scope"])
    parley.run("customer", "end-rule", rule["name"][6:12], *me)
    assert [] == parley.json("customer", "rules", *me)


def test_offer_can_be_put_aside_declined_and_cancelled(parley: Parley) -> None:
    me = ("--as", "shy")
    parley.run("customer", "join", *me)
    parley.run("customer", "put", "profile.age", "88", *me)
    parley.run("customer", "discoverable", "profile.age", "unverified", *me)
    parley.run("marketer", "register", "Shy", "--as", "asker")
    parley.run(
        *("marketer", "ask", "--where", "profile.age is 88", "--field", "profile.age", "--purpose", "Marketing"),
        *("--as", "asker"),
    )
    (offer,) = parley.until("customer", "inbox", *me)
    parley.run("customer", "later", offer["name"], *me)
    assert ["DEFERRED"] == [each["state"] for each in parley.json("customer", "inbox", *me)]
    parley.run("customer", "decline", offer["name"], *me)
    assert [] == parley.json("customer", "inbox", *me)
    again = parley.try_("customer", "accept", offer["name"], *me)
    assert (1, True) == (again.code, "INVALID_CONSENT_STATUS" in again.err)
    (asked,) = parley.json("marketer", "exchanges", "--as", "asker")
    parley.run("marketer", "cancel", asked["name"], "--as", "asker")
    assert "TERMINATED" == parley.json("marketer", "exchange", asked["name"], "--as", "asker")["state"]


def test_refusals_say_why_and_what_next(parley: Parley) -> None:
    parley.run("customer", "join", "--as", "clumsy")
    wrong = parley.try_("customer", "put", "profile.age", word(), "--as", "clumsy")
    assert (1, True, False) == (wrong.code, "whole number" in wrong.err, "Traceback" in wrong.err)
    assert 2 == parley.try_("customer", "put", "profile.age", "--as", "clumsy").code
    as_nobody = ("--as", "nobody", "--home", str(parley.home.root))
    assert f"`parley customer join {' '.join(as_nobody)}`" in parley.try_("customer", "items", *as_nobody).err
    assert 1 == parley.try_("customer", "join", "--as", "clumsy").code
    parley.run("marketer", "register", "Clumsy", "--as", "clumsy")
    unclear = parley.try_(
        *(
            "marketer",
            "ask",
            "--where",
            "profile.age between 3 and 4",
            "--field",
            "profile.age",
            "--purpose",
            "Marketing",
        ),
        *("--as", "clumsy"),
    )
    assert (1, True) == (unclear.code, "ATTRIBUTE from LEAST to MOST" in unclear.err)


def test_objection_is_made_and_lifted(parley: Parley) -> None:
    parley.run("customer", "join", "--as", "tired")
    assert "you are asked first" in parley.run("customer", "rules", "--as", "tired").out
    assert "object to all marketing" in parley.run("customer", "object", "--as", "tired").out
    shown = parley.run("customer", "rules", "--as", "tired").out
    assert ("no rule counts" in shown, "you are asked first" in shown) == (True, False)
    parley.run("customer", "put", "profile.age", "61", "--as", "tired")
    parley.run("customer", "lift-objection", "--as", "tired")
    parley.run("customer", "discoverable", "profile.age", "unverified", "--as", "tired")
    parley.run("marketer", "register", "Insistent", "--as", "insistent")
    parley.run(
        *("marketer", "ask", "--where", "profile.age is 61", "--field", "profile.age", "--purpose", "Marketing"),
        *("--text", "Once more", "--as", "insistent"),
    )
    (offer,) = parley.until("customer", "inbox", "--as", "tired")
    parley.run("customer", "object", "--as", "tired")
    assert "nothing is released" in parley.run("customer", "accept", offer["name"], "--as", "tired").out
    assert "count again" in parley.run("customer", "lift-objection", "--as", "tired").out
    assert "no rule counts" not in parley.run("customer", "rules", "--as", "tired").out


def test_rule_about_what_there_is_not_is_refused(parley: Parley) -> None:
    parley.run("customer", "join", "--as", "hasty")
    for wrong in (
        ("refuse", "--attribute", "contact.emial"),
        ("allow", "--answers-about", "profile.aeg", "--purpose", "Marketing", "--everyone"),
    ):
        refused = parley.try_("customer", *wrong, "--as", "hasty")
        assert (1, True) == (refused.code, "parley attributes" in refused.err)
    assert [] == parley.json("customer", "rules", "--as", "hasty")


def test_terminal_that_knows_no_such_letters_is_shown_the_rest(parley: Parley) -> None:
    parley.run("customer", "join", "--as", "koeln")
    parley.run("customer", "put", "profile.city", "K\u00f6ln", "--as", "koeln")
    command = [sys.executable, "-m", "parley_node.cli", "customer", "items", "--as", "koeln"]
    shown = subprocess.run(
        command, env=environment(parley.home.root) | {"PYTHONIOENCODING": "ascii"}, capture_output=True, check=True
    )
    assert b"K?ln" in shown.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_output_that_can_not_be_written_is_said_in_a_sentence(parley: Parley, options: list[str]) -> None:
    command = [sys.executable, "-m", "parley_node.cli", "attributes", "profile.age", *options]
    buffered = environment(parley.home.root) | {"PYTHONUNBUFFERED": ""}
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(command, env=buffered, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (1, "parley: No space left on device\n") == (ended.returncode, ended.stderr)


def test_demo_leaves_a_home_alone_on_which_parley_runs(parley: Parley, tmp_path: Path) -> None:
    told = Home(tmp_path / "demo")
    told.make()
    told.started(Running("127.0.0.1:1", "http://127.0.0.1:2", os.getpid()))
    refused = parley.try_("demo", "--home", str(tmp_path))
    assert (1, True) == (refused.code, f"process {os.getpid()}" in refused.err)
    assert os.getpid() == told.running().pid


def test_what_a_marketer_keeps_is_listed(parley: Parley) -> None:
    parley.run("marketer", "register", "Env", "--as", "keeper")
    assert "None are kept" in parley.run("marketer", "deliveries", "--kept", "--as", "keeper").out


def test_operator_changes_and_suspends_a_marketer(parley: Parley) -> None:
    parley.run("marketer", "register", "Unknown", "--level", "unverified", "--as", "unknown")
    assert "is accredited" in parley.run("operator", "level", "unknown", "accredited").out
    assert "is suspended" in parley.run("operator", "suspend", "unknown").out
    assert "is accredited" in parley.run("operator", "reinstate", "unknown").out


def test_environment_is_what_the_sdk_reads(parley: Parley) -> None:
    parley.run("marketer", "register", "Env", "--as", "env")
    lines = parley.run("marketer", "env", "--as", "env").out.splitlines()
    assert f"export PARLEY_ADDRESS={shlex.quote(parley.home.running().address)}" in lines
    assert 6 == len([line for line in lines if line.startswith("export PARLEY_")])


def test_second_up_says_that_one_runs(parley: Parley) -> None:
    with start(parley.home.root, *UP) as second:
        _out, err = second.communicate(timeout=30)
    assert 1 == second.returncode
    assert f"kill {parley.home.running().pid}" in err


@pytest.mark.parametrize("taken", ["--port", "--http-port", "--metrics-port"])
def test_port_that_is_taken_is_named_before_anything_starts(taken: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, scratch_directory() as root:
        port = str(other.getsockname()[1])
        with start(root / "home", "up", "--port", "0", "--http-port", "0", taken, port) as up:
            out, err = up.communicate(timeout=60)
    assert (1, True) == (up.returncode, f"127.0.0.1:{port}: it is taken" in err), err
    assert "PostgreSQL" not in out + err


def test_apart_every_service_needs_a_port_for_its_metrics() -> None:
    with (
        _five_ports_whose_last_is_taken() as first,
        scratch_directory() as root,
        start(root / "home", "up", "--split", "--http-port", "0", "--metrics-port", str(first)) as up,
    ):
        _out, err = up.communicate(timeout=60)
    assert f"127.0.0.1:{first + 4}: it is taken" in err


@contextmanager
def _five_ports_whose_last_is_taken() -> Iterator[int]:
    """The first of them; they are below those that systems give to whoever wants any, as other tests do meanwhile."""
    for first in range(20_000 + 5 * (os.getpid() % 1_000), 32_000, 5):
        with ExitStack() as free, ExitStack() as taken:
            try:
                for port in range(first, first + 4):
                    free.enter_context(socket.create_server(("127.0.0.1", port)))
                taken.enter_context(socket.create_server(("127.0.0.1", first + 4)))
            except OSError:
                continue
            free.close()
            yield first
            return
    raise AssertionError("no five ports in a row are free")


def test_plan_of_a_migration_makes_nothing() -> None:
    with scratch_directory() as root:
        with start(root / "home", "migrate", "--plan") as planning:
            out, err = planning.communicate(timeout=60)
        assert (0, True) == (planning.returncode, "pending parley_vault/0001_vault.pre" in out), err
        assert not (root / "home").exists()


def test_spans_go_to_a_url_or_nowhere(parley: Parley) -> None:
    refused = parley.try_("up", "--traces", "collector:4318")
    assert (2, True) == (refused.code, "a URL such as http://127.0.0.1:4318" in refused.err), refused


def test_schemas_are_up_to_date_while_it_runs(parley: Parley) -> None:
    assert "No migration is pending." in parley.run("migrate", "--plan").out
    assert "no migration was pending" in parley.run("migrate", "consent", "--phase", "pre").out


def test_up_stops_cleanly_and_the_next_one_goes_on_from_there() -> None:
    with scratch_directory() as root:
        home = root / "home"
        with commands(home) as parley:
            with parley_up(home) as up:
                parley.run("customer", "join")
                parley.run("customer", "put", "profile.age", "34")
                _stop(up, signal.SIGINT)
            assert "`parley up`" in parley.try_("customer", "items").err
            with parley_up(home) as up:
                assert ["34"] == [item["value"] for item in parley.json("customer", "items")]
                _stop(up, signal.SIGTERM)


def test_up_waits_for_the_one_that_is_ending_and_takes_over_none_of_its_servers() -> None:
    with scratch_directory() as root:
        home = Home(root / "home")
        with commands(home.root) as parley, parley_up(home.root) as ending:
            parley.run("customer", "join")
            ending.send_signal(signal.SIGSTOP)  # wherever it is by now, it isn't done
            home.stopped()
            with start(home.root, *UP) as up:
                assert up.stdout is not None
                try:
                    assert re.fullmatch(WAITING, up.stdout.readline())
                finally:
                    for number in (signal.SIGTERM, signal.SIGCONT):
                        ending.send_signal(number)
                assert ending.wait(30) == 0
                while "answers on" not in up.stdout.readline():
                    assert up.poll() is None
                assert parley.json("customer", "items") == []
                up.send_signal(signal.SIGTERM)
                assert up.wait(30) == 0


@pytest.mark.slow
def test_up_waits_for_a_migration_and_takes_over_none_of_its_servers() -> None:
    with scratch_directory() as root:
        home = Home(root / "home")
        with commands(home.root) as parley, start(home.root, "migrate") as migrating:
            while not postgres.ready(paths.layout(home.servers)):
                assert migrating.poll() is None
                time.sleep(0.01)
            migrating.send_signal(signal.SIGSTOP)
            with start(home.root, *UP) as up:
                assert up.stdout is not None
                try:
                    assert re.fullmatch(WAITING, up.stdout.readline())
                finally:
                    migrating.send_signal(signal.SIGCONT)
                assert migrating.wait(60) == 0
                while "answers on" not in up.stdout.readline():
                    assert up.poll() is None
                parley.run("customer", "join")
                up.send_signal(signal.SIGTERM)
                assert up.wait(30) == 0


def test_what_was_not_there_is_not_said_to_be_deleted(parley: Parley) -> None:
    parley.run("customer", "join", "--as", "typing")
    parley.run("customer", "put", "profile.city", "Lisbon", "--as", "typing")
    outcome = parley.try_("customer", "delete", "profile.country", "--as", "typing")
    assert (1, "") == (outcome.code, outcome.out)
    assert "versions that it had: 1" in parley.run("customer", "delete", "profile.city", "--as", "typing").out


@pytest.mark.parametrize("options", [["--home", ""], ["--days", "36501"]])
def test_option_that_can_not_be_meant_is_refused(parley: Parley, options: list[str]) -> None:
    outcome = parley.try_("customer", "allow", "--everyone", "--purpose", "Marketing", *options)
    assert 2 == outcome.code
    assert options[0] in outcome.err


def _stop(up: subprocess.Popen[str], number: signal.Signals) -> None:
    up.send_signal(number)
    out, err = up.communicate(timeout=30)
    assert (0, "") == (up.returncode, err)
    assert out.endswith("Stopping.\n")


def test_output_that_was_closed_is_no_defect(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "parley_node.cli", "doctor"]
    closed = subprocess.run(
        ["bash", "-c", f"exec {shlex.join(command)} >&-"],
        env=environment(tmp_path / "none"),
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    assert (1, "") == (closed.returncode, closed.stderr)  # there is no home


def test_setting_that_cant_be_read_is_named_without_its_value() -> None:
    with scratch_directory() as root, start(root / "home", *UP, PARLEY_CONSENT_LONGEST_NOTICE_DELAY="secret") as up:
        _out, err = up.communicate(timeout=60)
    assert 1 == up.returncode
    assert "PARLEY_CONSENT_LONGEST_NOTICE_DELAY" in err
    assert "secret" not in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "variable",
    [
        "PARLEY_VAULT_MASTER_KEY",
        pytest.param("PARLEY_BROKER_POSTGRES_DSN", marks=pytest.mark.slow),
        pytest.param("PARLEY_SERVE_GRACE", marks=pytest.mark.slow),
    ],
)
def test_setting_that_nobody_would_heed_is_refused(variable: str) -> None:
    with scratch_directory() as root, start(root / "home", *UP, **{variable: "secret"}) as up:
        _out, err = up.communicate(timeout=60)
    assert 1 == up.returncode
    assert f"{variable}: is for `parley serve`; `parley up` sets it by itself" in err
    assert "secret" not in err


@pytest.mark.parametrize("variable", ["PARLEY_VAULT_TRUST", pytest.param("parley_vault_trust", marks=pytest.mark.slow)])
def test_demo_refuses_it_too_before_the_last_one_is_gone(tmp_path: Path, variable: str) -> None:
    kept = tmp_path / "home/demo/kept"
    kept.parent.mkdir(parents=True)
    kept.touch()
    with start(tmp_path / "home", "demo", **{variable: "secret"}) as demo:
        _out, err = demo.communicate(timeout=60)
    assert (1, True) == (demo.returncode, kept.exists())
    assert f"{variable}: is for `parley serve`" in err
    assert "Traceback" not in err
