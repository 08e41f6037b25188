"""
How services know each other: mutual TLS, over unix sockets as over a network.

A socket's file says nothing about who calls where all services run as one user of the machine; a certificate does.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from parley_crypto.certificates import check, identity
from parley_crypto.keyfiles import read_secret
from parley_rpc.chain import Context
from parley_rpc.channels import dial
from parley_rpc.principal import ANYONE, Principal
from parley_rpc.server import Declare
from parley_rpc.zones import Zones


@dataclass(frozen=True)
class Credentials:
    """What a service proves who it is with, and whom it believes (all PEM)."""

    certificate: bytes
    authority: bytes
    key: bytes = field(repr=False)

    @classmethod
    def load(cls, certificate: Path, key: Path, authority: Path) -> "Credentials":
        """Read them from files. Raises KeyFileUnusable for the key, OSError for the others, CertificateUnusable."""
        read = cls(certificate.read_bytes(), authority.read_bytes(), read_secret(key).encode())
        check(read.certificate, read.key, read.authority)
        return read

    def server(self, *, callers: bool = True) -> grpc.ServerCredentials:
        """For a door that only callers with a certificate of the same authority get to; or, without ``callers``, anyone."""
        pair = (self.key, self.certificate)
        return grpc.ssl_server_credentials([pair], self.authority if callers else None, require_client_auth=callers)

    def client(self) -> grpc.ChannelCredentials:
        """For calling other services' doors."""
        return grpc.ssl_channel_credentials(self.authority, self.key, self.certificate)


def by_certificate(zones: Zones) -> Declare:
    """Tell callers by their certificate alone; one that names no zone is anyone, whatever token it shows."""
    known = {identity(name).encode(): Principal("service", name) for name in zones.zones}

    def declare(context: Context) -> Principal:
        names = tuple(context.auth_context().get("peer_uri", ()))
        return known.get(names[0], ANYONE) if len(names) == 1 else ANYONE

    return declare


class Peers:
    """Channels to other services, each dialled when it is asked for and kept until the end."""

    def __init__(self, addresses: Mapping[str, str], credentials: grpc.ChannelCredentials | None) -> None:
        self._addresses = addresses
        self._credentials = credentials
        self._channels: dict[str, grpc.aio.Channel] = {}

    def channel(self, service: str) -> grpc.aio.Channel:
        """A channel to a service. Raises LookupError where nobody said where it is."""
        if service not in self._addresses:
            raise LookupError(f"no address of {service} is known")
        if service not in self._channels:
            self._channels[service] = dial(self._addresses[service], self._credentials, server_name=service)
        return self._channels[service]

    async def close(self) -> None:
        """Close what is open."""
        for channel in self._channels.values():
            await channel.close()
