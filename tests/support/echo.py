"""The echo service, and one world per transport in which to call it."""

import asyncio
import io
import resource
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import grpc
from prometheus_client import CollectorRegistry

from parley_crypto.certificates import issue
from parley_kit.clock import SystemClock
from parley_kit.faults import InvalidRequest, Unauthenticated, Unavailable, Violation
from parley_rpc import deadlines, logs, server
from parley_rpc.channels import client_options, dial
from parley_rpc.inproc import InprocessHub
from parley_rpc.metrics import Metrics
from parley_rpc.peers import Credentials, by_certificate
from parley_rpc.principal import Metadata, Principal, caller
from parley_rpc.zones import Zones
from tests.support import echo_pb2 as echopb
from tests.support import echo_pb2_grpc as echogrpc

SERVICE = "parley.testing.v1.EchoService"
SECRET = "jane.doe@example.org"
outside: ContextVar[str] = ContextVar("outside", default="nothing")

ZONES = Zones.parse(
    f"""
    tables = {{}}
    events = []
    [zones.broker]
    knows = "what it is told"
    must_never_know = "the rest"
    tables = {{}}
    [zones.vault]
    knows = "what it is told"
    must_never_know = "the rest"
    tables = {{}}
    [[calls]]
    caller = "broker"
    service = "{SERVICE}"
    methods = ["Echo", "Repeat", "Missing"]
    [[calls]]
    caller = "customer"
    service = "{SERVICE}"
    methods = ["Echo"]
    [[calls]]
    caller = "operator"
    service = "{SERVICE}"
    methods = ["Echo", "Repeat"]
    """,
)


OPEN = Zones.parse(
    f"""
    tables = {{}}
    events = []
    [zones]
    [[calls]]
    caller = "anyone"
    service = "{SERVICE}"
    methods = ["Echo"]
    """,
)


def authenticate(metadata: Metadata, service: str) -> Principal:
    """Tokens are ``kind:id:service``; what else they say of a caller is sealed anew in each, as identity's are."""
    kind, name, audience = str(dict(metadata)["authorization"]).split(":")
    if audience != service:
        raise Unauthenticated
    return Principal(kind, name, secrets.token_bytes(8))


