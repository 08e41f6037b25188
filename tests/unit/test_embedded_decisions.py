"""Where the embedded pair's parts go, how it is addressed, and when it is tried again."""

import base64
import hmac
import os
import signal
from pathlib import Path

import pytest

from parley_node.embedded import postgres, valkey
from parley_node.embedded.databases import owned_name
from parley_node.embedded.errors import ServersUnavailable
from parley_node.embedded.external import ExternalServers, dsn_for, from_environment
from parley_node.embedded.passwords import scram
from parley_node.embedded.paths import SOCKET_PATH_MAX, layout
from parley_node.embedded.supervise import leash_command, pause, server_environment

POSTGRES_URL = "postgresql://admin:secret@db.internal:5433/postgres?sslmode=require"
VALKEY_URL = "redis://valkey.internal:6379/0"


def test_sockets_stay_inside_the_data_directory_up_to_the_longest_path_that_can_name_one() -> None:
    room = SOCKET_PATH_MAX - len("/run/postgres/.s.PGSQL.5432.lock")
    longest, too_long = Path("/" + "d" * (room - 1)), Path("/" + "d" * room)
    assert layout(longest).sockets == longest / "run"
    assert layout(too_long).sockets.parent == Path("/tmp")


def test_length_of_a_path_counts_in_bytes() -> None:
    assert layout(Path("/" + "é" * 40)).sockets.parent == Path("/tmp")


@pytest.mark.parametrize("odd", ["a,b", "a b", "a'b", 'a"b', "a?b", "a%20b", "a#b", "a:b"])
def test_path_with_a_character_that_means_something_in_a_url_or_setting_gets_a_plain_one(odd: str) -> None:
    assert layout(Path("/data") / odd).sockets.parent == Path("/tmp")


def test_two_data_directories_never_share_a_socket_directory() -> None:
    first, second = Path("/" + "d" * 200), Path("/" + "e" * 200)
    assert layout(first).sockets != layout(second).sockets
    assert layout(first).sockets == layout(first).sockets


def test_urls_name_the_socket_and_the_file_of_a_password() -> None:
    where = layout(Path("/data/parley"))
    wanted = "postgresql://parley_consent@/parley_consent?host=/data/parley/run/postgres&port=5432&passfile=/keys/a%20b"
    assert postgres.dsn(where, "parley_consent", "parley_consent", Path("/keys/a b")) == wanted
    assert valkey.url(where) == "unix:///data/parley/run/valkey/valkey.sock"


def test_durability_of_postgres_is_left_at_its_defaults() -> None:
    settings = postgres.settings(layout(Path("/data")))
    assert not {"fsync", "synchronous_commit", "full_page_writes"} & set(settings)
    assert settings["listen_addresses"] == ""


def test_restarts_slow_down_and_stay_bounded() -> None:
    assert [pause(failures) for failures in (0, 1, 2, 10)] == [0.05, 0.1, 0.2, 2.0]


def test_servers_inherit_nothing_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPORT", "6543")
    monkeypatch.setenv("PARLEY_SECRET", "s")
    assert set(server_environment()) == {"PATH", "LC_ALL", "TZ"}


def test_leash_names_its_parent_and_ends_its_own_options_before_the_command() -> None:
    command = leash_command(("--namespace", "1000"), signal.SIGINT, ("/bin/server", "--lock", "x"))
    assert command[command.index("--parent") + 1] == str(os.getpid())
    assert command[command.index("--") + 1 :] == ["/bin/server", "--lock", "x"]


def test_both_urls_in_the_environment_win() -> None:
    found = from_environment({"PARLEY_POSTGRES_URL": POSTGRES_URL, "PARLEY_VALKEY_URL": VALKEY_URL})
    assert found == ExternalServers(admin_dsn=POSTGRES_URL, valkey_url=VALKEY_URL)


def test_no_url_means_no_external_servers() -> None:
    assert from_environment({"PARLEY_POSTGRES_URL": ""}) is None


@pytest.mark.parametrize("only", ["PARLEY_POSTGRES_URL", "PARLEY_VALKEY_URL"])
def test_one_url_without_the_other_is_refused(only: str) -> None:
    with pytest.raises(ServersUnavailable, match="set both"):
        from_environment({only: "redis://x"})


def test_password_of_the_administrator_is_no_roles() -> None:
    mine = "postgresql://parley_vault@db.internal:5433/parley_vault?sslmode=require&passfile=/keys/vault"
    assert dsn_for(POSTGRES_URL, "parley_vault", "parley_vault", Path("/keys/vault")) == mine
    with_file = f"{POSTGRES_URL}&passfile=/keys/mine"
    assert dsn_for(with_file, "parley_vault", "parley_vault", Path("/keys/vault")) == mine


def test_administrator_reaches_every_database_and_valkey_is_told_of_nobody() -> None:
    external = ExternalServers(
        POSTGRES_URL, "rediss://admin:secret@cache.internal:6380/2?ssl_cert_reqs=required&password=x"
    )
    wanted = "postgresql://admin:secret@db.internal:5433/parley_vault?sslmode=require"
    assert external.database_dsn("parley_vault") == wanted
    assert external.valkey_address == "rediss://cache.internal:6380/2?ssl_cert_reqs=required"
    assert "secret" not in repr(external)


def test_scram_verifier_is_the_one_of_rfc_7677() -> None:
    # The exchange of RFC 7677 section 3: user "user", password "pencil"; ServerKey proven by its ServerSignature.
    salt = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    stored, server = scram("pencil", salt).rpartition("$")[2].split(":")
    message = (
        b"n=user,r=rOprNGfwEbeRWgbNEkqO,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
        b"s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
    )
    assert (
        "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
        == base64.b64encode(hmac.digest(base64.b64decode(server), message, "sha256")).decode()
    )
    assert len(base64.b64decode(stored)) == 32


@pytest.mark.parametrize("bad", ["", "Vault", "1vault", "va-ult", "vault ", "vault\n", 'v"', "v" * 50])
def test_service_name_that_could_not_be_quoted_plainly_is_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="not a service name"):
        owned_name(bad)
