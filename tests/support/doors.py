"""Ways to call any RPC as anybody: with tokens over the network, or as a service."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from parley_crypto.signing import Signer
from parley_crypto.statements import Token, issue_token
from parley_kit.ids import new_id
from parley_node.provision import key_file
from parley_node.services import SERVICES
from tests.support.api import KINDS, ZONES, Rpc
from tests.support.world import Metadata, World


@dataclass(frozen=True)
class Doors:
    """Every door of a Parley, and tokens to come with."""

    world: World
    tokens: Mapping[tuple[str, str], Metadata]

    @classmethod
    async def of(cls, world: World) -> "Doors":
        """With tokens of every kind of caller for every service, also those that identity would never issue."""
        customer, marketer = await world.customer(), await world.marketer()
        issued = {(kind, service): token(world, kind, service) for kind in KINDS for service in SERVICES}
        issued |= {("customer", service): metadata for service, metadata in customer.tokens.items()}
        issued |= {("marketer", service): metadata for service, metadata in marketer.tokens.items()}
        return cls(world, issued)

    def has(self, rpc: Rpc, caller: str) -> bool:
        """Whether there is a door to come to: services carry no streams, and come only to those that some service calls."""
        called = {edge["service"] for edge in ZONES["calls"] if edge["caller"] in SERVICES}
        shut = self.world.apart and rpc.method.containing_service.full_name not in called
        return caller not in SERVICES or not (rpc.method.server_streaming or shut)

    async def call(self, rpc: Rpc, caller: str, request: bytes) -> bytes:
        """Call with raw bytes; of a stream, the first answer."""
        channel: Any = self.world.stubs.channel if caller not in SERVICES else self.world.calling(caller)
        metadata = self.tokens.get((caller, rpc.service), ())
        if rpc.method.server_streaming:
            stream = channel.unary_stream(rpc.path, request_serializer=None, response_deserializer=None)(
                request, metadata=metadata, timeout=5
            )
            first: bytes = await stream.read()
            stream.cancel()
            return first
        method = channel.unary_unary(rpc.path, request_serializer=bytes, response_deserializer=bytes)
        answer: bytes = await method(request, metadata=metadata, timeout=20)
        return answer


def token(
    world: World, kind: str, service: str, *, subject: str = "", audience: str = "", at: datetime | None = None
) -> Metadata:
    """A token that identity signs, whoever it is for."""
    signer = Signer.load(key_file(world.home, "identity", "signing"))
    who = subject or {"marketer": f"marketers/{new_id()}", "customer": new_id()}.get(kind, f"{kind}s/local")
    statement = issue_token(signer, Token(kind, who), audience or service, at or datetime.now(UTC))
    return (("authorization", f"Bearer {statement}"),)
