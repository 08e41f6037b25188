"""
One database and one role per service: no role can connect to another's, nor do more in its own than its zone lists.

Databases and tables are the administrator's, who migrates: a service's role can neither make nor change one.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import asyncpg

from parley_db.queries import load
from parley_node.embedded.errors import ServersUnavailable
from parley_node.embedded.passwords import verifier

_QUERIES = load("parley_node.embedded", "databases.sql")
_OWNER = "of the Parley with the key "
_SERVICE = re.compile(r"[a-z][a-z0-9_]{0,40}")


async def ensure_databases(admin_dsn: str, services: Mapping[str, Path], owner: str = "") -> None:
    """
    Make the role and the database ``parley_<service>`` for each service, and shut the database to everybody else.

    Each role gets the password of its file (pgpass), and loses superpowers, memberships and the others' databases, if somebody
    gave it any. Nothing else that is there already changes; several processes may call it at once. Raises ValueError for a
    service name that isn't ``[a-z][a-z0-9_]*``, KeyFileUnusable, and ServersUnavailable for roles that are another ``owner``'s.
    """
    verifiers = {owned_name(service): verifier(file) for service, file in services.items()}
    admin = await asyncpg.connect(admin_dsn)
    try:
        await admin.execute(_QUERIES.lock)
        others = await admin.fetchval(_QUERIES.role_of_another, list(verifiers), _OWNER + owner, _OWNER)
        if owner and others:
            raise ServersUnavailable(
                f"the databases there are another Parley's ({others} has another owner): give each home servers of its own"
            )
        for name, checked_by in verifiers.items():
            await _run(
                admin,
                await admin.fetchval(_QUERIES.role_create, name),
                await admin.fetchval(_QUERIES.role_password, name, checked_by),
                await admin.fetchval(_QUERIES.database_create, name),
                await admin.fetchval(_QUERIES.database_close, name),
                await admin.fetchval(_QUERIES.role_owner, name, _OWNER + owner) if owner else None,
            )
        await _run(admin, *[row["statement"] for row in await admin.fetch(_QUERIES.beyond, list(verifiers))])
    finally:
        await admin.close()


async def settle_grants(database_dsn: str, role: str, tables: Mapping[str, tuple[str, ...]]) -> list[str]:
    """
    Leave a role what ``tables`` lists in a database, and nothing else; answers the statements that it took.

    What a role owns (databases of earlier releases were their services') becomes the administrator's, as whom
    ``database_dsn`` signs in. Listed tables that are not there yet are passed over. Raises ServersUnavailable where the
    administrator may not take or give what it should.
    """
    admin = await asyncpg.connect(database_dsn)
    try:
        async with admin.transaction():
            await admin.execute(_QUERIES.grants_lock)
            await _run(admin, await admin.fetchval(_QUERIES.reassign, role))
            statements = await missing_grants(admin, role, tables)
            await _run(admin, *statements)
            if left := await missing_grants(admin, role, tables):  # of what isn't the administrator's it only warned
                raise ServersUnavailable(f"PostgreSQL's superuser must do this, in {role}: {'; '.join(left)}")
            return statements
    finally:
        await admin.close()


async def missing_grants(admin: Any, role: str, tables: Mapping[str, tuple[str, ...]]) -> list[str]:
    """The statements between what a role may do in the database of a connection, and what ``tables`` lists."""
    pairs = [(table, verb) for table, verbs in tables.items() for verb in verbs]
    rows = await admin.fetch(_QUERIES.grants, role, *map(list, zip(*pairs, strict=True)))
    return [row["statement"] for row in rows]


def owned_name(service: str) -> str:
    """Name of a service's role and of its database. Raises ValueError for what can't be one."""
    if not _SERVICE.fullmatch(service):
        raise ValueError(f"not a service name: {service!r}")
    return f"parley_{service}"


async def _run(admin: Any, *statements: str | None) -> None:
    # The server wrote the statements: it alone knows how its identifiers are quoted.
    for statement in statements:
        if statement is not None:
            await admin.execute(statement)
