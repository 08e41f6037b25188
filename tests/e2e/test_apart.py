"""
Are the zones apart, where each runs in a process of its own?

What somebody has who took over one of them (its keys, its role, its user of Valkey, its certificate, every socket) is tried on
the others, and beside it that the same does work for whose it is: a refusal of everybody would prove nothing.
"""

import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError

from parley.consent.v1 import consent_pb2 as consentpb
from parley.consent.v1.consent_pb2_grpc import ConsentServiceStub
from parley.identity.v1 import identity_pb2 as identitypb
from parley.identity.v1.identity_pb2_grpc import IdentityServiceStub
from parley.vault.v1 import vault_pb2 as vaultpb
from parley.vault.v1.vault_pb2_grpc import VaultServiceStub
from parley_bus.bus import BLOCK, stream_key
from parley_crypto.certificates import issue
from parley_crypto.keyfiles import read_secret
from parley_kit.faults import CallerNotAllowed, ClocksApart, Fault, Unauthenticated
from parley_node.embedded.pair import ServerPair
from parley_node.node import Options
from parley_node.services import SERVICES
from parley_node.split import ApartNode, Children, Listeners
from parley_node.stores import dsn
from parley_rpc.channels import at, connect, dial
from parley_rpc.confine import version
from parley_rpc.logs import logger
from parley_rpc.peers import Credentials
from parley_rpc.status import fault_from
from parley_rpc.zones import Zones
from tests.support.calls import request_id
from tests.support.canaries import none_in_clear, word
from tests.support.chaos import frozen, listener, rows
from tests.support.servers import scratch_directory
from tests.support.waiting import until
from tests.support.world import World, between, by_criteria, living_world, quick, terms

CITY = word()
LISTENERS = Listeners(0, dict.fromkeys(SERVICES, 0))
SERVERS_FILES = ("postgres.pass", "valkey.pass", "postgres/PG_VERSION", "valkey/users.acl")


@pytest.fixture(scope="module")
async def world() -> AsyncIterator[World]:
    """A node whose services run apart; at its end no canary may be anywhere in clear."""
    with scratch_directory() as root:
        async with living_world(root / "home", apart=True) as living:
            yield living
            await none_in_clear(living)


def _node(world: World) -> ApartNode:
    assert isinstance(world.node, ApartNode)
    return world.node


async def _refusal(call: Any) -> Fault:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return fault_from(refused.value)


# --- All together --------------------------------------------------------------------------------------------------------


async def test_customer_and_marketer_get_through(world: World) -> None:
    marketer, customer = await world.marketer(), await world.customer()
    await customer.put(profile_age="41", profile_city=CITY)
    await customer.discoverable("profile.age")
    await marketer.ask(by_criteria(terms("profile.city"), between("profile.age", "41", "41"), "Walk with us"))
    consent = await customer.accept(await customer.offer())
    (delivery,) = await marketer.collect(1)
    assert CITY == world.opened(marketer, delivery)["fields"][0]["value"]
    assert consentpb.CONSENT_STATE_REVOKED == (await customer.withdraw(consent.name)).state
    (notice,) = [one for one in await marketer.collect(1) if one.HasField("notice")]
    assert ("ConsentRevoked", consent.name) == (notice.notice.notice, notice.notice.consent)


async def test_each_process_is_told_of_its_own_secrets_only(world: World) -> None:
    for name in SERVICES:
        told = dict(line.split("=", 1) for line in _proc(world, name, "environ").split("\0") if line)
        assert str(world.home.keys(name)) == told["PARLEY_SERVE_SECRETS"]
        assert {f"PARLEY_{name.upper()}", "PARLEY_SERVE"} == {
            "_".join(variable.split("_")[:2]) for variable in told if variable.startswith("PARLEY_")
        }
        for other in {*SERVICES, "staff"} - {name}:
            assert str(world.home.keys(other)) not in str(told)
        for secret in (world.home.postgres_password(name), world.home.valkey_password(name)):
            assert secret.read_text().strip().rpartition(":")[2] not in str(told)


# --- A stolen role, a stolen user ----------------------------------------------------------------------------------------


