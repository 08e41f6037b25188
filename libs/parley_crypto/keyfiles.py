"""
Key files: small text files that only their owner may read.

A ring holds versioned 32-byte keys, one ``VERSION BASE64`` a line; the last line is the primary. A single key is a ring of
one. Files that others may read are refused: a secret that was readable is not one.
"""

import base64
import binascii
import os
import secrets
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from parley_kit.files import sync_directory


class KeyFileUnusable(ValueError):
    """The key file is missing, readable by others, or not a key file."""


def read_keys(path: Path) -> dict[int, bytes]:
    """Read a ring's keys by version, oldest first. Raises KeyFileUnusable, which names the path and the remedy."""
    text = read_secret(path)
    try:
        pairs = [line.split(" ") for line in text.splitlines()]
        numbered = [(int(version), base64.b64decode(key, validate=True)) for version, key in pairs]
    except (ValueError, binascii.Error) as error:
        raise KeyFileUnusable(f"{path}: not a key file (lines of VERSION BASE64)") from error
    if not numbered or not all(0 <= version < 2**32 and len(key) == 32 for version, key in numbered):
        raise KeyFileUnusable(f"{path}: versions are 32 bits, keys are 32 bytes, and there is at least one")
    keys = dict(numbered)
    if len(keys) < len(numbered):  # one of the two would be lost, and what it encrypted with it
        raise KeyFileUnusable(f"{path}: each version is there once")
    return keys


def read_key(path: Path) -> bytes:
    """Read the newest key of a file. Raises KeyFileUnusable."""
    return list(read_keys(path).values())[-1]


def read_secret(path: Path) -> str:
    """Read a file that only its owner may read. Raises KeyFileUnusable, which names the path and the remedy."""
    try:
        mode, text = path.stat().st_mode, path.read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise KeyFileUnusable(
            f"{path}: can't be read; restore it from your backup (`parley up` makes those of a new home)"
        ) from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise KeyFileUnusable(f"{path}: others may read it; chmod 600 {path}")
    if not text.strip():  # an empty password would let everybody in
        raise KeyFileUnusable(f"{path}: it is empty; restore it from your backup, or delete it if this home is new")
    return text


def ensure_key(path: Path) -> None:
    """Make a key file with one random key, unless it is there. Creates its directory, for the owner alone."""
    ensure_secret(path, lambda: _line(secrets.token_bytes(32)))


def ensure_secret(path: Path, make: Callable[[], str]) -> None:
    """Write what ``make`` answers for the owner alone, unless the file is there. Creates its directory, likewise."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write(path, make())


def write_key(path: Path, key: bytes) -> None:
    """Write one key as version 1; a file that exists is left as it is."""
    _write(path, _line(key))


def _line(key: bytes) -> str:
    return f"1 {base64.b64encode(key).decode()}\n"


def _write(path: Path, text: str) -> None:
    """Write a file whole, or not at all: one that was cut short would stand for a key that nobody has."""
    if path.exists():
        return
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # for the owner alone
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):  # somebody else was first
            os.link(name, path)
    finally:
        Path(name).unlink()
    sync_directory(path.parent)
