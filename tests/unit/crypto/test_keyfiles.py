import base64
import os
import stat
from pathlib import Path

import pytest

from parley_crypto.keyfiles import KeyFileUnusable, ensure_key, read_key, read_keys, read_secret, write_key

ONE, TWO = bytes([1]) * 32, bytes([2]) * 32


def line(version: object, key: bytes) -> str:
    return f"{version} {base64.b64encode(key).decode()}\n"


def key_file(folder: Path, text: str | bytes, mode: int = 0o600) -> Path:
    path = folder / "key"
    path.touch()
    path.chmod(mode)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_key_that_was_made_is_32_bytes_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "zone" / "key"
    ensure_key(path)

    assert 32 == len(read_key(path))
    assert 0o600 == stat.S_IMODE(path.stat().st_mode)
    assert 0o700 == stat.S_IMODE(path.parent.stat().st_mode)


def test_key_that_is_there_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "key"
    write_key(path, ONE)
    write_key(path, TWO)
    ensure_key(path)

    assert {1: ONE} == read_keys(path)
    assert line(1, ONE) == path.read_text()


def test_key_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            ensure_key(tmp_path / "key")

    assert [] == list(tmp_path.iterdir())
    ensure_key(tmp_path / "key")
    assert [tmp_path / "key"] == list(tmp_path.iterdir())


def test_secret_that_is_empty_is_none(tmp_path: Path) -> None:
    with pytest.raises(KeyFileUnusable, match="empty"):
        read_secret(key_file(tmp_path, "\n"))


def test_two_files_hold_two_keys(tmp_path: Path) -> None:
    for name in ("a", "b"):
        ensure_key(tmp_path / name)

    assert read_key(tmp_path / "a") != read_key(tmp_path / "b")


def test_last_line_is_the_newest_whatever_its_number(tmp_path: Path) -> None:
    path = key_file(tmp_path, line(9, ONE) + line(3, TWO))

    assert [(9, ONE), (3, TWO)] == list(read_keys(path).items())
    assert TWO == read_key(path)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620, 0o602, 0o610, 0o601, 0o666])
def test_key_that_others_may_read_write_or_run_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(KeyFileUnusable, match="chmod 600"):
        read_keys(key_file(tmp_path, line(1, ONE), mode))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        "1\n",
        base64.b64encode(ONE).decode(),
        line("one", ONE),
        line(-1, ONE),
        line(2**32, ONE),
        line(1, ONE[:31]),
        line(1, ONE + b"\0"),
        line(1, ONE).strip() + "!\n",
        line(1, ONE) + "\n",
        line(1, ONE).replace(" ", "  "),
        line(1, ONE) + line(1, TWO),
        b"\xff\xfe",
        "1 ü\n",
    ],
)
def test_file_that_is_no_key_file_is_refused_and_named(tmp_path: Path, text: str | bytes) -> None:
    path = key_file(tmp_path, text)

    with pytest.raises(KeyFileUnusable, match=str(path)) as refused:
        read_keys(path)
    assert base64.b64encode(ONE).decode()[:20] not in str(refused.value)


def test_missing_file_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(KeyFileUnusable, match="parley up"):
        read_keys(tmp_path / "none")
    with pytest.raises(KeyFileUnusable, match="can't be read"):
        read_keys(tmp_path)
