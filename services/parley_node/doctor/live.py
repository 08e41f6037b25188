"""The running services: whether they answer people and each other, and whether the log is what was published."""

import asyncio
import shlex
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from parley_crypto.certificates import CertificateUnusable
from parley_crypto.keyfiles import KeyFileUnusable
from parley_crypto.tlog.checkpoint import Checkpoint
from parley_crypto.tlog.errors import TlogInvalid
from parley_crypto.tlog.policy import Policy
from parley_node.doctor.findings import Look, Trouble
from parley_node.doctor.mending import again, lost_key, newest_backup, newest_checkpoint, restart
from parley_node.doctor.still import policy
from parley_node.home import Home, Running
from parley_node.provision import key_file, policy_for
from parley_node.services import SERVICES
from parley_node.split import Doors
from parley_rpc.channels import at, connect, dial
from parley_rpc.health import name_of
from parley_rpc.peers import Credentials
from parley_rpc.zones import Zones

_PATIENCE_S = 3.0
_TRIES = 20
_LONGEST_TICK_S = 6.0
"""The longest that may be set, and what one takes besides."""


def checks(home: Home, running: Running) -> Iterator[tuple[str, Look]]:
    """All of them; a log that can't be continued is why audit doesn't serve."""
    yield "log", lambda: _log(home, running)
    yield "services", lambda: _services(home, running)
    yield "peers", lambda: _peers(home, running)


async def _services(home: Home, running: Running) -> str:
    for name in SERVICES:
        async with connect(at(running.address, name)) as channel:
            try:
                serves = await _comes_to_serve(channel, name)
            except grpc.RpcError as error:
                raise Trouble(f"{name} doesn't answer", restart(home, running, name)) from error
            if not serves:
                raise Trouble(f"{name} doesn't serve", restart(home, running, name))
    return f"{', '.join(SERVICES)} answer"


async def _peers(home: Home, running: Running) -> str:
    """Knock at each service's door for others, as each that may call it."""
    if not running.apart:
        return "services call each other within one process: there is no door that could be shut"
    zones, doors = Zones.load(), Doors.of(home)
    edges = [(caller, callee) for caller in SERVICES for callee in zones.callees(caller)]
    for caller, callee in edges:
        try:
            own = Credentials.load(home.tls_certificate(caller), home.tls_key(caller), home.tls_authority).client()
        except (OSError, KeyFileUnusable, CertificateUnusable) as error:
            raise Trouble(f"{caller} has no certificate that can be read", _certify(home, running)) from error
        async with dial(doors.peers(callee), own, server_name=callee) as channel:
            try:
                await _serves(channel, callee)
            except grpc.aio.AioRpcError as error:
                raise _refused(home, running, caller, callee, error) from error
    return f"{', '.join(f'{callee} lets {caller} in' for caller, callee in edges)}"


def _refused(home: Home, running: Running, caller: str, callee: str, error: grpc.aio.AioRpcError) -> Trouble:
    if _is_about_certificates(error):
        found = f"{callee} and {caller} refuse each other: their certificates aren't of one authority"
        return Trouble(found, _certify(home, running))
    return Trouble(f"{callee}'s door for other services doesn't open to {caller}", restart(home, running, callee))


def _is_about_certificates(error: grpc.aio.AioRpcError) -> bool:
    """Not so is a handshake that isn't answered: a service that hangs."""
    said = f"{error.details()} {error.debug_error_string()}"
    return any(word in said for word in ("SSL", "TLS", "certificate"))


def _certify(home: Home, running: Running) -> str:
    """Certificates are made anew, all together, where there is none of the authority."""
    return again(home, running, f"rm -f {shlex.quote(str(home.tls_authority))}; ")


async def _comes_to_serve(channel: grpc.aio.Channel, name: str) -> bool:
    """Whether a service has all that it needs: what it says of itself may be a second old."""
    for _try in range(_TRIES):
        if await _serves(channel, name):
            return True
        await asyncio.sleep(0.1)
    return False


async def _serves(channel: grpc.aio.Channel, name: str) -> bool:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    request = health_pb2.HealthCheckRequest(service=name_of(name))
    answer = await stub.Check(request, timeout=_PATIENCE_S, wait_for_ready=False)
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


async def _log(home: Home, running: Running) -> str:
    """Find the log to be what was published of it, and growing: it has an entry a tick, whatever happens."""
    believed = policy(home)
    seen = await _as_published(believed, home, running)
    until = time.monotonic() + _LONGEST_TICK_S
    while (await _served(believed, home, running)).size <= seen.size:
        if time.monotonic() > until:
            log = home.log("audit" if running.apart else "parley")
            raise Trouble(
                f"the log stands still at {seen.size} entries", f"""grep '"event": "log"' {shlex.quote(str(log))}"""
            )
        await asyncio.sleep(0.1)
    return f"{seen.size} entries, as published, and growing"


async def _as_published(believed: Policy, home: Home, running: Running) -> Checkpoint:
    """
    Compare the log as it is served with the newest checkpoint that was published.

    A checkpoint is published before it is served, so what is served, if read first, is never the larger.
    """
    for _try in range(_TRIES):
        served = await _served(believed, home, running)
        published = _checked(believed, await asyncio.to_thread(_read, home), lambda: newest_checkpoint(home))
        if served == published:
            return served
        await asyncio.sleep(0.1)
    found = f"{served.size} entries are served, and not the {published.size} that were published"
    raise Trouble(found, newest_checkpoint(home) if served.size > published.size else newest_backup(home, running))


async def _served(believed: Policy, home: Home, running: Running) -> Checkpoint:
    try:
        note = await asyncio.to_thread(_fetch, f"{running.http}/checkpoint")
    except (OSError, urllib.error.URLError) as error:
        raise Trouble(f"{running.http} doesn't answer", restart(home, running, "audit")) from error
    return _checked(believed, note, partial(_agreeing, home, running))


def _agreeing(home: Home, running: Running) -> str:
    """What makes policy and log agree: the policy of the log's key, or, where it is that already, the key that the log had."""
    key = key_file(home, "audit", "log")
    try:
        if home.policy.read_text() == policy_for(home):
            return lost_key(key)
    except KeyFileUnusable:  # its own line says so
        return lost_key(key)
    return again(home, running, f"rm -f {shlex.quote(str(home.policy))}; ")


def _checked(believed: Policy, note: bytes, mend: Callable[[], str]) -> Checkpoint:
    try:
        return believed.check(note)
    except TlogInvalid as error:
        raise Trouble(f"a checkpoint isn't signed as the policy asks: {error}", mend()) from error


def _read(home: Home) -> bytes:
    try:
        return home.published.read_bytes()
    except OSError as error:
        raise Trouble(f"{home.published}: {error.strerror}", newest_checkpoint(home)) from error


def _fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=_PATIENCE_S) as answer:  # noqa: S310 - an address this home wrote down
        return bytes(answer.read())
