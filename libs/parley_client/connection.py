"""
Calls to Parley: signed in, within a deadline, tried again where that helps, errors as classes.

Every Parley method may be repeated: mutations carry a ``request_id``, which is made here once and kept over all tries.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, cast
from uuid import uuid4

import grpc
from google.protobuf.message import Message
from grpc.aio import UnaryStreamCall, UnaryStreamMultiCallable, UnaryUnaryMultiCallable

from parley.identity.v1 import identity_pb2 as identitypb
from parley.identity.v1.identity_pb2_grpc import IdentityServiceStub
from parley_client import errors
from parley_client.backoff import Backoff
from parley_client.tokens import Tokens
from parley_crypto.signing import Signer
from parley_crypto.statements import make_assertion
from parley_kit.clock import Clock, SystemClock
from parley_kit.ids import new_id
from parley_rpc.channels import client_options, connect, is_local

IDLE_MS = 60_000
"""Milliseconds after which a connection that nobody uses is closed; the next call makes another."""
AT_ONCE = 64
"""
How many calls a connection has under way; the others wait their turn here, within their deadlines.

A server takes a hundred on one connection, and refuses some to a client that always has a hundred: it counts each a while
longer than the client does.
"""

# Interrupted is also what a server that stops says to the calls that it had not begun yet.
_PASSING = (errors.Unavailable, errors.ClocksApart, errors.Conflict, errors.TooManyCalls, errors.Interrupted)

_T = TypeVar("_T")
_Request = TypeVar("_Request", bound=Message)
_Response = TypeVar("_Response", bound=Message)


@dataclass(frozen=True, slots=True)
class Credential:
    """Who signs in: a resource name (``marketers/...``, ``customers/...``, ...) and the key that proves it."""

    subject: str
    signer: Signer


class Connection:
    """
    One channel, and the tokens of whoever signed in on it. An async context manager.

    ``deadline`` bounds each call with all its tries, where the call names no other. Without a credential only methods that
    anyone may call can be called. Local addresses are dialled in clear, and past any proxy, others with TLS
    (``credentials``: other than the certificate authorities that come with gRPC, or that
    ``GRPC_DEFAULT_SSL_ROOTS_FILE_PATH`` names). A ``channel`` that is given is shared, and left open.
    """

    def __init__(
        self,
        address: str,
        credential: Credential | None = None,
        *,
        deadline: timedelta = timedelta(seconds=10),
        clock: Clock | None = None,
        backoff: Backoff | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        channel: grpc.aio.Channel | None = None,
    ) -> None:
        self._address = address
        self._given = channel
        self._open: grpc.aio.Channel | None = None
        self._credential = credential
        self._deadline = deadline
        self._clock = clock or SystemClock()
        self._backoff = backoff or Backoff()
        self._tls = credentials
        self._tokens = Tokens(self._sign_in, self._clock)

    @property
    def channel(self) -> grpc.aio.Channel:
        """The channel. Raises RuntimeError outside the block."""
        return self._require_open()

    def _require_open(self) -> grpc.aio.Channel:
        if self._open is None:  # gRPC would end the process for a stub on a closed one
            raise RuntimeError("the client is not open: use it inside its `async with`")
        return self._open

    async def __aenter__(self) -> Self:
        self._turns = asyncio.Semaphore(AT_ONCE)  # of this event loop
        self._open = self._given or _dial(self._address, self._tls)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tokens.close()
        channel, self._open = self._open, None
        if self._given is None and channel is not None:
            await channel.close()

    async def call(
        self,
        method: UnaryUnaryMultiCallable[_Request, _Response],
        request: _Request,
        *,
        service: str = "",
        deadline: timedelta | None = None,
    ) -> _Response:
        """
        Call a stub's method with a token for ``service`` (``broker``, ...), or as nobody if that is empty.

        An empty ``request_id`` is filled in. Raises ParleyError, by reason.
        """
        self._require_open()
        message = _with_request_id(request)
        within = deadline or self._deadline
        try:
            return await self._persist(lambda until: self._authorised(method, message, service, until), within)
        except errors.ParleyError as error:
            if request_id := getattr(message, "request_id", ""):  # under which it can be asked again
                raise error.of_request(request_id) from None
            raise

    async def open(
        self, method: UnaryStreamMultiCallable[_Request, _Response], request: _Request, *, service: str
    ) -> "Stream[_Response]":
        """Open a server stream, signed in. It is not tried again. Raises what signing in raises."""
        token = await self._token(service)
        self._require_open()
        return Stream(method(request, metadata=_bearer(token)), lambda: self._tokens.drop(token), self._while_open)

    async def _sign_in(self) -> identitypb.SignInResponse:
        if self._credential is None:
            raise errors.Unauthenticated("UNAUTHENTICATED", "this connection has no credential to sign in with")
        try:
            return await self._persist(self._present, self._deadline)
        except errors.Unauthenticated as refused:
            if refused.is_foreign:  # identity wasn't asked
                raise
            raise errors.sign_in_refused(refused, self._credential.subject) from None

    async def _present(self, until: float) -> identitypb.SignInResponse:
        assert self._credential is not None
        signer, subject = self._credential.signer, self._credential.subject
        # A new one for each try: an assertion that arrived is used up, even if its answer was lost.
        assertion = make_assertion(signer, subject, new_id(), self._clock.now())
        request = identitypb.SignInRequest(assertion=assertion)
        return await self._send(IdentityServiceStub(self.channel).SignIn, request, until, "")

    async def _authorised(
        self, method: UnaryUnaryMultiCallable[_Request, _Response], request: _Request, service: str, until: float
    ) -> _Response:
        if not service:
            return await self._send(method, request, until, "")
        token = await self._token(service)
        try:
            return await self._send(method, request, until, token)
        except errors.Unauthenticated:
            self._tokens.drop(token)
        return await self._send(method, request, until, await self._token(service))

    async def _token(self, service: str) -> str:
        with self._while_open():
            return await self._tokens.of(service)

    async def _send(
        self, method: UnaryUnaryMultiCallable[_Request, _Response], request: _Request, until: float, token: str
    ) -> _Response:
        async with self._turns:
            try:
                with self._while_open():
                    return await method(request, timeout=_left(until), metadata=_bearer(token) if token else ())
            except grpc.RpcError as failed:
                raise errors.error_from(failed) from None

    @contextmanager
    def _while_open(self) -> Iterator[None]:
        """Say what ended a call whose channel was closed: to gRPC it was cancelled, which nobody asked for."""
        try:
            yield
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._open is None and not (task and task.cancelling()):
                raise RuntimeError("the client was closed while this was under way") from None
            raise

    async def _persist(self, attempt: Callable[[float], Awaitable[_T]], within: timedelta) -> _T:
        """Try until it works, or the next try would come too late. ``attempt`` gets the loop's time limit."""
        until, last, failures = asyncio.get_running_loop().time() + within.total_seconds(), None, 0
        try:
            async with asyncio.timeout_at(until):
                while True:
                    try:
                        return await attempt(until)
                    except _PASSING as error:
                        last, failures = error, failures + 1
                        delay = self._backoff.delay(failures, error.retry_after)
                        if delay >= _left(until):
                            raise
                    await asyncio.sleep(delay)
        except (TimeoutError, errors.DeadlineExceeded):  # gRPC's own limit and this one pass at the same moment
            raise errors.deadline_exceeded(within.total_seconds(), self._address, last) from None


