"""
Does `parley doctor` find what is wrong, and does the command that it prints mend it?

Against `parley up` in a process of its own: each fault is planted in what runs, and the printed command is run in a shell.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis

from parley_audit.policy import policy_text
from parley_bus.bus import stream_key
from parley_crypto.certificates import issue
from parley_crypto.keyfiles import ensure_key, read_key
from parley_crypto.tlog.note import Ed25519Signer, PrivateKey, sign_note
from parley_node.embedded import paths, postgres, valkey
from parley_node.embedded.postgres import listener_of
from parley_node.home import Home, NotRunning
from parley_node.provision import ORIGIN, key_file, policy_for
from parley_node.split import Doors
from tests.support.cli import UP, Outcome, Parley, commands, environment, parley_up
from tests.support.servers import scratch_directory
from tests.support.waiting import until

_PATIENCE_S = 60.0


@pytest.fixture(scope="module")
async def parley() -> AsyncIterator[Parley]:
    """Commands on a home on which Parley runs."""
    with scratch_directory() as root, parley_up(root / "home"), commands(root / "home") as running:
        yield running


def failures(parley: Parley) -> Mapping[str, str]:
    """The checks that fail, each with what mends it."""
    outcome = parley.try_("doctor", "--json")
    failed = {each["check"]: each["mend"] for each in outcome.json if each["state"] == "failed"}
    assert bool(failed) == bool(outcome.code)
    return failed


def found(parley: Parley, check: str) -> str:
    """What one check says."""
    (said,) = [each["found"] for each in parley.try_("doctor", "--json").json if each["check"] == check]
    return str(said)


def eventually(condition: Callable[[], object]) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + _PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def is_sound(parley: Parley) -> bool:
    """Whether doctor finds nothing."""
    return not failures(parley)


def shell(home: Home, command: str) -> Outcome:
    """Run what doctor says, as somebody at a terminal would."""
    with _typed(home, command) as typed:
        out, err = typed.communicate(timeout=_PATIENCE_S)
        return Outcome(typed.returncode, out, err)


@contextmanager
def started_again(parley: Parley, command: str, up: subprocess.Popen[str], **variables: str) -> Iterator[None]:
    """Run what doctor says, which ends Parley and starts it again; it runs for the length of the block."""
    with _typed(parley.home, command, **variables) as typed:
        up.communicate(timeout=_PATIENCE_S)  # it is our child, and nobody else sees it end
        try:
            eventually(lambda: typed.poll() is None and _runs(parley.home))
            yield
        finally:
            os.kill(parley.home.running().pid, signal.SIGTERM)
            typed.communicate(timeout=_PATIENCE_S)


def _runs(home: Home) -> bool:
    with suppress(NotRunning):
        return bool(home.running())
    return False


def _typed(home: Home, command: str, **variables: str) -> subprocess.Popen[str]:
    """A command in a shell. `parley up` that is told no ports is on free ones: others run beside it."""
    folder = home.root.parent / "bin"
    folder.mkdir(exist_ok=True)
    real, parley = Path(sys.executable).parent / "parley", folder / "parley"
    parley.write_text(_ON_FREE_PORTS.format(parley=shlex.quote(str(real))))
    parley.chmod(0o755)
    told = environment(home.root) | variables
    told["PATH"] = f"{folder}{os.pathsep}{told['PATH']}"
    pipe = subprocess.PIPE
    return subprocess.Popen(["bash", "-c", command], env=told, cwd=home.root, stdout=pipe, stderr=pipe, text=True)


_ON_FREE_PORTS = """#!/bin/sh
case "$*" in up*--port*) ;; up*) shift; set -- up --port 0 --http-port 0 "$@" ;; esac
exec {parley} "$@"
"""


def mend(parley: Parley, command: str) -> None:
    """Run what doctor says, which must succeed, and see it find nothing any more."""
    done = shell(parley.home, command)
    assert 0 == done.code, done
    eventually(lambda: is_sound(parley))


@asynccontextmanager
async def administrator(parley: Parley, database: str = "postgres") -> AsyncIterator[Any]:
    """A session of the databases' administrator."""
    connection = await asyncpg.connect(postgres.admin_dsn(paths.layout(parley.home.servers), database))
    try:
        yield connection
    finally:
        if not connection.is_closed():
            await connection.close()


