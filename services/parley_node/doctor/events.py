"""Events on their way: what waits, who holds it up, and what was set aside."""

from collections.abc import Iterator
from typing import Any

import asyncpg

from parley_node.doctor.findings import Look, NotLooked, Trouble
from parley_node.doctor.mending import again, end_session, new_stream, option, restart, up
from parley_node.doctor.servers import SQL, Around, Check, connected, on_postgres
from parley_node.services import SERVICES
from parley_rpc.zones import Zones

_MOST_LAG_S = 60.0


def checks(here: Around) -> Iterator[tuple[str, Look]]:
    """One for each service: its own events on their way to others, and those of others that it could not apply."""
    for name in SERVICES:
        yield f"events {name}", on_postgres(here, _events(name))


def _events(name: str) -> Check:
    async def check(here: Around) -> str:
        try:
            async with connected(here.pair.database_dsn(f"parley_{name}")) as db:
                row = await db.fetchrow(SQL.backlog, f"parley_{name}")
        except (asyncpg.PostgresError, Trouble) as error:
            raise NotLooked("its schema isn't there") from error
        if row["dead"]:
            mend = f"parley operator replay {name}{option(here.home)}"
            raise Trouble(f"{row['dead']} events of others could not be applied and are set aside", mend)
        _require_published(here, name, row)
        await _require_read(here, name, row)
        return f"{row['waiting']} on their way"

    return check


def _require_published(here: Around, name: str, row: Any) -> None:
    """Raise Trouble where events wait for the relay."""
    if row["unpublished"] <= _MOST_LAG_S:
        return
    found = f"the relay is stuck: the oldest event has waited for {row['unpublished']:.0f} s to be published"
    if row["holder"]:
        mend = end_session(here.pair, row["holder"])
        raise Trouble(f"{found}, as session {row['holder']} of PostgreSQL holds its lock", mend)
    if here.running is None:
        raise Trouble(found, up(here.home))
    state = here.told.relay(name)
    raise Trouble(f"{found}{f' ({state})' if state else ''}", restart(here.home, here.running, name))


async def _require_read(here: Around, name: str, row: Any) -> None:
    """Raise Trouble where events wait for a reader."""
    readers = Zones.load().readers.get(name, ())
    for reader in readers:
        if here.told.consumer(name, reader) == "stuck":
            raise await _stuck(here, name, reader)
    if row["oldest"] <= _MOST_LAG_S:
        return
    behind = [f"{reader} ({lag})" for reader in readers if (lag := here.told.lag(name, reader))]
    found = f"{row['waiting']} wait, the oldest for {row['oldest']:.0f} s"
    hears = "flowing" == here.told.relay("audit") == here.told.consumer("audit", name)  # how far audit has logged
    if here.running and hears and here.told.relay(name) == "flowing" and not behind:
        # Consent keeps what isn't in the log. Another who may read its stream can have read it in audit's name.
        found = f"{found}: all readers acknowledged them, and audit hasn't said that it logged them"
        raise Trouble(found, new_stream(here.pair, here.home, here.running, name))
    said = f"{found}; behind: {', '.join(behind)}" if behind else found
    raise Trouble(said, again(here.home, here.running) if here.running else up(here.home))


async def _stuck(here: Around, writer: str, reader: str) -> Trouble:
    """A reader that skips nothing stands before an event that it can't apply: which one, and where it says why."""
    async with connected(here.pair.database_dsn(f"parley_{writer}")) as db:
        published = await db.fetch(SQL.unread)
    async with connected(here.pair.database_dsn(f"parley_{reader}")) as db:
        unknown = {row["event_id"] for row in await db.fetch(SQL.not_applied, [row["event_id"] for row in published])}
    found = next((row for row in published if row["event_id"] in unknown), None)
    which = f"event {found['event_id']} ({found['type']})" if found else "an event"
    log = here.home.log(reader if here.running and here.running.apart else "parley")
    return Trouble(
        f"{reader} is stuck on {which}: it skips none, and goes on by itself once what its log names is mended",
        f"grep {found['event_id'] if found else 'stuck'} {log}",
    )
