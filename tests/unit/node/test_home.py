"""What a home knows of who runs on it."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from parley_node.embedded.paths import try_lock
from parley_node.home import Home, NotRunning, Running


@contextmanager
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["/bin/sleep", "60"]) as process:
        try:
            yield process
        finally:
            process.kill()


def running_as(pid: int) -> Running:
    metrics = {"vault": "http://127.0.0.1:7402/metrics"}
    return Running("127.0.0.1:7400", "http://127.0.0.1:7401", pid, metrics, ("--host", "127.0.0.2"))


def test_a_home_knows_who_runs_on_it_until_they_stop(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with sleeper() as process:
        home.started(running_as(process.pid))
        assert running_as(process.pid) == home.running()

        home.stopped()
        with pytest.raises(NotRunning, match="parley up"):
            home.running()


def test_a_killed_process_doesnt_run_even_before_anybody_has_taken_note(tmp_path: Path) -> None:
    home = Home(tmp_path)
    with sleeper() as process:
        home.started(running_as(process.pid))
        process.kill()
        while Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2][0] != "Z":
            continue

        with pytest.raises(NotRunning):
            home.running()


def test_a_stranger_who_has_a_killed_processs_id_now_doesnt_run_here(tmp_path: Path) -> None:
    home, note = Home(tmp_path), tmp_path / "running.json"
    home.started(running_as(1))  # it began before this test
    with sleeper() as stranger:
        note.write_text(json.dumps(json.loads(note.read_text()) | {"pid": stranger.pid}))

        with pytest.raises(NotRunning):
            home.running()


def test_a_note_that_was_copied_with_its_home_counts_for_the_original_alone(tmp_path: Path) -> None:
    original, copy = Home(tmp_path / "original"), tmp_path / "copy"
    original.make()
    with sleeper() as process:
        original.started(running_as(process.pid))
        shutil.copytree(original.root, copy)

        assert running_as(process.pid) == original.running()
        with pytest.raises(NotRunning, match="parley up"):
            Home(copy).running()


def test_a_note_of_an_earlier_version_counts_while_its_process_lives(tmp_path: Path) -> None:
    home, note = Home(tmp_path), tmp_path / "running.json"
    with sleeper() as process:
        home.started(running_as(process.pid))
        told = json.loads(note.read_text())
        del told["begun"], told["home"]
        note.write_text(json.dumps(told))
        assert running_as(process.pid) == home.running()
    with pytest.raises(NotRunning):
        home.running()


@pytest.mark.parametrize("note", ["", "null", "{}", "[]", '{"begun": 1}', '{"begun": 1, "pid": 1}'])
def test_a_note_that_cannot_be_read_names_nobody(note: str, tmp_path: Path) -> None:
    (tmp_path / "running.json").write_text(note)

    with pytest.raises(NotRunning):
        Home(tmp_path).running()


def test_a_home_that_is_emptied_keeps_the_lock_that_is_held(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.empty()
    (home.root / "keys" / "vault").mkdir(parents=True)
    (home.root / "keys" / "vault" / "master.key").touch()
    (home.root / "elsewhere").symlink_to(tmp_path)
    home.trust.touch()
    held = try_lock(home.lock)
    assert held is not None

    home.empty()

    assert [home.lock] == list(home.root.iterdir())
    assert try_lock(home.lock) is None
    os.close(held)
    assert tmp_path.is_dir()