async def _signs_in(url: str) -> asyncpg.Connection:
    return await asyncpg.connect(url)


@pytest.mark.parametrize("zone", SERVICES)
async def test_stolen_role_of_one_zone_enters_no_others_database(world: World, zone: str) -> None:
    await (await world.customer()).put(profile_age="34")
    stolen = world.home.postgres_password(zone)
    for other in sorted({*SERVICES} - {zone}):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await _signs_in(world.servers.postgres_dsn(f"parley_{other}", f"parley_{zone}", stolen))
        for role in (f"parley_{other}", "parley"):
            with pytest.raises(asyncpg.InvalidPasswordError):
                await _signs_in(world.servers.postgres_dsn(f"parley_{other}", role, stolen))

    own = await _signs_in(dsn(world.servers, world.home, "vault"))  # the control: with vault's own it works
    try:
        assert await own.fetchval("SELECT count(*) FROM items") > 0
    finally:
        await own.close()


async def test_stolen_role_changes_nothing_that_its_zone_only_adds_to(world: World) -> None:
    stolen = await _signs_in(dsn(world.servers, world.home, "audit"))
    try:
        for statement in (
            "DELETE FROM log_entries",
            "UPDATE log_entries SET entry = 'x'",
            "TRUNCATE log_entries",
            "ALTER TABLE log_entries ADD COLUMN more text",
            "DROP TABLE log_entries",
            "CREATE TABLE more ()",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await stolen.execute(statement)
    finally:
        await stolen.close()


def _valkey(world: World, name: str) -> Any:
    password = read_secret(world.home.valkey_password(name))
    return Redis.from_url(world.servers.valkey_address, username=f"parley_{name}", password=password)


async def test_stolen_user_of_valkey_writes_its_own_stream_and_reads_what_its_zone_reads(world: World) -> None:
    entry = {"event_id": "x", "envelope": "x"}
    async with _valkey(world, "broker") as stolen, _valkey(world, "vault") as vault:
        for other in sorted({*SERVICES} - {"broker"}):
            with pytest.raises(NoPermissionError):
                await stolen.xadd(stream_key(other), entry)
            with pytest.raises(NoPermissionError):
                await stolen.delete(stream_key(other))
            with pytest.raises(NoPermissionError):
                await stolen.xrange(stream_key(other))
        for unread in ("identity", "vault", "audit"):
            with pytest.raises(NoPermissionError):
                await stolen.xreadgroup("audit", "thief", {stream_key(unread): ">"})
        for command in (
            ("KEYS", "*"),
            ("FLUSHALL",),
            ("ACL", "LIST"),
            ("CONFIG", "GET", "*"),
            ("MONITOR",),
            ("GET", "x"),
        ):
            with pytest.raises(NoPermissionError):
                await stolen.execute_command(*command)
        async with stolen.pipeline(transaction=True) as together:
            together.xadd(stream_key("vault"), entry)
            with pytest.raises(NoPermissionError):
                await together.execute()

        assert [] == await stolen.xreadgroup("broker", "thief", {stream_key("consent"): ">"})  # the controls
        assert await vault.xinfo_stream(stream_key("vault"))


async def test_event_that_a_stolen_user_of_valkey_takes_in_audits_name_is_kept_until_it_is_in_the_log(
    world: World,
) -> None:
    customer, stream = await world.customer(), stream_key("consent")
    await until(lambda: _no_event_waits(world))
    with frozen(_node(world).doors.socket("audit")):
        await asyncio.sleep(BLOCK + 0.5)  # what it waits for just now would be its own
        await customer.rule(consentpb.RULE_EFFECT_ASK)
        async with _valkey(world, "broker") as stolen:
            taken: Any = None
            async with asyncio.timeout(15):
                while not taken:
                    taken = await stolen.xreadgroup("audit", "thief", {stream: ">"}, noack=True)
    assert 1 == len(taken[0][1])
    await asyncio.sleep(1.5)  # many turns of the relay
    assert not await _no_event_waits(world)

    async with _valkey(world, "consent") as own:  # what mends it: the relay makes the stream anew of what it kept
        await own.delete(stream)
    await until(lambda: _no_event_waits(world))


async def _no_event_waits(world: World) -> bool:
    return not await rows(world, "consent", "SELECT FROM outbox")


# --- A stolen certificate, and every socket ------------------------------------------------------------------------------


async def test_stolen_certificate_calls_what_its_zone_may_and_nothing_else(world: World) -> None:
    customer = await world.customer()
    broker, audit = world.calling("broker"), world.calling("audit")
    request = consentpb.DecideRequest()
    assert CallerNotAllowed is type(await _refusal(ConsentServiceStub(audit).Decide(request, timeout=5)))
    assert CallerNotAllowed is type(
        await _refusal(VaultServiceStub(audit).Release(vaultpb.ReleaseRequest(), timeout=5))
    )
    items = vaultpb.ListItemsRequest()
    for thief in (broker, audit):  # a customer's token is nothing at this door
        answer = VaultServiceStub(thief).ListItems(items, metadata=customer.tokens["vault"], timeout=5)
        assert CallerNotAllowed is type(await _refusal(answer))

    assert CallerNotAllowed is not type(await _refusal(ConsentServiceStub(broker).Decide(request, timeout=5)))
    assert [] == list((await customer.call("vault", "ListItems", items)).items)


async def test_peers_door_lets_in_nobody_without_a_certificate_of_this_home(world: World) -> None:
    peers = _node(world).doors.peers("identity")
    foreign = issue(["broker"], datetime.now(UTC))
    stranger = Credentials(foreign.leaves["broker"].certificate, foreign.authority, foreign.leaves["broker"].key)
    authority = world.home.tls_authority.read_bytes()
    mixed = Credentials(stranger.certificate, authority, stranger.key)
    for credentials in (
        None,
        grpc.ssl_channel_credentials(authority),
        grpc.ssl_channel_credentials(foreign.authority),
        stranger.client(),
        mixed.client(),
    ):
        async with dial(peers, credentials, server_name="identity") as channel:
            call = IdentityServiceStub(channel).GetKeySet(
                identitypb.GetKeySetRequest(), timeout=1.5, wait_for_ready=False
            )
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call
            assert refused.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)

    anyone = IdentityServiceStub(world.calling("broker")).GetKeySet(identitypb.GetKeySetRequest(), timeout=5)
    assert (await anyone).jwks


