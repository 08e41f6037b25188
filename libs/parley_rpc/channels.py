"""
What every Parley client dials with: addresses, keepalive, retries, sizes. Imports grpc alone: the SDK uses it too.

Where services run apart, an address names each of them by ``{service}``: ``unix:/run/parley/{service}/public.sock``.

Retries follow gRFC A6: only of what a server that is away or goes away answers, which is safe because every mutation carries a
``request_id``.
"""

import ipaddress
import json
import re
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, Self

import grpc

MAX_RESPONSE_BYTES = 4 * 1024 * 1024
MAX_METADATA_BYTES = 16 * 1024

_SERVICE = "{service}"
_NO_PROXY: tuple[str, str | int] = ("grpc.enable_http_proxy", 0)
"""What is in clear stays here: a proxy that the environment names (``https_proxy``) would be given what is for loopback, too."""
_METHOD = re.compile(r"/parley\.([a-z]+)\.v\d+\.")
_MANY = "each service has a state of its own: open a channel to the one that is meant"

_SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{}],
            "waitForReady": True,
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "1s",
                "backoffMultiplier": 2,
                # A server that stops sends CANCELLED to the calls that it had not begun yet: gRPC throws them away.
                "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
            },
        },
    ],
    # gRPC retries while more than half of the tokens are there, and each failure takes one. A connection that breaks takes up to
    # a hundred calls with it, all of which must survive it, and once more before they are earned back. With fewer tokens (10 is
    # usual) a killed server cost its callers all but a few of the calls that were under way.
    "retryThrottling": {"maxTokens": 500, "tokenRatio": 0.1},
}


class PlaintextRefused(ValueError):
    """Plaintext is for this machine only: give TLS credentials, a loopback address, or a ``unix:`` path."""

    def __init__(self, address: str) -> None:
        super().__init__(f"plaintext to {address} refused: {' '.join((type(self).__doc__ or '').split())}")


class CannotListen(OSError):
    """Another process listens at an address, or it is none, or none of this machine's that this user may open."""

    def __init__(self, address: str) -> None:
        super().__init__(f"can't listen on {address}: it is taken, not this user's to open, or no address")


def client_options() -> list[tuple[str, str | int]]:
    """Channel arguments for ``grpc.aio.insecure_channel`` and ``secure_channel``."""
    # What gRPC calls the least time between connections is the most that it gives each of them to be made, however short the time
    # between is: with less than the half dozen ways that it takes, whoever is far away never gets through.
    # A call may be quiet for long: without "pings_without_data" gRPC would send two pings and then one a minute. And of the time
    # that a ping's answer may take, gRPC 1.85 heeds only what stands under ping_timeout (a minute, unless set).
    return [
        ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 5_000),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.ping_timeout_ms", 10_000),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.max_receive_message_length", MAX_RESPONSE_BYTES),
        ("grpc.max_metadata_size", MAX_METADATA_BYTES),
    ]


def dial(target: str, credentials: grpc.ChannelCredentials | None = None, *, server_name: str = "") -> grpc.aio.Channel:
    """
    Open a channel (it connects at the first call). Raises PlaintextRefused without credentials outside this machine.

    Calls wait for the server to be there, so each must have a deadline. The server's certificate must be for
    ``server_name``, or for the target's host without one.
    """
    if credentials is not None:
        named = [("grpc.ssl_target_name_override", server_name)] if server_name else []
        return grpc.aio.secure_channel(target, credentials, options=[*named, *client_options()])
    if not is_local(target):
        raise PlaintextRefused(target)
    return grpc.aio.insecure_channel(target, options=[_NO_PROXY, *client_options()])


def connect(
    address: str,
    credentials: grpc.ChannelCredentials | None = None,
    options: Sequence[tuple[str, str | int]] | None = None,
) -> grpc.aio.Channel:
    """Open a channel to Parley, in clear without ``credentials``; where services run apart, one for each as it is needed."""
    options = client_options() if options is None else options

    def one(service: str) -> grpc.aio.Channel:
        target = at(address, service)
        if credentials is None:
            return grpc.aio.insecure_channel(target, options=[_NO_PROXY, *options])
        return grpc.aio.secure_channel(target, credentials, options=options)

    return RoutedChannel(one) if _SERVICE in address else one("")


def at(address: str, service: str) -> str:
    """Where a service is that an address names, alone or among others."""
    return address.replace(_SERVICE, service)


class RoutedChannel(grpc.aio.Channel):
    """Channels to services that run apart, as one: a call goes where the service of its method is."""

    def __init__(self, open_one: Callable[[str], grpc.aio.Channel]) -> None:
        self._open_one = open_one
        self._channels: dict[str, grpc.aio.Channel] = {}

    def _to(self, method: str) -> grpc.aio.Channel:
        found = _METHOD.match(method)
        if found is None:
            raise ValueError(f"{method} is no method of Parley's: open a channel to the one service that is meant")
        service = found[1]
        if service not in self._channels:
            self._channels[service] = self._open_one(service)
        return self._channels[service]

    def unary_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:  # noqa: D102 - grpc's own
        return self._to(method).unary_unary(method, *args, **kwargs)

    def unary_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:  # noqa: D102 - grpc's own
        return self._to(method).unary_stream(method, *args, **kwargs)

    def stream_unary(self, method: str, *args: Any, **kwargs: Any) -> Any:  # noqa: D102 - grpc's own
        return self._to(method).stream_unary(method, *args, **kwargs)

    def stream_stream(self, method: str, *args: Any, **kwargs: Any) -> Any:  # noqa: D102 - grpc's own
        return self._to(method).stream_stream(method, *args, **kwargs)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self, grace: float | None = None) -> None:
        """Close all that is open."""
        for channel in self._channels.values():
            await channel.close(grace)

    def get_state(self, try_to_connect: bool = False) -> NoReturn:
        """Raise NotImplementedError: each service has a state of its own."""
        raise NotImplementedError(_MANY)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> NoReturn:
        """Raise NotImplementedError, as :meth:`get_state`."""
        raise NotImplementedError(_MANY)

    async def channel_ready(self) -> None:
        """Wait until every service that was called so far is there."""
        for channel in self._channels.values():
            await channel.channel_ready()


def is_local(address: str) -> bool:
    """Whether ``unix:/path``, ``host:port`` or ``dns:///host:port`` stays on this machine. Names but localhost do not."""
    if address.startswith(("unix:", "unix-abstract:")):
        return True
    host = address.removeprefix("dns:").rsplit("/", 1)[-1].rpartition(":")[0].strip("[]")
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