class EchoServicer(echogrpc.EchoServiceServicer):
    """Does what the text says. ``onward`` is another such service's Echo, which a request with a count is handed on to."""

    def __init__(self) -> None:
        self.onward: Any = None
        self.reached: list[str] = []
        self.left: list[float] = []
        self.held = asyncio.Event()
        self.most_at_once = 0
        self._at_once = 0
        self.waiting = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.closed = asyncio.Event()

    async def Echo(self, request: echopb.EchoRequest, context: Any) -> Any:  # noqa: N802 - gRPC's name
        self.reached.append(request.text)
        if request.text == "onward" and request.count:
            return await self._onward(request)
        if behave := self._behaviours().get(request.text):
            return await behave(context)
        principal = caller()
        return echopb.EchoResponse(
            text=request.text, caller=f"{principal.kind}:{principal.id}", padding=request.padding
        )

    Hidden = Echo

    Missing = echogrpc.EchoServiceServicer.Missing

    async def Repeat(self, request: echopb.EchoRequest, context: Any) -> AsyncIterator[echopb.EchoResponse]:  # noqa: N802
        try:
            for _ in range(request.count):
                yield echopb.EchoResponse(text=request.text, caller=caller().kind, padding=request.padding)
            if behave := self._behaviours().get(request.text):
                await behave(context)
        finally:
            self.closed.set()

    def _behaviours(self) -> dict[str, Callable[[Any], Any]]:
        return {
            "crash": self._crash,
            "fault": self._fault,
            "wait": self._wait,
            "abort": self._abort,
            "set_code": self._set_code,
            "nothing": self._nothing,
            "cancel yourself": self._cancel_itself,
            "context": self._context,
            "metadata": self._metadata,
            "unavailable": self._unavailable,
            "hold": self._hold,
            "large": self._large,
            "much metadata": self._much_metadata,
            "metadata just within": self._metadata_just_within,
            "peer": self._peer,
            "peak": self._peak,
            "slow": self._slow,
        }

    async def _onward(self, request: echopb.EchoRequest) -> Any:
        self.left.append(deadlines.remaining() or 0.0)
        return await deadlines.call(self.onward, echopb.EchoRequest(text="onward", count=request.count - 1))

    async def _crash(self, _: Any) -> None:
        raise ValueError(f"{SECRET} is not a number")

    async def _fault(self, _: Any) -> None:
        raise InvalidRequest(
            "Mend it.",
            metadata={"field": "text"},
            violations=[Violation("text", "is wrong")],
            retry_after=1.5,
        )

    async def _unavailable(self, _: Any) -> None:
        raise Unavailable(retry_after=0.25)

    async def _wait(self, _: Any) -> None:
        self.waiting.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def _hold(self, _: Any) -> echopb.EchoResponse:
        """Answer once the test lets it."""
        self.waiting.set()
        await self.held.wait()
        return echopb.EchoResponse(text="held")

    async def _large(self, _: Any) -> echopb.EchoResponse:
        return echopb.EchoResponse(padding=bytes(5 * 1024 * 1024))

    async def _much_metadata(self, context: Any) -> echopb.EchoResponse:
        context.set_trailing_metadata([(f"x-{i}", "v" * 1000) for i in range(30)])
        return echopb.EchoResponse()

    async def _metadata_just_within(self, context: Any) -> echopb.EchoResponse:
        context.set_trailing_metadata([(f"x-{i}", "v" * 1000) for i in range(14)])
        return echopb.EchoResponse()

    async def _peer(self, context: Any) -> echopb.EchoResponse:
        """Say which connection the call came on."""
        return echopb.EchoResponse(text=context.peer())

    async def _slow(self, _: Any) -> echopb.EchoResponse:
        """Take as long as a database would."""
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        await asyncio.sleep(0.01)
        self._at_once -= 1
        return echopb.EchoResponse()

    async def _peak(self, _: Any) -> echopb.EchoResponse:
        """Say how much memory this process has had at most, in KiB."""
        return echopb.EchoResponse(text=str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss))

    async def _abort(self, context: Any) -> None:
        context.set_trailing_metadata((("x-trail", "kept"),))
        await context.abort(grpc.StatusCode.NOT_FOUND, "gone")

    async def _set_code(self, context: Any) -> echopb.EchoResponse:
        context.set_code(grpc.StatusCode.DATA_LOSS)
        context.set_details("lost")
        return echopb.EchoResponse()

    async def _nothing(self, _: Any) -> None:
        """Not a response at all."""

    async def _cancel_itself(self, _: Any) -> None:
        raise asyncio.CancelledError

    async def _context(self, _: Any) -> echopb.EchoResponse:
        return echopb.EchoResponse(text=outside.get())

    async def _metadata(self, context: Any) -> echopb.EchoResponse:
        await context.send_initial_metadata((("x-initial", "first"),))
        context.set_trailing_metadata((("x-trailing", "last"), ("x-bytes-bin", b"\x00\xff")))
        return echopb.EchoResponse(text=str(dict(context.invocation_metadata()).get("x-sent")))


@dataclass
class World:
    """
    One served echo. ``call`` calls as the broker: by token, by certificate, or declared in one process.

    Over a network ``target`` is what to dial for further connections, and ``server`` and ``port`` are there.
    """

    servicer: EchoServicer
    registry: CollectorRegistry
    logged: io.StringIO
    channel: grpc.aio.Channel
    open_channel: grpc.aio.Channel
    token: tuple[tuple[str, str], ...] = (("authorization", f"service:broker:{SERVICE}"),)
    target: str = ""
    server: Any = None
    port: int = 0
    tls_port: int = 0

    def call(self, text: str, *, method: str = "Echo", metadata: Any = (), timeout: float = 5.0, **fields: Any) -> Any:
        request = echopb.EchoRequest(text=text, **fields)
        stub = getattr(echogrpc.EchoServiceStub(self.channel), method)
        return stub(request, timeout=timeout, metadata=(*self.token, *metadata))

    @property
    def open_stub(self) -> Any:
        return echogrpc.EchoServiceStub(self.open_channel)


def token(kind: str, name: str) -> tuple[tuple[str, str], ...]:
    """Metadata of whoever calls by this name."""
    return (("authorization", f"{kind}:{name}:{SERVICE}"),)


