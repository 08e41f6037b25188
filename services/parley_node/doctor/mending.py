"""The commands that mend things, as they are typed on this machine."""

import shlex
from pathlib import Path

from parley_bus.bus import stream_key
from parley_node.embedded.pair import ServerPair
from parley_node.embedded.postgres import listener_of
from parley_node.home import Home, Running
from parley_node.split import Doors
from parley_node.stores import Servers


def up(home: Home, running: Running | None = None) -> str:
    """Start Parley, the way it ran if it did."""
    words = ["parley", "up", *(["--split"] if running and running.apart else []), *(running.told if running else ())]
    return shlex.join(words) + option(home)


def again(home: Home, running: Running, before: str = "", signal: str = "") -> str:
    """End Parley, wait until it is gone, and start it again; ``before`` is done in between."""
    return f"kill {signal}{running.pid}; tail --pid={running.pid} -f /dev/null; {before}{up(home, running)}"


def restart(home: Home, running: Running, service: str) -> str:
    """Have one service start again: by itself where it runs apart, as it is kept running, else with all the others."""
    pid = listener_of(Doors.of(home).socket(service)) if running.apart else None
    # What hangs takes no other signal; Parley's servers end with it.
    return f"kill -9 {pid}" if pid else again(home, running, signal="-9 ")


def end_session(pair: Servers, pid: int) -> str:
    """End a session of PostgreSQL; an embedded one is a process of this user's."""
    if isinstance(pair, ServerPair):
        return f"kill {pid}"
    return f"""psql "$PARLEY_POSTGRES_URL" -c "SELECT pg_terminate_backend({pid})\""""


def new_stream(pair: Servers, home: Home, running: Running, service: str) -> str:
    """Have a service publish once more all that it keeps: a stream that isn't there is made anew."""
    if isinstance(pair, ServerPair):
        return again(home, running, f"rm -r {shlex.quote(str(pair.where.valkey_data))}; ")
    return f"""valkey-cli -u "$PARLEY_VALKEY_URL" DEL '{stream_key(service)}'"""


def newest_checkpoint(home: Home) -> str:
    """Put back how far the log was shown to the world: whoever verifies receipts may hold it."""
    return f"cp CHECKPOINT {shlex.quote(str(home.published))}  # the newest that anybody holds"


def lost_key(path: Path) -> str:
    """Put back a key file: no other key will do."""
    return f"cp BACKUP {shlex.quote(str(path))}  # of this very home"


def newest_backup(home: Home, running: Running) -> str:
    """Restore the databases, which aren't the newest that there were: all of them, as one service's must fit the others'."""
    data = home.servers / "postgres"
    which = "the newest backup, of all five databases as of one moment"
    if not data.exists():
        return f"parley doctor{option(home)}  # once you have restored {which}"
    where = shlex.quote(str(data))
    # Nothing is moved before the copy is whole: without it Parley doesn't start.
    restore = f"cp -a COPY {where}.newer && mv {where} {where}.older && mv {where}.newer {where}; "
    return f"{again(home, running, restore)}  # COPY: {which}"


def option(home: Home) -> str:
    """What names the home to a command, if it isn't the one it would choose by itself."""
    return "" if home == Home.choose(None) else f" --home {shlex.quote(str(home.root))}"