class Stream(Generic[_Response]):
    """A server stream that is open."""

    def __init__(
        self,
        call: UnaryStreamCall[Any, _Response],
        refused: Callable[[], None],
        while_open: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self._call = call
        self._refused = refused
        self._while_open = while_open

    async def read(self) -> _Response | None:
        """The next message; None at the end. Raises ParleyError. A read that is cancelled ends the stream."""
        try:
            with self._while_open():
                message = await self._call.read()
        except grpc.RpcError as failed:
            error = errors.error_from(failed)
            if isinstance(error, errors.Unauthenticated):
                self._refused()
            raise error from None
        return None if message is grpc.aio.EOF else cast(_Response, message)

    def close(self) -> None:
        """End it, if it hasn't ended."""
        self._call.cancel()


def _dial(address: str, credentials: grpc.ChannelCredentials | None) -> grpc.aio.Channel:
    # This package tries again by itself, keeps the delay that the server asks for, and signs a new assertion each time:
    # gRPC's own retries would multiply with it and send a used assertion. Of an option that stands twice the first counts.
    # A connection that nobody used for a while is left: a box on the way that has forgotten it would swallow what is sent.
    options = [("grpc.enable_retries", 0), ("grpc.client_idle_timeout_ms", IDLE_MS), *client_options()]
    if credentials is None and not is_local(address):
        credentials = grpc.ssl_channel_credentials()
    return connect(address, credentials, options)


def _with_request_id(request: _Request) -> _Request:
    if "request_id" not in request.DESCRIPTOR.fields_by_name or getattr(request, "request_id"):  # noqa: B009 - by name
        return request
    copy = type(request)()
    copy.CopyFrom(request)
    setattr(copy, "request_id", str(uuid4()))  # noqa: B010 - by name
    return copy


def _bearer(token: str) -> tuple[tuple[str, str], ...]:
    return (("authorization", f"Bearer {token}"),)


def _left(until: float) -> float:
    return max(until - asyncio.get_running_loop().time(), 0.0)