def connection(target: str, *options: tuple[str, int]) -> grpc.aio.Channel:
    """A channel with a connection of its own (gRPC shares them among like channels), with these ``options`` before ours."""
    return grpc.aio.insecure_channel(
        target, options=[*options, ("grpc.use_local_subchannel_pool", 1), *client_options()]
    )


def both(one: "World", other: "World") -> str:
    """What to dial for two servers, which a channel asks in turn."""
    return f"ipv4:127.0.0.1:{one.port},127.0.0.1:{other.port}"


def _guards(zones: Zones = ZONES) -> tuple[EchoServicer, dict[str, Any], CollectorRegistry, io.StringIO]:
    registry, logged = CollectorRegistry(), io.StringIO()
    log = logs.logger("echo", logged)
    guards = {
        "authenticate": authenticate,
        "clock": SystemClock(),
        "zones": zones,
        "metrics": Metrics(registry),
        "log": log,
    }
    return EchoServicer(), guards, registry, logged


@asynccontextmanager
async def inprocess(_: Path | None = None) -> AsyncIterator[World]:
    servicer, guards, registry, logged = _guards()
    hub = InprocessHub()
    hub.register([server.Registration(echogrpc.add_EchoServiceServicer_to_server, servicer)], **guards)
    yield World(servicer, registry, logged, hub.channel("broker"), hub.channel(), ())
    await hub.close()


@asynccontextmanager
async def serving(
    address: str,
    target: str,
    *,
    zones: Zones = ZONES,
    options: Mapping[str, int] = MappingProxyType({}),
    tls: grpc.ServerCredentials | None = None,
) -> AsyncIterator[World]:
    servicer, guards, registry, logged = _guards(zones)
    served = server.build_server(
        [server.Registration(echogrpc.add_EchoServiceServicer_to_server, servicer)],
        **guards,
        options=options,
    )
    try:
        port = served.add_insecure_port(address)
        tls_port = served.add_secure_port("127.0.0.1:0", tls) if tls else 0
        await served.start()
        target = target.format(port=port)
        async with dial(target) as channel:
            yield World(
                servicer,
                registry,
                logged,
                channel,
                channel,
                target=target,
                server=served,
                port=port,
                tls_port=tls_port,
            )
    finally:
        await served.stop(None)


def mtls_tcp(directory: Path) -> AbstractAsyncContextManager[World]:
    """The same over TCP."""
    return mtls(directory, "127.0.0.1:0", "127.0.0.1:{port}")


@asynccontextmanager
async def mtls(directory: Path, address: str = "", target: str = "") -> AsyncIterator[World]:
    """Both doors of a service that runs apart: ``channel`` comes to the peers' with a certificate, the other to the public."""
    servicer, guards, registry, logged = _guards()
    issued = issue(["broker", "echo"], datetime.now(UTC))
    broker, echo = (Credentials(leaf.certificate, issued.authority, leaf.key) for leaf in issued.leaves.values())
    registration = server.Registration(echogrpc.add_EchoServiceServicer_to_server, servicer)
    public = server.build_server([registration], **guards)
    public.add_insecure_port(f"unix:{directory}/public.sock")
    inner = server.build_server([registration], declare=by_certificate(ZONES), **guards)
    port = inner.add_secure_port(address or f"unix:{directory}/peers.sock", echo.server())
    await public.start()
    await inner.start()
    async with (
        dial(
            target.format(port=port) or f"unix:{directory}/peers.sock", broker.client(), server_name="echo"
        ) as channel,
        dial(f"unix:{directory}/public.sock") as open_channel,
    ):
        yield World(servicer, registry, logged, channel, open_channel, ())
    await public.stop(None)
    await inner.stop(None)


def unix(directory: Path) -> AbstractAsyncContextManager[World]:
    return serving(f"unix:{directory}/echo.sock", f"unix:{directory}/echo.sock")


def tcp(_: Path | None = None, *, port: int = 0, **settings: Any) -> AbstractAsyncContextManager[World]:
    """``settings`` are those of :func:`serving`."""
    return serving(f"127.0.0.1:{port}", "127.0.0.1:{port}", **settings)