async def test_caller_notices_that_another_zone_answers_in_place_of_the_one_it_calls(world: World) -> None:
    own = Credentials.load(
        world.home.tls_certificate("broker"), world.home.tls_key("broker"), world.home.tls_authority
    ).client()

    async def health(named: str) -> int:
        async with dial(_node(world).doors.peers("consent"), own, server_name=named) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=1.5, wait_for_ready=False)
            return int(answer.status)

    with pytest.raises(grpc.aio.AioRpcError):
        await health("identity")
    assert health_pb2.HealthCheckResponse.SERVING == await health("consent")


async def test_public_door_takes_nobodys_word_for_being_a_service(world: World) -> None:
    public = at(world.node.running.address, "vault")
    own = Credentials.load(
        world.home.tls_certificate("broker"), world.home.tls_key("broker"), world.home.tls_authority
    ).client()
    request = vaultpb.MatchRequest()
    async with dial(public, own, server_name="vault") as shown:
        call = VaultServiceStub(shown).Match(request, timeout=1.5, wait_for_ready=False)
        with pytest.raises(grpc.aio.AioRpcError):
            await call
    async with connect(public) as channel:
        assert Unauthenticated is type(await _refusal(VaultServiceStub(channel).Match(request, timeout=5)))


# --- A stolen process ----------------------------------------------------------------------------------------------------


