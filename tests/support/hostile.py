"""A client that speaks HTTP/2 itself, so that it can say what no gRPC client would."""

import asyncio
import base64
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Self

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.rpc.error_details_pb2 import ErrorInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped] # neither ships types

from tests.support.echo import SERVICE

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
NO_SETTINGS = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""A SETTINGS frame that changes nothing."""

HALF_A_CLIENT_HELLO = bytes([22, 3, 1, 2, 0, 1, 0])

Metadata = Iterable[tuple[str, str]]


@dataclass
class Answer:
    """What came back on one stream."""

    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    reset: int | None = None
    ended: bool = False

    @property
    def is_grpcs_own(self) -> bool:
        """Whether gRPC itself refused the metadata, before any guard of ours saw the call."""
        return "received metadata size exceeds" in self.headers.get("grpc-message", "")

    def reason(self) -> str:
        """Why the call was refused, as ErrorInfo says."""
        sent = self.headers["grpc-status-details-bin"]
        info = ErrorInfo()
        Status.FromString(base64.b64decode(sent + "=" * (-len(sent) % 4))).details[0].Unpack(info)
        return str(info.reason)


class Wire:
    """One connection. It reads, and acknowledges what it must, only in :meth:`until`: whoever doesn't call that is silent."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._http = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=True, header_encoding="utf-8", validate_outbound_headers=False)
        )
        self.answers: dict[int, Answer] = {}
        self.goodbye: h2.events.ConnectionTerminated | None = None
        self.closed = False
        self.is_greeted = False
        self._arrived = b""
        self.pings = 0

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._http.initiate_connection()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()

    @property
    def allowed(self) -> int:
        """How many streams at once the server's SETTINGS allow."""
        return self._http.remote_settings.max_concurrent_streams

    def open(
        self, method: str = "Echo", metadata: Metadata = (), timeout: str = "30S", *, service: str = SERVICE
    ) -> int:
        """Begin a call by its headers alone; its stream's number."""
        stream = self._http.get_next_available_stream_id()
        self.answers[stream] = Answer()
        pseudo = [(":method", "POST"), (":scheme", "http"), (":path", f"/{service}/{method}"), (":authority", "echo")]
        usual = [("content-type", "application/grpc"), ("te", "trailers"), ("grpc-timeout", timeout)]
        self._http.send_headers(stream, [*pseudo, *usual, *metadata])
        return stream

    async def send(self, stream: int, message: bytes, *, compressed: bool = False) -> None:
        """Send a call's one request, as fast as the server takes it."""
        rest = bytes([compressed]) + len(message).to_bytes(4, "big") + message
        while rest:
            await self.until(lambda: self._http.local_flow_control_window(stream) > 0 or self.answers[stream].ended)
            if self.answers[stream].ended:
                return
            size = min(len(rest), self._http.local_flow_control_window(stream), self._http.max_outbound_frame_size)
            self._http.send_data(stream, rest[:size], end_stream=size == len(rest))
            rest = rest[size:]
            await self.flush()

    async def greeted(self) -> None:
        """Read and acknowledge the server's SETTINGS."""
        await self.until(lambda: self.is_greeted)

    def allow(self, streams: int) -> None:
        """Open up to so many streams at once, whatever the server's SETTINGS said."""
        self._http.remote_settings[h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS] = streams
        self._http.remote_settings.acknowledge()

    async def take_nothing(self) -> None:
        """Give no answer any room, until :meth:`take`."""
        self._http.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 0})
        self.ping()
        pings = self.pings
        await self.until(lambda: self.pings > pings)  # answered after what came before it

    async def promise_to_take(self) -> None:
        """Give every answer all the room there can be; what isn't read piles up in the socket."""
        self._http.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 2**31 - 1})
        self._http.increment_flow_control_window(2**31 - 1 - 65_535)
        self.ping()
        pings = self.pings
        await self.until(lambda: self.pings > pings)

    def take(self, stream: int) -> None:
        """Give an answer room, after all."""
        self._http.increment_flow_control_window(1_000_000, stream)

    def abort(self) -> None:
        """Be gone."""
        self._writer.transport.abort()

    def ping(self) -> None:
        """Ask for a sign of life."""
        self._http.ping(bytes(8))

    def reset(self, stream: int) -> None:
        """Take a call back."""
        self._http.reset_stream(stream)

    async def flush(self) -> None:
        """Write what was said so far."""
        self._writer.write(self._http.data_to_send())
        with contextlib.suppress(ConnectionError):
            await self._writer.drain()

    async def answered(self, stream: int) -> Answer:
        """A stream's answer, when it has ended."""
        await self.until(lambda: self.answers[stream].ended)
        return self.answers[stream]

    async def until(self, condition: Callable[[], object], seconds: float = 10.0) -> None:
        """Write, read and acknowledge until it is so; TimeoutError after ``seconds``, ConnectionError once it can't come."""
        await self.flush()
        async with asyncio.timeout(seconds):
            while not condition():
                if self.closed:
                    raise ConnectionError("the server closed the connection")
                await self._read()
                await self.flush()

    async def _read(self) -> None:
        try:
            data = await self._reader.read(65_536)
        except ConnectionError:
            data = b""
        self.closed = not data
        self._arrived += data
        # One frame at a time: h2 takes nothing more after a goodbye, and would take what came with it down, too.
        while self.goodbye is None and (size := self._frame()):
            frame, self._arrived = self._arrived[:size], self._arrived[size:]
            for event in self._http.receive_data(frame):
                self._note(event)

    def _frame(self) -> int:
        size = 9 + int.from_bytes(self._arrived[:3], "big")
        return size if len(self._arrived) >= size else 0

    def _note(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.ResponseReceived() | h2.events.TrailersReceived():
                headers = event.headers or []
                self._answer(event.stream_id).headers |= {str(name): str(value) for name, value in headers}
            case h2.events.DataReceived():
                self._answer(event.stream_id).body += event.data or b""
            case h2.events.StreamReset():
                answer = self._answer(event.stream_id)
                answer.reset, answer.ended = int(event.error_code or 0), True
            case h2.events.StreamEnded():
                self._answer(event.stream_id).ended = True
            case h2.events.RemoteSettingsChanged():
                self.is_greeted = True
            case h2.events.PingAckReceived():
                self.pings += 1
            case h2.events.ConnectionTerminated():
                self.goodbye = event

    def _answer(self, stream: int | None) -> Answer:
        return self.answers.setdefault(stream or 0, Answer())


async def outlasts(port: int, said: bytes, seconds: float = 12.0) -> bool:
    """Say so much on a new connection and no more, and read to its end; whether it has none within ``seconds``."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(said)
    try:
        async with asyncio.timeout(seconds):
            with contextlib.suppress(ConnectionError):
                while await reader.read(65_536):
                    pass
    except TimeoutError:
        return True
    finally:
        writer.close()
    return False


def self_signed() -> tuple[bytes, bytes]:
    """A key, and a certificate that nobody need trust, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(days=1), now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private, certificate.public_bytes(serialization.Encoding.PEM)


class Mute:
    """A server that takes calls and never answers one."""

    def __init__(self, port: int) -> None:
        self.target = f"127.0.0.1:{port}"
        self.connections = 0
        self.pings = 0

    def was_pinged(self, times: int) -> Callable[[], Awaitable[bool]]:
        """A condition: that so many pings have come."""

        async def condition() -> bool:
            return self.pings >= times

        return condition


_PATIENCE_S = 15.0


@contextlib.asynccontextmanager
async def listening(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[int]:
    """
    Serve each connection at some port, and hang up when the block ends: what is left over fails another test.

    What serving raises, but for lost connections, is raised where the block raised nothing; TimeoutError where it doesn't end.
    Not asyncio's own server: closed between accepting a connection and serving it, that one forgets to close the socket.
    """
    loop = asyncio.get_running_loop()
    served: dict[asyncio.Task[None], socket.socket] = {}

    async def come_and_go(connection: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=connection)
        try:
            with contextlib.suppress(ConnectionError):
                await serve(reader, writer)
        finally:
            writer.transport.abort()

    def accept() -> None:
        with contextlib.suppress(BlockingIOError, ConnectionError):  # whoever knocked may be gone again
            connection, _ = door.accept()
            served[loop.create_task(come_and_go(connection))] = connection

    with socket.create_server(("127.0.0.1", 0)) as door:
        door.setblocking(False)
        loop.add_reader(door, accept)
        try:
            yield door.getsockname()[1]
        finally:
            loop.remove_reader(door)
            late = await _hang_up(served)
    for one in served.keys() - late:
        one.result()
    if late:
        raise TimeoutError(f"{len(late)} connections were served on after they were hung up on")


async def _hang_up(served: Mapping[asyncio.Task[None], socket.socket]) -> set[asyncio.Task[None]]:
    """Hang up on all and wait until none is served; answers those that had to be cancelled."""
    for connection in served.values():
        with contextlib.suppress(OSError):  # it may be closed already
            connection.shutdown(socket.SHUT_RDWR)
    if not served:
        return set()
    _, late = await asyncio.wait(served, timeout=_PATIENCE_S)
    for one in late:
        one.cancel()
    await asyncio.gather(*late, return_exceptions=True)
    return late


@contextlib.asynccontextmanager
async def mute(*, answers_pings: bool = False) -> AsyncIterator[Mute]:
    """Serve as :class:`Mute`."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.connections += 1
        http = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        http.initiate_connection()
        writer.write(http.data_to_send())
        with contextlib.suppress(h2.exceptions.ProtocolError):  # h2 bears nothing after a goodbye
            while data := await reader.read(65_536):
                events = http.receive_data(data)
                pings = sum(isinstance(event, h2.events.PingReceived) for event in events)
                serving.pings += pings
                answer = http.data_to_send()
                if answers_pings or not pings:
                    writer.write(answer)

    async with listening(serve) as port:
        serving = Mute(port)
        yield serving


@dataclass
class Far:
    """A way to a server that takes long, and how many connections went it."""

    port: int
    connections: int = 0


@contextlib.asynccontextmanager
async def far_away(port: int, *, way_s: float) -> AsyncIterator[Far]:
    """Another port of a server's, to which, and from which, everything takes so many seconds."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far.connections += 1
        await asyncio.sleep(2 * way_s)  # as it takes until a connection is there
        await between(reader, writer, await asyncio.open_connection("127.0.0.1", port), way_s)

    async with listening(serve) as own:
        far = Far(own)
        yield far


async def between(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    way_s: float = 0.0,
) -> None:
    """Carry what comes to a connection to a server, and back."""
    from_server, to_server = server
    try:
        await asyncio.gather(_carry(reader, to_server, way_s), _carry(from_server, writer, way_s))
    finally:
        to_server.transport.abort()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, way_s: float) -> None:
    """Hand on what comes, each piece after a while."""
    loop = asyncio.get_running_loop()
    while data := await reader.read(65_536):
        loop.call_later(way_s, writer.write, data)
    loop.call_later(way_s, writer.close)
