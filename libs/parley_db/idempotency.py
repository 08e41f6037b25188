"""Mutations that a retry does not repeat (AIP-155, with Stripe's semantics)."""

from collections.abc import Awaitable, Callable
from datetime import timedelta

from parley_db.database import Database, Tx
from parley_db.queries import load
from parley_kit.faults import Conflict, RequestIdReused

_SQL = load("parley_db")


async def once(
    db: Database,
    *,
    caller: str,
    method: str,
    request_id: str,
    fingerprint: bytes,
    body: Callable[[Tx], Awaitable[bytes]],
    name: str,
) -> bytes:
    """
    Run ``body`` for the first call with this (caller, method, request_id) and answer its bytes; answer a repeat alike.

    Body and stored response commit together, in a transaction called ``name``; a call that arrives meanwhile waits for
    it. Whatever ``body`` raises undoes everything, so that the next try is a first one. ``fingerprint`` is a digest of
    the request. Raises RequestIdReused for a repeat with another fingerprint, and what ``Database.run`` raises.
    """
    key = (caller, method, request_id)

    async def attempt(tx: Tx) -> bytes:
        if not await tx.fetchval(_SQL.request_claim, *key, fingerprint):
            return await _stored(tx, key, fingerprint)
        response = await body(tx)
        await tx.execute(_SQL.request_answer, *key, response)
        return response

    return await db.run(name, attempt)


async def purge(db: Database, older_than: timedelta) -> None:
    """Forget request ids first used longer ago than this: a retry after that is a new request."""
    await db.execute(_SQL.request_purge, older_than)


async def find(tx: Tx | Database, key: tuple[str, str, str], fingerprint: bytes) -> bytes | None:
    """What a (caller, method, request_id) was answered; None where it is new. Raises RequestIdReused."""
    row = await tx.fetchrow(_SQL.request_find, *key)
    if row is None:
        return None
    if row["fingerprint"] != fingerprint:
        raise RequestIdReused
    response: bytes = row["response"]
    return response


async def _stored(tx: Tx, key: tuple[str, str, str], fingerprint: bytes) -> bytes:
    stored = await find(tx, key, fingerprint)
    if stored is None:  # purged between the two statements
        raise Conflict
    return stored
