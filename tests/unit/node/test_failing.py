import asyncpg
import pytest

from parley_bus.bus import BusAway
from parley_node.cli import hints
from parley_node.cli.failing import servers_failing
from parley_node.cli.stop import Stop
from parley_rpc.channels import CannotListen

DOCTOR = "`parley doctor` looks at it."


@pytest.mark.parametrize(
    ("error", "said", "step"),
    [
        (BusAway(), "Valkey can't be used, or takes no users from this one", DOCTOR),
        (asyncpg.InsufficientPrivilegeError("secret"), "PostgreSQL doesn't let Parley do what it has to", DOCTOR),
        (asyncpg.InterfaceError("secret"), "PostgreSQL doesn't let Parley do what it has to", DOCTOR),
        (ConnectionRefusedError(111, "refused"), "PostgreSQL can't be reached", DOCTOR),
        (
            OSError(28, "No space left on device"),
            "[Errno 28] No space left",
            "See to what is in the way, or go elsewhere.",
        ),
        (PermissionError(13, "denied", "/home"), "/home: denied", "See to what is in the way, or go elsewhere."),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_what_fails_beneath_a_command_is_said_in_a_sentence(error: Exception, said: str, step: str) -> None:
    hints.forget()
    with pytest.raises(Stop) as stop, servers_failing(", or go elsewhere"):
        raise error
    reason, _, then = str(stop.value).partition("\n  ")
    assert (True, step) == (reason.startswith(said), then)
    assert "secret" not in reason


def test_door_that_can_not_be_opened_says_so_itself() -> None:
    with pytest.raises(CannotListen), servers_failing():
        raise CannotListen("unix:/s")