def up_again(parley: Parley, *, split: bool = False) -> str:
    """How Parley is started as it ran."""
    return f"parley up{' --split' if split or '--split' in UP else ''} --port 0 --http-port 0"


# --- The home ------------------------------------------------------------------------------------------------------------


def test_sound_home_has_nothing_wrong(parley: Parley) -> None:
    checks = parley.json("doctor")
    assert {"ok"} == {each["state"] for each in checks}, checks
    assert {"keys", "roles", "schema vault", "events consent", "clock", "valkey", "services", "peers", "log"} < {
        each["check"] for each in checks
    }


def test_line_that_fails_ends_in_the_command(parley: Parley) -> None:
    key = key_file(parley.home, "vault", "master")
    key.chmod(0o644)
    (line,) = [line for line in parley.try_("doctor").out.splitlines() if line.startswith("FAILED")]
    assert line.endswith(f"; run `chmod 600 {key}`")
    key.chmod(0o600)


def test_key_that_others_may_read(parley: Parley) -> None:
    key = key_file(parley.home, "vault", "master")
    key.chmod(0o644)
    failed = failures(parley)
    assert {"keys": f"chmod 600 {key}"} == failed
    mend(parley, failed["keys"])
    assert 0o600 == key.stat().st_mode & 0o777


@pytest.mark.parametrize("name", ["servers/postgres.pass", "servers/valkey.pass", "keys/consent/valkey.pass"])
def test_password_that_others_may_read(parley: Parley, name: str) -> None:
    password = parley.home.root / name
    password.chmod(0o644)
    failed = failures(parley)
    assert {"keys": f"chmod 600 {password}"} == failed
    mend(parley, failed["keys"])


@pytest.mark.parametrize("name", ["servers/postgres.pass", "servers/valkey.pass", "keys/consent/valkey.pass"])
def test_password_that_is_lost_beneath_a_running_parley(parley: Parley, name: str) -> None:
    password, pid = parley.home.root / name, parley.home.running().pid
    kept = password.rename(parley.home.root / "kept")
    assert {"keys": f"kill {pid}; tail --pid={pid} -f /dev/null; {up_again(parley)}"} == failures(parley)
    kept.rename(password)


def test_parley_that_does_not_say_where_it_runs(parley: Parley) -> None:
    pid = parley.home.running().pid
    kept = (parley.home.root / "running.json").rename(parley.home.root / "kept")
    mended = failures(parley)["running"]
    kept.rename(parley.home.root / "running.json")
    assert f"tail --pid={pid} -f /dev/null; parley up" == mended


def test_key_that_is_lost(parley: Parley) -> None:
    key = key_file(parley.home, "vault", "master")
    kept = key.rename(parley.home.root / "kept")
    assert f"cp BACKUP {key}  # of this very home" == failures(parley)["keys"]
    kept.rename(key)


def test_key_that_was_emptied(parley: Parley) -> None:
    key = key_file(parley.home, "vault", "order")
    content = key.read_bytes()
    key.write_bytes(b"")
    assert f"cp BACKUP {key}  # of this very home" == failures(parley)["keys"]
    key.write_bytes(content)


def test_key_of_the_log_that_others_may_read_or_that_is_lost(parley: Parley) -> None:
    key = key_file(parley.home, "audit", "log")
    key.chmod(0o644)
    assert f"chmod 600 {key}" == failures(parley)["keys"]
    key.chmod(0o600)
    kept = key.rename(parley.home.root / "kept")
    assert f"cp BACKUP {key}  # of this very home" == failures(parley)["keys"]
    kept.rename(key)


