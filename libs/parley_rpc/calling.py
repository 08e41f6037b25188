"""Channels on which services call each other: each call says when it was made, and where anything is traced, in which trace."""

from collections.abc import Callable
from datetime import datetime
from typing import Any, NoReturn, Self

import grpc

from parley_kit.clock import Clock
from parley_kit.telemetry import Tracer, traceparent
from parley_rpc.principal import Metadata

TIME = "parley-time"
"""The metadata that says when a service made a call, by its own clock: milliseconds since 1970."""

_UNARY_ONLY = "services call each other with unary calls only"
Dial = Callable[[str], grpc.aio.Channel]


def calling(dial: Dial, clock: Clock, tracer: Tracer) -> Dial:
    """Channels to services, for one that goes by a clock; the same over every transport."""
    return lambda service: CallingChannel(dial(service), clock, tracer)


def stamp(moment: datetime) -> str:
    """A moment as it is said in :data:`TIME`."""
    return str(int(moment.timestamp() * 1000))


class CallingChannel(grpc.aio.Channel):
    """A channel to another service: unary calls, which are awaited."""

    def __init__(self, inner: grpc.aio.Channel, clock: Clock, tracer: Tracer) -> None:
        self._inner, self._clock, self._tracer = inner, clock, tracer

    def unary_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:  # noqa: D102 - grpc's own
        inner, name = self._inner.unary_unary(method, *args, **kwargs), method[1:]
        clock, tracer = self._clock, self._tracer

        def call(request: Any, *, metadata: Metadata = (), **options: Any) -> Any:
            return inner(request, metadata=(*metadata, (TIME, stamp(clock.now()))), **options)

        async def traced(request: Any, *, metadata: Metadata = (), **options: Any) -> Any:
            with tracer.called(name) as ended:
                try:
                    answer = await call(request, metadata=(*metadata, ("traceparent", traceparent.get())), **options)
                except grpc.aio.AioRpcError as error:
                    ended(error.code().name)
                    raise
                ended(grpc.StatusCode.OK.name)
                return answer

        return traced if tracer.on else call

    def unary_stream(self, *_: Any, **__: Any) -> Any:  # noqa: D102 - grpc's own
        return _refuse

    def stream_unary(self, *_: Any, **__: Any) -> Any:  # noqa: D102 - grpc's own
        return _refuse

    def stream_stream(self, *_: Any, **__: Any) -> Any:  # noqa: D102 - grpc's own
        return _refuse

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        """Close what is underneath."""
        await self._inner.close(grace)

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """The state of what is underneath."""
        return self._inner.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Wait for what is underneath."""
        await self._inner.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """Wait for what is underneath."""
        await self._inner.channel_ready()


def _refuse(*_: Any, **__: Any) -> NoReturn:
    raise NotImplementedError(_UNARY_ONLY)
