"""
Confines this process to the files that it needs (Landlock, landlock(7)): whoever takes over a service reads nobody else's keys.

What the kernel keeps, for this process and all it starts: it reads programs, the system's settings and what is listed, writes
what is listed, runs no program, and signals and traces nobody else. What Landlock doesn't restrict is connecting to others'
sockets: passwords and certificates stand before those.
"""

import ctypes
import os
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from pydantic_settings import BaseSettings

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # syscall(2): the same on every architecture
_ASK_FOR_VERSION = 1  # LANDLOCK_CREATE_RULESET_VERSION
_PATH_BENEATH = 1  # LANDLOCK_RULE_PATH_BENEATH
_NO_NEW_PRIVS = 38  # prctl(2): PR_SET_NO_NEW_PRIVS, without which only root may confine itself

# linux/landlock.h: LANDLOCK_ACCESS_FS_*
_WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 1, 1 << 2, 1 << 3
_REMOVE_FILE, _MAKE_REG, _MAKE_SOCK, _TRUNCATE = 1 << 5, 1 << 8, 1 << 9, 1 << 14
_RIGHTS_BY_VERSION = (13, 14, 15, 15, 16)  # so many are known from version 1, 2, ... on
_SCOPES = 0b11  # LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET, _SIGNAL
_SCOPES_FROM = 6

_READS = _READ_FILE | _READ_DIR
_WRITES = _READS | _WRITE_FILE | _REMOVE_FILE | _MAKE_REG | _MAKE_SOCK | _TRUNCATE
_OF_FILES = _READ_FILE | _WRITE_FILE | _TRUNCATE

_SHARED = ("/usr", "/lib", "/lib64", "/etc")
"""Where every process reads programs and the system's settings, which are replaced while it runs: so by directory."""
_SYSTEM = (
    *_SHARED,
    *("/run/systemd/resolve", "/proc/self"),
    *("/dev/urandom", "/dev/random", "/dev/zero"),
    *("/proc/stat", "/proc/sys/net/core/somaxconn", "/sys/devices/system/cpu"),  # what gRPC sizes itself by
)


class Written:
    """
    Marks a setting, ``Annotated[Path, Written()]``, that names a file which the service writes.

    It may write to that file's whole directory, so nothing else should be there.
    """


class Listened:
    """
    Marks a setting, ``Annotated[str, Listened()]``, that names where the service listens.

    Of a socket (``unix:/path``) it may write to the whole directory. To where it calls others it never may: who can put a
    socket of their own in the place of a server's hears the passwords of all who come to it.
    """


class ConfinementFailed(OSError):
    """The kernel knows Landlock and refused it; the message says at which step."""


@dataclass(frozen=True)
class Bounds:
    """What a process may read, and what it may write, beside programs and the system's settings: files and directories."""

    reads: frozenset[Path]
    writes: frozenset[Path]


class _Ruleset(ctypes.Structure):
    _fields_ = (("fs", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def version() -> int:
    """Which Landlock this kernel has; 0 for none."""
    if sys.platform != "linux":
        return 0
    return max(0, int(_libc().syscall(_CREATE_RULESET, None, 0, _ASK_FOR_VERSION)))


def confine(bounds: Bounds) -> bool:
    """
    Confine this process for good; answers whether the kernel could.

    Must come before any thread: one that runs already stays free. Raises ConfinementFailed.
    """
    known = version()
    if not known:
        return False
    if len(os.listdir("/proc/self/task")) > 1:  # noqa: PTH208 - names are all that is wanted
        raise ConfinementFailed("threads run already, and would stay free")
    handled = (1 << _RIGHTS_BY_VERSION[min(known, len(_RIGHTS_BY_VERSION)) - 1]) - 1
    scoped = known >= _SCOPES_FROM
    attributes = _Ruleset(fs=handled, scoped=_SCOPES if scoped else 0)
    size = ctypes.sizeof(attributes) if scoped else ctypes.sizeof(ctypes.c_uint64)
    ruleset = _checked("create", _libc().syscall(_CREATE_RULESET, ctypes.byref(attributes), size, 0))
    try:
        for path in _programs(bounds):
            _allow(ruleset, path, _READS & handled)
        for path in bounds.reads:
            _allow(ruleset, path, _READS & handled)
        for path in (*bounds.writes, Path("/dev/null")):
            _allow(ruleset, path, _WRITES & handled)
        _checked("no_new_privs", _libc().prctl(_NO_NEW_PRIVS, 1, 0, 0, 0))
        _checked("restrict", _libc().syscall(_RESTRICT_SELF, ruleset, 0))
    finally:
        os.close(ruleset)
    return True


def is_open_to_all(path: Path) -> bool:
    """Whether something lies where every confined process may read."""
    return any(path.resolve().is_relative_to(place) for place in _SHARED)


def named_in(settings: Iterable[BaseSettings]) -> Bounds:
    """What settings name: paths, files in the options of URLs, and the directories of what is written and listened on."""
    reads, writes = set[Path](), set[Path]()
    for each in settings:
        for name, info in type(each).model_fields.items():
            value, marks = getattr(each, name), {type(mark) for mark in info.metadata}
            if isinstance(value, Path):
                (writes if Written in marks else reads).add(value.parent if Written in marks else value)
            elif isinstance(value, str):
                reads.update(_files_in(value))
                if Listened in marks and value.startswith("unix:/"):
                    writes.add(Path(value.removeprefix("unix:")).parent)
    return Bounds(frozenset(reads), frozenset(writes))


def _files_in(url: str) -> Iterator[Path]:
    for _option, value in parse_qsl(urlsplit(url).query):
        if value.startswith("/") and Path(value).is_file():
            yield Path(value)


def _programs(bounds: Bounds) -> set[Path]:
    """Where programs and the system's settings are; but no place of modules in which what is listed is, and its neighbours."""
    listed = {*bounds.reads, *bounds.writes}
    modules = {Path(place) for place in (sys.prefix, sys.base_prefix, *sys.path) if place}
    return {Path(place) for place in _SYSTEM} | {
        place for place in modules if not any(path.is_relative_to(place) for path in listed)
    }


def _allow(ruleset: int, path: Path, rights: int) -> None:
    """Allow something on a file, or on all that is under a directory; what isn't there needs no permission."""
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        rule = _PathBeneath(rights if path.is_dir() else rights & _OF_FILES, place)
        _checked(f"allow {path}", _libc().syscall(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(rule), 0))
    finally:
        os.close(place)


def _checked(step: str, answer: int) -> int:
    if answer < 0:
        number = ctypes.get_errno()
        raise ConfinementFailed(number, f"Landlock: {step}: {os.strerror(number)}")
    return answer


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