def test_log_whose_key_was_replaced(parley: Parley) -> None:
    key, policy = key_file(parley.home, "audit", "log"), parley.home.policy
    kept = {path: path.read_bytes() for path in (key, policy)}
    key.unlink()
    ensure_key(key)
    policy.write_text(policy_for(parley.home))
    assert f"cp BACKUP {key}  # of this very home" == failures(parley)["log"]
    for path, content in kept.items():
        path.write_bytes(content)


def test_folder_that_is_no_home(parley: Parley, tmp_path: Path) -> None:
    (tmp_path / "letter").write_text("Dear Ada")
    failed = parley.try_("doctor", "--home", str(tmp_path), "--json").json
    assert {"home": "parley doctor --home HOME"}.items() <= {each["check"]: each["mend"] for each in failed}.items()


def test_edited_policy(parley: Parley) -> None:
    text = parley.home.policy.read_bytes()
    parley.home.policy.write_bytes(text.replace(b"log", b"lag", 1))
    assert {"policy", "log"} == set(failures(parley))
    parley.home.policy.write_bytes(text)


def test_log_of_another_key_than_the_home_believes(parley: Parley) -> None:
    own, pid = parley.home.policy.read_bytes(), parley.home.running().pid
    parley.home.policy.write_bytes(policy_text(PrivateKey(ORIGIN, bytes(32)).vkey()))
    mended = f"rm -f {shlex.quote(str(parley.home.policy))}; {up_again(parley)}"
    assert {"log": f"kill {pid}; tail --pid={pid} -f /dev/null; {mended}"} == failures(parley)
    parley.home.policy.write_bytes(own)


@pytest.mark.parametrize(
    ("entries", "mended"),
    [
        (
            b"999999",
            "{stop}; cp -a COPY {data}.newer && mv {data} {data}.older && mv {data}.newer {data}; {up}  # COPY: {which}",
        ),  # the database fell back
        pytest.param(
            b"0", "cp CHECKPOINT {published}  # the newest that anybody holds", marks=pytest.mark.slow
        ),  # the file did
        (b"many", "cp CHECKPOINT {published}  # the newest that anybody holds"),
    ],
)
def test_log_that_is_not_what_was_published(parley: Parley, entries: bytes, mended: str) -> None:
    parley.run("customer", "join", "--as", entries.decode())
    eventually(lambda: is_sound(parley) and not found(parley, "log").startswith("0 "))
    published, key = parley.home.published, PrivateKey(ORIGIN, read_key(key_file(parley.home, "audit", "log")))
    own, failed = b"", dict[str, str]()

    def shows() -> bool:
        nonlocal own, failed
        own = published.read_bytes()
        lines = own.split(b"\n")
        lines[1] = entries
        published.write_bytes(sign_note(b"\n".join([*lines[:3], b""]).decode(), [Ed25519Signer(key)]))
        failed = dict(failures(parley))
        return bool(failed)

    eventually(shows)  # what was still on its way into the log had its checkpoint published over this one
    (check, command), *_ = failed.items()  # audit doesn't serve, either, once it has noticed
    pid, data = parley.home.running().pid, shlex.quote(str(parley.home.servers / "postgres"))
    told = {
        "stop": f"kill {pid}; tail --pid={pid} -f /dev/null",
        "up": up_again(parley),
        "which": "the newest backup, of all five databases as of one moment",
    }
    assert ("log", mended.format(published=published, data=data, **told)) == (check, command)
    published.write_bytes(own)
    eventually(lambda: is_sound(parley))


@pytest.mark.slow
def test_databases_that_fell_back_are_mended_by_a_newer_copy() -> None:
    with scratch_directory() as root, commands(root / "home") as parley:
        data = parley.home.servers / "postgres"
        for who in ("earlier", "later"):
            with parley_up(parley.home.root):
                parley.run("customer", "join", "--as", who)
                assert parley.until("customer", "history", "--as", who)
            shutil.copytree(data, root / who, symlinks=True)
        shutil.rmtree(data)
        shutil.copytree(root / "earlier", data, symlinks=True)
        with parley_up(parley.home.root) as up:
            command = failures(parley)["log"].replace("COPY", shlex.quote(str(root / "later")), 1)
            with started_again(parley, command, up):
                eventually(lambda: is_sound(parley))
                assert [] == parley.json("customer", "items", "--as", "later")


