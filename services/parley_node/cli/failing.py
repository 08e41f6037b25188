"""What fails beneath commands that work on servers, said in a sentence. Customers' and marketers' load nothing of it."""

from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg

from parley_bus.bus import BusAway
from parley_node.cli.calls import local
from parley_node.cli.stop import Stop
from parley_rpc.channels import CannotListen

_AWAY = (ConnectionError, FileNotFoundError, TimeoutError)
"""What comes of a server that isn't there, or whose socket isn't; a file that is missing is named."""


@contextmanager
def servers_failing(otherwise: str = "") -> Iterator[None]:
    """Say in a sentence what of servers and files stood in the way of a block. Raises Stop."""
    looks = "`parley doctor` looks at it."
    try:
        yield
    except BusAway as error:
        raise Stop("Valkey can't be used, or takes no users from this one", looks) from error
    except (asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise Stop(f"PostgreSQL doesn't let Parley do what it has to ({type(error).__name__})", looks) from error
    except CannotListen:  # which says where
        raise
    except OSError as error:
        if error.filename is None and isinstance(error, _AWAY):
            raise Stop("PostgreSQL can't be reached", looks) from error
        raise Stop(local(error), f"See to what is in the way{otherwise}.") from error