_TRY = """
import importlib, json, os, pathlib, signal, sys
from parley_rpc.confine import confine, named_in
from parley_rpc.serving import Serving

def tried(act):
    try:
        act()
    except OSError as error:
        return type(error).__name__
    return "done"

asked = json.loads(sys.argv[1])
config = importlib.import_module(f"parley_{asked['service']}.config").Config()
confined = confine(named_in([Serving(), config]))
read = {path: tried(lambda: pathlib.Path(path).read_bytes()) for path in asked["read"]}
listed = {path: tried(lambda: os.listdir(path)) for path in asked["list"]}
written = {path: tried(lambda: pathlib.Path(path, "mine").write_text("x")) for path in asked["write"]}
killed = tried(lambda: os.kill(asked["kill"], 0))
ran = tried(lambda: os.execv("/bin/true", ["/bin/true"]))
print(json.dumps({"confined": confined, "read": read, "listed": listed, "written": written, "killed": killed, "ran": ran}))
"""


@pytest.mark.skipif(not version(), reason="this kernel has no Landlock")
@pytest.mark.parametrize("name", SERVICES)
async def test_process_confined_as_a_service_reaches_its_own_files_and_no_others(world: World, name: str) -> None:
    home, sockets = world.home, _node(world).doors.root
    another = "consent" if name == "vault" else "vault"
    shown = {"identity": {home.staff}, "audit": {home.published}}.get(name, set())
    own = [*home.keys(name).iterdir(), home.trust, *shown]
    others = [
        *(path for zone in SERVICES if zone != name for path in home.keys(zone).iterdir()),
        *home.keys("staff").iterdir(),
        *(home.servers / folder for folder in SERVERS_FILES if isinstance(world.servers, ServerPair)),
        *({home.log(another), home.published, home.staff} - shown),
        Path(f"/proc/{listener(_node(world).doors.socket(another))}/environ"),
    ]
    # Who may put a socket in the place of a server's hears the passwords of all who come to it.
    where = world.servers.where if isinstance(world.servers, ServerPair) else None
    servers = [where.postgres_sockets, where.valkey_socket.parent] if where else []
    assert all(path.exists() for path in (*own, *others, *servers))
    assert {home.postgres_password(name), home.valkey_password(name), home.tls_key(name)} < {*own}
    asked: dict[str, Any] = {
        "service": name,
        "read": [str(path) for path in (*own, *others)],
        "list": [str(path) for path in (home.root, home.keys(another), home.keys(name).parent, home.keys(name))],
        "write": [
            str(path) for path in (sockets / name, sockets / another, home.root, home.keys(name), "/tmp", *servers)
        ],
        "kill": listener(_node(world).doors.socket(another)),
    }
    told = _children(world).environment(name)
    tried = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-c", _TRY, json.dumps(asked)), env=told, cwd="/", stdout=subprocess.PIPE
    )
    found = json.loads((await tried.communicate())[0])
    denied, done = "PermissionError", "done"
    assert found == {
        "confined": True,
        "read": {str(path): done for path in own} | {str(path): denied for path in others},
        "listed": {path: done if path == str(home.keys(name)) else denied for path in asked["list"]},
        "written": {path: done if path == str(sockets / name) else denied for path in asked["write"]},
        "killed": denied,
        "ran": denied,
    }


@pytest.mark.skipif(not version(), reason="this kernel has no Landlock")
async def test_every_service_runs_confined(world: World) -> None:
    for name in SERVICES:
        assert {"confined", "serving"} <= {
            json.loads(line)["event"] for line in world.home.log(name).read_text().splitlines()
        }
        assert "NoNewPrivs:\t1" in _proc(world, name, "status")


def _proc(world: World, name: str, file: str) -> str:
    """What the kernel says of a service's process."""
    return Path(f"/proc/{listener(_node(world).doors.socket(name))}/{file}").read_text()


def _children(world: World) -> Children:
    doors, log = _node(world).doors, logger("node")
    return Children(world.home, world.servers, Options(), Zones.load(), doors, LISTENERS, log, to_stderr=False)


# --- An end, and a beginning ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["vault", "consent"])
async def test_killed_service_is_back_and_everything_goes_on(world: World, name: str) -> None:
    marketer, customer = await world.marketer(), await world.customer()
    age = {"vault": "51", "consent": "52"}[name]
    await customer.put(profile_age=age, profile_city=CITY)
    await customer.discoverable("profile.age")
    before = listener(_node(world).doors.socket(name))
    os.kill(before, signal.SIGKILL)
    await marketer.ask(by_criteria(terms("profile.city"), between("profile.age", age, age)))

    async def offered() -> object:
        try:
            return await customer.offers()
        except grpc.aio.AioRpcError:  # it is away just now
            return []

    await until(offered, 30)
    await customer.accept(await customer.offer())
    (delivery,) = await marketer.collect(1)
    assert CITY == world.opened(marketer, delivery)["fields"][0]["value"]
    assert before != listener(_node(world).doors.socket(name))