def test_one_server_that_is_named_without_the_other(parley: Parley) -> None:
    outcome = shell(parley.home, "PARLEY_POSTGRES_URL=postgresql:///x parley doctor --json")
    (line,) = [each for each in outcome.json if each["check"] == "servers"]
    assert ("failed", "unset PARLEY_POSTGRES_URL PARLEY_VALKEY_URL") == (line["state"], line["mend"])


def test_home_on_which_nothing_is() -> None:
    with scratch_directory() as root, commands(root / "none") as parley:
        failed = failures(parley)
    assert dict.fromkeys(("home", "running"), "parley up") == failed
    assert not (root / "none").exists()


def test_home_that_lost_all_its_keys() -> None:
    with scratch_directory() as root, commands(root / "home") as parley:
        parley.home.published.parent.mkdir(parents=True)
        parley.home.published.touch()
        assert failures(parley)["keys"].startswith("cp BACKUP ")


def test_home_that_is_a_file(parley: Parley, tmp_path: Path) -> None:
    (tmp_path / "letter").write_text("Dear Ada")
    failed = parley.try_("doctor", "--home", str(tmp_path / "letter"), "--json").json
    assert {"home": "parley doctor --home HOME"}.items() <= {each["check"]: each["mend"] for each in failed}.items()


# --- The servers ---------------------------------------------------------------------------------------------------------


async def test_schema_that_is_behind(parley: Parley) -> None:
    async with administrator(parley, "parley_vault") as vault:
        await vault.execute("ALTER TABLE dead_letters DROP COLUMN replay_asked")
        await vault.execute("DELETE FROM schema_migrations WHERE set_name = 'parley_db' AND name = 'replay'")
    failed = failures(parley)
    assert {"schema vault": "parley migrate vault --phase pre"} == failed
    mend(parley, failed["schema vault"])


async def test_schema_that_keeps_what_an_older_version_may_need(parley: Parley) -> None:
    async with administrator(parley, "parley_broker") as broker:
        await broker.execute("CREATE FUNCTION relay_step(bigint) RETURNS bigint LANGUAGE sql AS 'SELECT 0'")
        await broker.execute("DELETE FROM schema_migrations WHERE set_name = 'parley_db' AND phase = 'post'")
    assert is_sound(parley)
    said, command = found(parley, "schema broker").split(": ")
    assert "up to date; once no older version runs" == said
    mend(parley, command)
    assert "up to date" == found(parley, "schema broker")


@pytest.mark.parametrize(
    ("given", "database"),
    [
        ("GRANT CONNECT ON DATABASE parley_vault TO parley_broker", "postgres"),
        ("GRANT parley_vault TO parley_broker", "postgres"),
        pytest.param("ALTER ROLE parley_broker CREATEDB", "postgres", marks=pytest.mark.slow),
        pytest.param("ALTER ROLE parley_broker REPLICATION", "postgres", marks=pytest.mark.slow),  # it would copy all
        ("GRANT DELETE ON log_entries TO parley_audit", "parley_audit"),
        pytest.param("GRANT DELETE ON log_entries TO PUBLIC", "parley_audit", marks=pytest.mark.slow),
        pytest.param("GRANT UPDATE (entry) ON log_entries TO parley_audit", "parley_audit", marks=pytest.mark.slow),
        ("GRANT UPDATE (artefact) ON consents TO PUBLIC", "parley_consent"),
        ("GRANT CREATE ON SCHEMA public TO parley_broker", "parley_broker"),
        pytest.param("GRANT CONNECT ON DATABASE parley_vault TO PUBLIC", "postgres", marks=pytest.mark.slow),
    ],
)
async def test_role_with_too_much(parley: Parley, given: str, database: str) -> None:
    async with administrator(parley, database) as admin:
        await admin.execute(given)
    failed = failures(parley)
    assert {"roles": "parley migrate"} == failed
    if "PUBLIC" in given:
        mend(parley, failed["roles"])
    else:  # the same again, without a process of its own
        parley.run(*shlex.split(failed["roles"])[1:])
        assert is_sound(parley)


