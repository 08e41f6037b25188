"""Mutations of the API that a retry doesn't repeat: :func:`parley_db.idempotency.once`, for protobuf messages."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar
from weakref import WeakValueDictionary

from google.protobuf.message import Message

from parley_db.database import Database, Tx
from parley_db.idempotency import find, once

M = TypeVar("M", bound=Message)


class WithRequestId(Protocol):
    """A request message with a ``request_id``."""

    DESCRIPTOR: Any
    request_id: str

    def SerializeToString(self, *, deterministic: bool) -> bytes:  # noqa: N802 - protobuf's name
        """The message's bytes."""


@dataclass(frozen=True)
class Mutations:
    """
    Runs each mutation once for its caller and ``request_id``.

    Fingerprints of requests are keyed: a request may hold a value, and a plain hash of one could be guessed.
    """

    db: Database
    key: bytes = field(repr=False)
    _turns: WeakValueDictionary[str, asyncio.Lock] = field(default_factory=WeakValueDictionary, init=False, repr=False)

    async def once(
        self,
        caller: str,
        request: WithRequestId,
        response: type[M],
        body: Callable[[Tx], Awaitable[M]],
    ) -> M:
        """Run ``body`` in one transaction named after the request, or answer what it answered before."""
        name = method_of(request)

        async def serialised(tx: Tx) -> bytes:
            return (await body(tx)).SerializeToString()

        stored = await once(
            self.db,
            caller=caller,
            method=name,
            request_id=request.request_id,
            fingerprint=self.fingerprint(request),
            body=serialised,
            name=name.removeprefix("parley.").removesuffix("Request").replace(".v1.", "."),
        )
        return response.FromString(stored)

    def turn(self, caller: str) -> asyncio.Lock:
        """
        The lock under which one caller's own things are changed, one call after the other.

        They would wait for each other at a row's lock, and keep a connection each: a flood of one caller's all that there are.
        """
        return self._turns.setdefault(caller, asyncio.Lock())

    def fingerprint(self, request: WithRequestId) -> bytes:
        """32 bytes that tell a retry from another request under the same id."""
        return hashlib.blake2b(request.SerializeToString(deterministic=True), key=self.key).digest()[:32]

    async def answered(self, caller: str, request: WithRequestId, response: type[M]) -> M | None:
        """What was answered to a request before; None for a new one. Raises RequestIdReused."""
        key = (caller, method_of(request), request.request_id)
        stored = await find(self.db, key, self.fingerprint(request))
        return None if stored is None else response.FromString(stored)


def method_of(request: WithRequestId | type[WithRequestId]) -> str:
    """What the id of a request, or of such requests, is kept under, besides its caller."""
    name: str = request.DESCRIPTOR.full_name
    return name
