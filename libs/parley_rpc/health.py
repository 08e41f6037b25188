"""
The standard health service (grpc.health.v1), and what it says of a service: whether all that it stands on answers.

The server as a whole, which has no name, serves for as long as it lives: a probe for liveness asks for that one.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any, NoReturn

import grpc
from grpc_health.v1 import health_pb2 as healthpb
from grpc_health.v1 import health_pb2_grpc

Ping = Callable[[], Awaitable[None]]
"""Raises where something that a service needs doesn't answer."""

_EVERY_S, _SOON_S = 1.0, 0.1
_PATIENCE_S = 3.0
_SERVING, _NOT_SERVING = healthpb.HealthCheckResponse.SERVING, healthpb.HealthCheckResponse.NOT_SERVING
_UNKNOWN = healthpb.HealthCheckResponse.SERVICE_UNKNOWN


class Health(health_pb2_grpc.HealthServicer):  # type: ignore[misc] # it ships no types
    """
    Answers how services are.

    Not grpcio's own servicer: that one holds a lock while it writes to a watcher, and one who doesn't read kept the server from
    ever saying that it stops.
    """

    def __init__(self) -> None:
        self._statuses: dict[str, int] = {"": _SERVING}
        self._changed = asyncio.Event()
        self._is_ending = False

    async def Check(self, request: healthpb.HealthCheckRequest, context: Any) -> healthpb.HealthCheckResponse:  # noqa: N802 - gRPC's name
        """How a service is now; NOT_FOUND for one that isn't here."""
        if request.service not in self._statuses:
            await context.abort(grpc.StatusCode.NOT_FOUND)
        return healthpb.HealthCheckResponse(status=self._statuses[request.service])

    async def Watch(  # noqa: N802 - gRPC's name
        self, request: healthpb.HealthCheckRequest, _context: Any
    ) -> AsyncIterator[healthpb.HealthCheckResponse]:
        """How a service is, and again whenever that has changed."""
        told = None
        while True:
            changed, status = self._changed, self._statuses.get(request.service, _UNKNOWN)
            if status != told:
                yield healthpb.HealthCheckResponse(status=status)
                told = status
            await changed.wait()

    def tell(self, service: str, *, serves: bool) -> None:
        """Have a service serve or not, unless all are ending."""
        if not self._is_ending:
            self._set({service: _SERVING if serves else _NOT_SERVING})

    def end(self) -> None:
        """None serves any more."""
        self._is_ending = True
        self._set(dict.fromkeys(self._statuses, _NOT_SERVING))

    def _set(self, statuses: Mapping[str, int]) -> None:
        self._statuses |= statuses
        self._changed.set()
        self._changed = asyncio.Event()


def name_of(service: str) -> str:
    """What health knows a service of Parley's as."""
    return f"parley.{service}.v1.{service.title()}Service"


async def follow(healths: Sequence[Health], service: str, pings: Mapping[str, Ping]) -> NoReturn:
    """Tell, about once a second, whether everything answers that a service needs, for ever; and soon when it does again."""
    while True:
        serves = await _answers(pings)
        for health in healths:
            health.tell(name_of(service), serves=serves)
        await asyncio.sleep(_EVERY_S if serves else _SOON_S)


async def _answers(pings: Mapping[str, Ping]) -> bool:
    try:
        async with asyncio.timeout(_PATIENCE_S):
            for ping in pings.values():
                await ping()
    except Exception:  # noqa: BLE001 - whatever it is, the service can't do its work; whoever calls it is told more
        return False
    return True
