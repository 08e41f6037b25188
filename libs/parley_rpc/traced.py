"""Channels whose calls are spans, and take their trace along to whoever answers; the same over every transport."""

from collections.abc import Callable
from typing import Any, NoReturn, Self

import grpc

from parley_kit.telemetry import Tracer, traceparent

_UNARY_ONLY = "services call each other with unary calls only"
Dial = Callable[[str], grpc.aio.Channel]


def traced(dial: Dial, tracer: Tracer) -> Dial:
    """Channels to services, traced if anything is."""
    return (lambda service: TracedChannel(dial(service), tracer)) if tracer.on else dial


class TracedChannel(grpc.aio.Channel):
    """A channel to another service: unary calls, which are awaited."""

    def __init__(self, inner: grpc.aio.Channel, tracer: Tracer) -> None:
        self._inner, self._tracer = inner, tracer

    def unary_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:  # noqa: D102 - grpc's own
        inner, name, tracer = self._inner.unary_unary(method, *args, **kwargs), method[1:], self._tracer

        async def call(request: Any, **options: Any) -> Any:
            with tracer.called(name) as ended:
                metadata = [*(options.pop("metadata", None) or ()), ("traceparent", traceparent.get())]
                try:
                    answer = await inner(request, metadata=metadata, **options)
                except grpc.aio.AioRpcError as error:
                    ended(error.code().name)
                    raise
                ended(grpc.StatusCode.OK.name)
                return answer

        return call

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
