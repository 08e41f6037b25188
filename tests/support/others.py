"""What a stranger has: a log over HTTP, tools that aren't ours, and no line of our cryptography."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import Response

from parley_rpc import http
from tests.support.documents import ROOT

PROGRAM = ROOT / "examples" / "verify-log"
NO_GO = "Go is not on the path"
NO_MODULES = "Go is there, and its modules can't be had"
_QUICKLY = "'-gcflags=all=-N -l'"
"""Go compiles all that it comes with, on a machine that never did: without optimising, in two thirds of the time."""
_WIDTH = 256
_HASH = 32

Get = Callable[[str], Awaitable[bytes]]


@dataclass(frozen=True)
class Said:
    """How a program ended, and what it said."""

    code: int
    out: str
    errors: str


async def run(command: Sequence[str | Path], folder: Path) -> Said:
    """Run a program to its end."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, cwd=folder, env=_environment(), stdout=pipe, stderr=pipe)
    try:
        async with asyncio.timeout(60):
            out, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Said(process.returncode, out.decode(), errors.decode())


def go(*arguments: str | Path, tool: str = "go") -> subprocess.CompletedProcess[str]:
    """Run Go, or a tool that comes with it, in the program's folder; skips where there is no Go."""
    found = shutil.which("go")
    if found is None:
        pytest.skip(NO_GO)
    command = [Path(found).with_name(tool), *arguments]
    return subprocess.run(
        command, cwd=PROGRAM, env=_environment(), capture_output=True, text=True, check=False, timeout=150
    )


def build_program(to: Path) -> Path:
    """Compile the Go program; skips where there is no Go, or its modules are not there and can't be had."""
    got = go("mod", "download")
    if got.returncode != 0:
        assert "SECURITY ERROR" not in got.stderr, got.stderr  # what was had is not what go.sum names
        pytest.skip(NO_MODULES)
    built = go("build", "-o", to, ".")
    assert built.returncode == 0, built.stderr
    return to


def _environment() -> dict[str, str]:
    return {"GOFLAGS": _QUICKLY, **os.environ}


@asynccontextmanager
async def serving(app: Any) -> AsyncIterator[str]:
    """Serve an application as a node serves its log, on any free port of this machine; its address."""
    async with http.serving(app, http.listen("127.0.0.1:0")) as address:
        yield address


@dataclass
class Front:
    """One address for several applications, one after the other: what a stranger sees of a log that changes."""

    app: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


@dataclass(frozen=True)
class Falsified:
    """An application as it is, but for the paths that are answered with other bytes."""

    app: Any
    instead: Mapping[str, bytes]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = self.instead.get(scope["path"])
        await (self.app if body is None else Response(body))(scope, receive, send)


def flipped(raw: bytes, at: int) -> bytes:
    """The same bytes but for one bit."""
    return raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]


class Tree:
    """
    A log's entries, and paths to its root, from its files alone (c2sp.org/tlog-tiles, RFC 6962 section 2.1).

    Written once more, and differently, so that it shares no mistake with ours. Hashes that tiles hold are believed;
    whether a path leads to the root is for a verifier to say.
    """

    def __init__(self, files: Mapping[str, bytes], size: int) -> None:
        self.size = size
        self._files = files
        self._range = cache(self._compute)

    @classmethod
    async def fetch(cls, get: Get, size: int) -> "Tree":
        """Fetch the files of a tree of ``size`` entries."""
        return cls({path: await get(path) for path in paths_of(size)}, size)

    def with_file(self, path: str, raw: bytes) -> "Tree":
        """The same, with another file in one place."""
        return Tree({**self._files, path: raw}, self.size)

    def __getitem__(self, path: str) -> bytes:
        return self._files[path]

    def entries(self) -> list[bytes]:
        """All entries, in order."""
        found: list[bytes] = []
        for name in _names("entries", self.size):
            raw = self._files[name]
            while raw:
                end = 2 + int.from_bytes(raw[:2], "big")
                found.append(raw[2:end])
                raw = raw[end:]
        return found

    def path(self, index: int) -> list[str]:
        """The hashes from a leaf to the root, hexadecimal."""
        start, end, found = 0, self.size, []
        while end - start > 1:
            middle = start + _half(end - start)
            if index < middle:
                found.append(self._range(middle, end))
                end = middle
            else:
                found.append(self._range(start, middle))
                start = middle
        return [each.hex() for each in reversed(found)]

    def _compute(self, start: int, end: int) -> bytes:
        count = end - start
        for level in (2, 1, 0):
            span = _WIDTH**level
            if count == span and start % span == 0:
                return self._stored(level, start // span)
        middle = start + _half(count)
        return sha256(b"\x01" + self._range(start, middle) + self._range(middle, end)).digest()

    def _stored(self, level: int, index: int) -> bytes:
        number, place = divmod(index, _WIDTH)
        raw = self._files[_names(str(level), self.size // _WIDTH**level)[number]]
        return raw[place * _HASH : (place + 1) * _HASH]


def paths_of(size: int) -> list[str]:
    """The paths of all files of a tree of fewer than 256³ entries, but for its checkpoint."""
    tiles = [name for level in (0, 1, 2) for name in _names(str(level), size // _WIDTH**level)]
    return [*_names("entries", size), *tiles]


@cache
def _names(level: str, count: int) -> list[str]:
    """Names of the files of a level that holds so many things; of fewer than 1,000 files."""
    full, rest = divmod(count, _WIDTH)
    return [f"/tile/{level}/{each:03}" for each in range(full)] + (
        [f"/tile/{level}/{full:03}.p/{rest}"] if rest else []
    )


def _half(count: int) -> int:
    """The largest power of two below a count."""
    return 1 << (count - 1).bit_length() - 1