async def test_what_an_extension_lets_everybody_do_is_its_own_to_say(parley: Parley) -> None:
    async with administrator(parley, "parley_vault") as admin:
        await admin.execute("CREATE EXTENSION pg_stat_statements")  # whose views everybody may read
        assert is_sound(parley)
        await admin.execute("DROP EXTENSION pg_stat_statements")


@pytest.mark.parametrize(
    "given",
    [
        "SETUSER parley_broker ~* +@all",
        pytest.param("DELUSER parley_broker", marks=pytest.mark.slow),
    ],
)
async def test_user_of_valkey_with_too_much_or_too_little(parley: Parley, given: str) -> None:
    redis: Any = Redis.from_url(valkey.admin_url(paths.layout(parley.home.servers)))
    async with redis:
        await redis.execute_command("ACL", *given.split())
    failed = failures(parley)
    assert "parley migrate" == failed.get("users")
    parley.run(*shlex.split(failed["users"])[1:])
    eventually(lambda: is_sound(parley))  # who was cut off comes back by itself


def test_valkey_that_is_away(parley: Parley) -> None:
    hanging = listener_of(paths.layout(parley.home.servers).valkey_socket)
    assert hanging
    os.kill(hanging, signal.SIGSTOP)
    failed = failures(parley)
    assert {"valkey": f"kill -9 {hanging}"} == failed
    mend(parley, failed["valkey"])
    assert hanging != listener_of(paths.layout(parley.home.servers).valkey_socket)


def test_postgres_that_hangs(parley: Parley) -> None:
    hanging = listener_of(paths.layout(parley.home.servers).postgres_sockets / f".s.PGSQL.{postgres.PORT}")
    assert hanging
    os.kill(hanging, signal.SIGSTOP)
    failed = failures(parley)
    assert f"kill -9 {hanging}" == failed["postgres"]
    assert not [check for check in failed if check.startswith(("schema", "roles", "clock", "events"))]
    mend(parley, failed["postgres"])
    eventually(lambda: {} == failures(parley))


async def test_clock_of_this_machine_that_is_ten_minutes_ahead_of_postgresql(parley: Parley) -> None:
    """PostgreSQL runs on this machine here: so the administrator is made to read a clock that is as far behind."""
    behind = "SELECT pg_catalog.clock_timestamp() - interval '10 minutes'"
    async with administrator(parley) as admin:
        await admin.execute(
            "CREATE SCHEMA behind; "
            f"CREATE FUNCTION behind.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS $$ {behind} $$; "
            "ALTER ROLE CURRENT_USER SET search_path = behind, pg_catalog"
        )
        try:
            assert {"clock": "timedatectl set-ntp true"} == failures(parley)
            said = found(parley, "clock")
        finally:
            await admin.execute("ALTER ROLE CURRENT_USER RESET search_path; DROP SCHEMA behind CASCADE")
    assert re.fullmatch(r"this machine's clock is (599\.[5-9]|600\.[0-4]) s ahead of PostgreSQL's", said)
    assert {} == failures(parley)


@pytest.mark.parametrize(
    "clock", ["consent.clock=ahead:600", pytest.param("vault.clock=ahead:-600", marks=pytest.mark.slow)]
)
def test_clock_that_is_off_by_ten_minutes(clock: str) -> None:
    with (
        scratch_directory() as root,
        commands(root / "home") as parley,
        parley_up(root / "home", PARLEY_FAULTS=clock) as wrong,
    ):
        said, failed = found(parley, "clock"), failures(parley)
        stop = f"kill {wrong.pid}; tail --pid={wrong.pid} -f /dev/null"
        assert {"clock": f"{stop}; env -u PARLEY_FAULTS {up_again(parley)}"} == failed
        off = rf"{clock.partition('.')[0]}'s clock is (599\.[5-9]|600\.[0-4]) s {'behind' if '-' in clock else 'ahead of'}"
        assert re.search(off, said)
        with started_again(parley, failed["clock"], wrong, PARLEY_FAULTS=clock):
            assert {} == failures(parley)


