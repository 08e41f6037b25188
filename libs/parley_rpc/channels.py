"""
What every Parley client dials with: keepalive, retries, sizes. Imports grpc alone: the SDK uses it too.

Retries follow gRFC A6: UNAVAILABLE only, which is safe because every mutation carries a ``request_id``.
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
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        },
    ],
    "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1},
}


class PlaintextRefused(ValueError):
    """Plaintext is for this machine only: give TLS credentials, a loopback address, or a ``unix:`` path."""

    def __init__(self, address: str) -> None:
        super().__init__(f"plaintext to {address} refused: {' '.join((type(self).__doc__ or '').split())}")


def client_options(max_response_bytes: int = MAX_RESPONSE_BYTES) -> list[tuple[str, str | int]]:
    """Channel arguments for ``grpc.aio.insecure_channel`` and ``secure_channel``."""
    return [
        ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
        ("grpc.enable_retries", 1),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
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