@contextmanager
def _another_identity(world: World, socket: Path, **more: str) -> Iterator[subprocess.Popen[str]]:
    """One more process of identity beside the one that runs, with a public door of its own."""
    told: Mapping[str, str] = {
        **_children(world).environment("identity"),
        "PARLEY_SERVE_PUBLIC": f"unix:{socket}",
        **more,
    }
    unset = {"PARLEY_SERVE_PEERS", "PARLEY_SERVE_METRICS"} - more.keys()
    told = {name: value for name, value in told.items() if value and name not in unset}
    command = [sys.executable, "-P", "-m", "parley_node.cli", "serve", "identity"]
    with subprocess.Popen(command, env=told, cwd="/", stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


async def test_service_that_is_told_to_stop_ends_what_it_is_doing_and_then_itself(world: World, tmp_path: Path) -> None:
    socket, slow = tmp_path / "public.sock", "identity.RegisterCustomer.before_commit=sleep:4"
    with _another_identity(world, socket, PARLEY_FAULTS=slow, PARLEY_SERVE_GRACE="PT60S") as process:
        async with connect(f"unix:{socket}") as channel:
            stub: Any = IdentityServiceStub(channel)
            followed = health_pb2_grpc.HealthStub(channel).Watch(
                health_pb2.HealthCheckRequest(), timeout=90, wait_for_ready=True
            )
            await followed.read()  # a stream, which would never end by itself
            key = world.trust.keys("vault")
            request = identitypb.RegisterCustomerRequest(public_key=next(iter(key.values())), request_id=request_id())
            under_way = asyncio.ensure_future(stub.RegisterCustomer(request, timeout=30, wait_for_ready=True))
            await until(lambda: _registering(world), 30)
            told = time.monotonic()
            process.terminate()
            assert (await under_way).customer.startswith("customers/")
            assert 0 == await asyncio.to_thread(process.wait, 40)
            assert time.monotonic() - told < 45  # and not all of its grace


@pytest.mark.slow
async def test_service_whose_clock_is_far_off_stops_what_needs_it_and_whoever_asks_hears_why() -> None:
    options = quick(faults=lambda process: "vault.clock=ahead:660" if process == "vault" else "")
    with scratch_directory() as root:
        async with living_world(root / "home", options, apart=True) as world:
            marketer = await world.marketer()
            asked = by_criteria(terms("profile.city"), between("profile.age", "18", "99"))
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await marketer.ask(asked)
    assert ClocksApart is type(fault_from(refused.value))


async def _registering(world: World) -> object:
    """Whether somebody's registration is done but for its commit."""
    (row,) = await rows(
        world,
        "identity",
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction' AND query LIKE '%UPDATE requests%'",
    )
    return row["count"]


async def test_service_may_open_more_files_than_systems_give_to_everybody(world: World, tmp_path: Path) -> None:
    before, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(1024, most), most))
    try:
        with _another_identity(world, tmp_path / "public.sock") as process:
            allowed = (min(65_536, most), most)
            await until(lambda: _equals(allowed, lambda: resource.prlimit(process.pid, resource.RLIMIT_NOFILE)), 30)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before, most))


async def _equals(expected: object, found: Callable[[], object]) -> bool:
    return expected == found()