# --- Events --------------------------------------------------------------------------------------------------------------


async def test_relay_that_is_stuck(parley: Parley) -> None:
    async with (
        administrator(parley, "parley_identity") as holder,
        administrator(parley, "parley_identity") as other,
    ):
        await holder.execute("BEGIN")
        await holder.execute("SELECT * FROM stream_head FOR UPDATE")
        parley.run("customer", "join", "--as", "stuck")
        await other.execute("UPDATE outbox SET occurred_at = occurred_at - interval '2 minutes'")
        failed = failures(parley)
        assert {"events identity": f"kill {holder.get_server_pid()}"} == failed
        assert "the relay is stuck" in found(parley, "events identity")
        mend(parley, failed["events identity"])


async def test_events_that_another_read_in_audits_name(parley: Parley) -> None:
    where, stream = paths.layout(parley.home.servers), stream_key("consent")
    async with administrator(parley, "parley_consent") as consent, Redis.from_url(valkey.admin_url(where)) as redis:
        parley.run("customer", "join", "--as", "robbed")
        last = int((await redis.xinfo_stream(stream))["last-generated-id"].split(b"-")[0])
        await redis.xgroup_setid(stream, "audit", f"{last + 1}-0")
        parley.run("customer", "refuse", "--as", "robbed")
        await until(lambda: consent.fetchval("SELECT count(*) FROM outbox WHERE stream_seq = $1", last + 1))
        await consent.execute("UPDATE outbox SET occurred_at = occurred_at - interval '2 minutes'")
        try:
            missed = "audit hasn't said that it logged them"  # once all the others have read it
            eventually(lambda: found(parley, "events consent").endswith(missed))
            pid = parley.home.running().pid
            data = shlex.quote(str(where.valkey_data))
            mended = f"kill {pid}; tail --pid={pid} -f /dev/null; rm -r {data}; {up_again(parley)}"
            assert {"events consent": mended} == failures(parley)
        finally:
            await redis.delete(stream)
            eventually(lambda: is_sound(parley))


async def test_poison_event_is_set_aside_while_others_flow_on_and_is_replayed(parley: Parley) -> None:
    names = ("poisoned", "healthy")
    parley.run("marketer", "register", "Flow", "--as", "flow")
    exchanges, offers = {}, {}
    for name, age in zip(names, ("61", "62"), strict=True):
        parley.run("customer", "join", "--as", name)
        parley.run("customer", "put", "profile.age", age, "--as", name)
        parley.run("customer", "discoverable", "profile.age", "unverified", "--as", name)
        parley.run(
            *("marketer", "ask", "--where", f"profile.age is {age}", "--field", "profile.age"),
            *("--purpose", "Marketing", "--as", "flow"),
        )
        exchanges[name] = parley.json("marketer", "exchanges", "--as", "flow")[0]["name"]
        offers[name] = parley.until("customer", "inbox", "--as", name)[0]["name"]

    exchange = exchanges["poisoned"].rpartition("/")[2]
    async with _failing(parley, "parley_broker", "participants", f"NEW.exchange_id = '{exchange}' AND NEW.state = 3"):
        for name in names:
            parley.run("customer", "accept", offers[name], "--as", name)
        (release,) = parley.until("marketer", "deliveries", "--wait", "0.5", "--as", "flow")
        assert "62" == release["profile.age"]
        eventually(lambda: not is_sound(parley))
        assert {"events broker": "parley operator replay broker"} == failures(parley)
        (letter,) = parley.json("operator", "dead-letters")
        assert ("broker", "consent", "parley.consent.v1.ConsentGiven", "RaiseError") == (
            *(letter["reader"], letter["stream"], letter["type"], letter["error"]),
        )
        assert {"reader", "stream", "place", "event", "type", "error", "since"} == set(letter)
        again = parley.try_("operator", "replay")
        assert (1, True) == (again.code, "1 failed again" in again.err)
        assert [letter["event"]] == [each["event"] for each in parley.json("operator", "dead-letters")]

    mend(parley, "parley operator replay broker")
    (release,) = parley.until("marketer", "deliveries", "--wait", "0.5", "--as", "flow")
    assert "61" == release["profile.age"]
    assert [] == parley.json("operator", "dead-letters")
    assert "No event is set aside" in parley.run("operator", "replay").out


