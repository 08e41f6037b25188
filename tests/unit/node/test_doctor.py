"""Doctor's checks: what one comes to, whatever it meets."""

import os
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from parley_node.doctor import live, still
from parley_node.doctor.findings import NotLooked, State, Trouble, look
from parley_node.doctor.mending import option, up
from parley_node.embedded.errors import ServersUnavailable
from parley_node.embedded.external import POSTGRES_URL, VALKEY_URL, from_environment
from parley_node.embedded.postgres import listener_of
from parley_node.home import Home, Running
from parley_node.node import Options
from parley_node.provision import certify, provision


@asynccontextmanager
async def _within() -> AsyncIterator[None]:
    yield


@pytest.mark.parametrize(
    ("raised", "state", "found"),
    [
        (Trouble("it is wrong", "mend it"), State.FAILED, "it is wrong"),
        (NotLooked("first the other"), State.SKIPPED, "first the other"),
        (PermissionError(13, "Permission denied", "/home/keys"), State.FAILED, "/home/keys: Permission denied"),
    ],
)
async def test_check_comes_to_a_finding_even_out_of_a_context_manager(
    raised: Exception, state: State, found: str
) -> None:
    async def looking() -> str:
        async with _within():
            raise raised

    finding = await look("it", looking)

    assert (state, found) == (finding.state, finding.found)


@pytest.mark.parametrize(
    ("free", "whole", "is_enough"),
    [(1000, 100_000, False), (1024, 100_000, True), (40, 1000, False), (50, 1000, True), (0, 100_000, False)],
)
async def test_disk_that_is_nearly_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, whole: int, is_enough: bool
) -> None:
    home = Home(tmp_path)
    provision(home)
    usage = SimpleNamespace(total=whole << 20, used=(whole - free) << 20, free=free << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    finding = await look("disk", dict(still.checks(home))["disk"])
    assert (State.OK if is_enough else State.FAILED) == finding.state
    assert is_enough or finding.found.startswith(f"{free:,} MiB are free where {tmp_path} ")


def test_home_is_quoted_in_what_is_to_be_typed() -> None:
    assert " --home '/tmp/my home; rm -rf x'" == option(Home(Path("/tmp/my home; rm -rf x")))


def test_socket_whose_queue_is_full_has_no_listener_and_holds_nobody_up(tmp_path: Path) -> None:
    path, waiting = tmp_path / "s", []
    with socket.socket(socket.AF_UNIX) as hanging:
        hanging.bind(str(path))
        hanging.listen(0)
        try:
            while True:
                waiting.append(socket.socket(socket.AF_UNIX))
                waiting[-1].setblocking(False)
                waiting[-1].connect(str(path))
        except BlockingIOError:
            pass
        assert listener_of(path) is None
        for each in waiting:
            each.close()


@pytest.mark.parametrize(
    "url", ["postgresql://admin:hunter2/x@db.example/postgres", "redis://u:hunter2/x@h", "hunter2", ""]
)
@pytest.mark.parametrize("name", [POSTGRES_URL, VALKEY_URL])
def test_url_that_is_none_is_refused_without_a_word_of_it(name: str, url: str) -> None:
    given = {POSTGRES_URL: "postgresql://db.example/postgres", VALKEY_URL: "redis://db.example:6379", name: url}

    with pytest.raises(ServersUnavailable) as refused:
        from_environment(given)

    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("damaged", ["tls.pem", "tls.key"])
async def test_certificate_that_is_damaged_is_a_finding_and_no_traceback(tmp_path: Path, damaged: str) -> None:
    home = Home(tmp_path / "home")
    provision(home)
    certify(home, datetime.now(UTC))
    for path in home.root.glob(f"keys/*/{damaged}"):
        path.write_text(path.read_text()[:60])
    running = Running("unix:{service}", "http://127.0.0.1:1", os.getpid())

    finding = await look("peers", dict(live.checks(home, running))["peers"])

    assert finding.state is State.FAILED
    assert "has no certificate that can be read" in finding.found
    assert finding.mend


def test_parley_is_started_again_as_it_was_told() -> None:
    home = Home.choose(None)
    options = Options(port=0, metrics_port=9100, traces="http://127.0.0.1:4318/v1/traces")
    running = Running("unix:{service}", "http://127.0.0.1:2", 7, told=tuple(options.told()))
    told = "--split --port 0 --metrics-port 9100 --traces http://127.0.0.1:4318/v1/traces"
    assert ("parley up", "parley up --split", f"parley up {told}") == (
        up(home),
        up(home, replace(running, told=tuple(Options().told()))),
        up(home, running),
    )
