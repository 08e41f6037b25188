"""One database and one role per service; no role can connect to another's database."""

import re
from collections.abc import Sequence

import asyncpg

from parley_db.queries import load

_QUERIES = load("parley_node.embedded", "databases.sql")
_SERVICE = re.compile(r"[a-z][a-z0-9_]{0,40}")


async def ensure_databases(admin_dsn: str, services: Sequence[str]) -> None:
    """
    Make the role and the database ``parley_<service>`` for each service, and shut the database to everybody else.

    Changes nothing that is there already; several processes may call it at once. Roles are made without a password: on
    servers of your own, pg_hba.conf or ALTER ROLE decides how they sign in. Raises ValueError for a service name that
    isn't ``[a-z][a-z0-9_]*``.
    """
    names = [owned_name(service) for service in services]
    admin = await asyncpg.connect(admin_dsn)
    try:
        await admin.execute(_QUERIES.lock)
        for name in names:
            await _ensure(admin, name)
    finally:
        await admin.close()


def owned_name(service: str) -> str:
    """Name of a service's role and of its database. Raises ValueError for what can't be one."""
    if not _SERVICE.fullmatch(service):
        raise ValueError(f"not a service name: {service!r}")
    return f"parley_{service}"


async def _ensure(admin: asyncpg.Connection, name: str) -> None:
    # The server writes the statements: it alone knows how its identifiers are quoted.
    for statement in (
        await admin.fetchval(_QUERIES.role_create, name),
        await admin.fetchval(_QUERIES.database_create, name, name),
        await admin.fetchval(_QUERIES.database_close, name),
    ):
        if statement is not None:
            await admin.execute(statement)