async def test_audit_skips_nothing_and_goes_on_where_it_stood(parley: Parley) -> None:
    async with _failing(parley, "parley_audit", "waiting", "true"):
        parley.run("customer", "join", "--as", "unlogged")
        eventually(lambda: "audit is stuck" in found(parley, "events identity"))
        (command,) = failures(parley).values()
        event = found(parley, "events identity").split()[5]
        log = parley.home.log("audit" if "--split" in UP else "parley")
        assert f"grep {event} {log}" == command
        assert "RaiseError" in shell(parley.home, command).out
        assert [] == parley.json("operator", "dead-letters")
    eventually(lambda: is_sound(parley))
    logged = parley.until("customer", "history", "--as", "unlogged")
    assert logged


@pytest.mark.slow
async def test_log_that_stands_still(parley: Parley) -> None:
    async with _failing(parley, "parley_audit", "log_entries", "true"):
        failed = failures(parley)
        assert ["log"] == [*failed]
        assert "RaiseError" in shell(parley.home, failed["log"]).out
    eventually(lambda: is_sound(parley))


@asynccontextmanager
async def _failing(parley: Parley, database: str, table: str, condition: str) -> AsyncIterator[None]:
    """A table that refuses rows, for the length of a block: what an event does to it can't be applied."""
    async with administrator(parley, database) as admin:
        await admin.execute(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'poison'; END $$"
        )
        await admin.execute(
            f"CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON {table} FOR EACH ROW WHEN ({condition}) "
            "EXECUTE FUNCTION refuse()"
        )
        try:
            yield
        finally:
            await admin.execute("DROP FUNCTION refuse CASCADE")


# --- Services apart ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_services_that_refuse_each_other_hang_or_shut_their_doors() -> None:
    with scratch_directory() as root, commands(root / "home") as parley:
        home, doors = parley.home, Doors.of(parley.home)
        with parley_up(root / "home", "--split") as first:
            vault = listener_of(doors.socket("vault"))
            assert vault
            os.kill(vault, signal.SIGSTOP)
            assert dict.fromkeys(["services", "peers"], f"kill -9 {vault}") == failures(parley)
            mend(parley, f"kill -9 {vault}")

            shut = Path(doors.peers("consent").removeprefix("unix:"))
            shut.unlink()
            failed = failures(parley)
            assert {"peers": f"kill -9 {listener_of(doors.socket('consent'))}"} == failed
            assert "consent's door for other services doesn't open to broker" in found(parley, "peers")
            mend(parley, failed["peers"])

            _make_foreign(home, "vault")
            restarted = listener_of(doors.socket("vault"))
            os.kill(restarted or 0, signal.SIGKILL)
            eventually(lambda: listener_of(doors.socket("vault")) not in (None, restarted))
            eventually(lambda: "vault and broker refuse each other" in found(parley, "peers"))
            stop = (
                f"kill {first.pid}; tail --pid={first.pid} -f /dev/null; rm -f {shlex.quote(str(home.tls_authority))}"
            )
            failed = failures(parley)
            assert {"peers": f"{stop}; {up_again(parley, split=True)}"} == failed
            with started_again(parley, failed["peers"], first):
                assert {} == failures(parley)


def _make_foreign(home: Home, service: str) -> None:
    """Give a service a certificate that another authority signed."""
    leaf = issue([service], datetime.now(UTC)).leaves[service]
    home.tls_certificate(service).write_bytes(leaf.certificate)
    home.tls_key(service).write_bytes(leaf.key)
