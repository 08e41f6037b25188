"""Access tokens: held until they are about to end, renewed by one sign-in for all who wait."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, timedelta

from parley.identity.v1 import identity_pb2 as identitypb
from parley_client.errors import CallerNotAllowed
from parley_kit.clock import Clock

MARGIN = timedelta(seconds=30)
"""A token is renewed this long before its end, so that it doesn't end on the way."""


class Tokens:
    """One sign-in's tokens, by service. ``sign_in`` is called as seldom as can be, never twice at a time."""

    def __init__(self, sign_in: Callable[[], Awaitable[identitypb.SignInResponse]], clock: Clock) -> None:
        self._sign_in = sign_in
        self._clock = clock
        self._held: Mapping[str, identitypb.AccessToken] = {}
        self._renewal: asyncio.Task[None] | None = None

    async def of(self, service: str) -> str:
        """A token for a service. Raises CallerNotAllowed if there is none for this caller, and what signing in raises."""
        if not self._is_fresh(service):
            await self._renewed()
        if service not in self._held:
            raise CallerNotAllowed("CALLER_NOT_ALLOWED", f"whoever signed in gets no token for {service}")
        return self._held[service].token

    def drop(self, token: str) -> None:
        """Forget a token that was refused, and those that came with it; newer ones stay."""
        if any(held.token == token for held in self._held.values()):
            self._held = {}

    def close(self) -> None:
        """Stop a sign-in that is under way."""
        if self._renewal:
            self._renewal.cancel()

    def _is_fresh(self, service: str) -> bool:
        held = self._held.get(service)
        return held is not None and self._clock.now() < held.expire_time.ToDatetime(tzinfo=UTC) - MARGIN

    async def _renewed(self) -> None:
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.create_task(self._renew())
            self._renewal.add_done_callback(_look_at)
        await asyncio.shield(self._renewal)  # one who gives up waiting doesn't end it for the others

    async def _renew(self) -> None:
        answer = await self._sign_in()
        self._held = {token.service: token for token in answer.tokens}


def _look_at(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()  # those who waited have it; where nobody does any more, it is nobody's
