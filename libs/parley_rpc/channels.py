"""
What every Parley client dials with: keepalive, retries, sizes. Imports grpc alone: the SDK uses it too.

Retries follow gRFC A6: only of what a server that is away or goes away answers, which is safe because every mutation carries a
``request_id``.
"""

import ipaddress
import json

import grpc

MAX_RESPONSE_BYTES = 4 * 1024 * 1024
MAX_METADATA_BYTES = 16 * 1024

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


def client_options(max_response_bytes: int = MAX_RESPONSE_BYTES) -> list[tuple[str, str | int]]:
    """Channel arguments for ``grpc.aio.insecure_channel`` and ``secure_channel``."""
    # A call may be quiet for long: without "pings_without_data" gRPC would send two pings and then one a minute. And of the time
    # that a ping's answer may take, gRPC 1.85 heeds only what stands under ping_timeout (a minute, unless set).
    return [
        ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
        ("grpc.enable_retries", 1),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.ping_timeout_ms", 10_000),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.max_receive_message_length", max_response_bytes),
        ("grpc.max_metadata_size", MAX_METADATA_BYTES),
    ]


def dial(target: str, credentials: grpc.ChannelCredentials | None = None) -> grpc.aio.Channel:
    """
    Open a channel (it connects at the first call). Raises PlaintextRefused without credentials outside this machine.

    Calls wait for the server to be there, so each must have a deadline.
    """
    if credentials is not None:
        return grpc.aio.secure_channel(target, credentials, options=client_options())
    if not is_local(target):
        raise PlaintextRefused(target)
    return grpc.aio.insecure_channel(target, options=client_options())


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