async def test_service_that_is_told_too_little_says_what_is_missing_and_no_value(world: World, tmp_path: Path) -> None:
    with _another_identity(world, tmp_path / "s", PARLEY_SERVE_GRACE="secret") as process:
        _, err = await asyncio.to_thread(process.communicate, timeout=30)
    assert 1 == process.returncode
    assert "PARLEY_SERVE_GRACE" in err
    assert "secret" not in err


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"PARLEY_FAULTS": "a.b=slep:3"}, "PARLEY_FAULTS: unknown fault action 'slep'"),
        ({"PARLEY_SERVE_TLS_KEY": ""}, "PARLEY_SERVE_TLS_CERTIFICATE, _KEY and _AUTHORITY: set all three or none"),
        ({"PARLEY_SERVE_PUBLIC": "unix:{tmp}/none/s"}, "can't listen on unix:{tmp}/none/s"),
        pytest.param({"PARLEY_SERVE_PUBLIC": "192.0.2.1:7"}, "can't listen on 192.0.2.1:7", marks=pytest.mark.slow),
        pytest.param(
            {"PARLEY_SERVE_METRICS": "127.0.0.1:http"}, "can't listen on 127.0.0.1:http", marks=pytest.mark.slow
        ),
        ({"PARLEY_SERVE_METRICS": "fd:77"}, "can't listen on fd:77"),
        ({"PARLEY_SERVE_SECRETS": "/etc/parley"}, "PARLEY_SERVE_SECRETS: in /etc and /usr every service may read"),
        (
            {"PARLEY_SERVE_TLS_CERTIFICATE": "{tmp}/none"},
            "PARLEY_SERVE_TLS_CERTIFICATE, _KEY and _AUTHORITY: {tmp}/none",
        ),
        (
            {"PARLEY_SERVE_TLS_CERTIFICATE": "/dev/null"},
            "PARLEY_SERVE_TLS_CERTIFICATE, _KEY and _AUTHORITY: the certificate can't be read as PEM",
        ),
        (
            {"PARLEY_IDENTITY_CLAIM_LIVE": "P30D"},
            "PARLEY_IDENTITY_CLAIM_LIVE: no such setting; PARLEY_IDENTITY_CLAIM_LIFE is one",
        ),
        ({"PARLEY_IDENTITY_OPERATORS": "/dev/null"}, "PARLEY_IDENTITY_OPERATORS: /dev/null lists no operators"),
        ({"PARLEY_IDENTITY_POSTGRES_DSN": "nonsense secret"}, "the database can't be entered"),
        pytest.param(
            {"PARLEY_IDENTITY_POSTGRES_DSN": "{stranger}"}, "the database can't be entered", marks=pytest.mark.slow
        ),
    ],
)
async def test_service_that_cannot_start_as_it_is_told_says_so_in_a_sentence(
    world: World, tmp_path: Path, told: Mapping[str, str], said: str
) -> None:
    dsn = _children(world).environment("identity")["PARLEY_IDENTITY_POSTGRES_DSN"]
    where = {"tmp": tmp_path, "stranger": dsn.replace("://parley_identity@", "://secret@")}
    more = {name: value.format(**where) for name, value in told.items()}
    with _another_identity(world, tmp_path / "s", **more) as process:
        _, err = await asyncio.to_thread(process.communicate, timeout=30)
    *before, sentence = err.splitlines()
    assert 1 == process.returncode
    assert sentence.startswith(f"identity: {said.format(**where)}"), err
    assert {"info"} >= {json.loads(line)["level"] for line in before}
    assert "secret" not in err


async def test_service_waits_for_its_database_and_can_be_stopped_meanwhile(world: World, tmp_path: Path) -> None:
    if not isinstance(world.servers, ServerPair):
        pytest.skip("the servers are the environment's own")
    dsn = _children(world).environment("identity")["PARLEY_IDENTITY_POSTGRES_DSN"]
    sockets, away = world.servers.where.postgres_sockets, tmp_path / "away"
    parted = dsn.replace(f"host={sockets}", f"host={away}")
    assert parted != dsn
    for comes_back in (True, False):
        with _another_identity(world, tmp_path / "s", PARLEY_IDENTITY_POSTGRES_DSN=parted) as process:
            assert process.stderr
            while "waiting" not in await asyncio.to_thread(process.stderr.readline):
                assert process.poll() is None
            if comes_back:
                away.symlink_to(sockets)
                while "serving" not in await asyncio.to_thread(process.stderr.readline):
                    assert process.poll() is None
                away.unlink()
            process.terminate()
            assert 0 == await asyncio.to_thread(process.wait, 10)
