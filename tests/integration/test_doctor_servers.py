"""What doctor says of a PostgreSQL that is there and opens no session, and of one that isn't."""

from pathlib import Path

import pytest

from parley_node.doctor.findings import State, Trouble, look
from parley_node.doctor.metrics import Told
from parley_node.doctor.servers import Around, checks, connected
from parley_node.embedded.external import ExternalServers
from parley_node.home import Home
from tests.support.servers import Pair


async def refused(dsn: str) -> Trouble:
    """Why there is no session."""
    with pytest.raises(Trouble) as caught:
        async with connected(dsn):
            pytest.fail("it opened one")
    return caught.value


async def test_refusal_is_told_from_silence(pair: Pair, tmp_path: Path) -> None:
    refusal = await refused(pair.database_dsn("parley_secret"))
    silence = await refused(f"postgresql:///postgres?host={tmp_path}")
    assert refusal.found == "PostgreSQL answers, but opens no session (InvalidCatalogNameError)"
    assert silence.found == "PostgreSQL can't be reached"


async def test_whoever_refuses_is_not_said_to_be_away(pair: Pair, tmp_path: Path) -> None:
    given = ExternalServers(pair.database_dsn("parley_secret"), pair.valkey_url, "the operator's own")
    refusing = Around(Home(tmp_path), None, Told({}), given, await refused(given.admin_dsn))
    silent = Around(Home(tmp_path), None, Told({}), given, await refused(f"postgresql:///postgres?host={tmp_path}"))

    findings = [await look(name, check) for name, check in checks(refusing) if name in ("postgres", "roles")]
    assert [one.state for one in findings] == [State.FAILED, State.SKIPPED]
    assert "opens no session" in findings[0].found
    away = await look("postgres", dict(checks(silent))["postgres"])
    assert away.found == "it can't be reached where PARLEY_POSTGRES_URL points"
