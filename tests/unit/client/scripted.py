"""A server that speaks Parley's wire and follows a script: real gRPC, real signatures, and failures to order."""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.message import Message
from grpc_status import rpc_status

from parley.audit.v1 import audit_pb2 as auditpb
from parley.broker.v1 import broker_pb2 as brokerpb
from parley.identity.v1 import identity_pb2 as identitypb
from parley_client.backoff import Backoff
from parley_client.connection import Connection, Credential
from parley_crypto.jws import StatementInvalid
from parley_crypto.keyfiles import write_key
from parley_crypto.signing import Sealer, Signer
from parley_crypto.statements import TOKEN_LIFE, Token, issue_token, verify_assertion, verify_token
from parley_crypto.trust import Trust
from parley_kit.faults import Fault, Unauthenticated, Unavailable
from parley_rpc.status import ForeignFault, to_status
from tests.support.clocks import StillClock

MARKETER = "marketers/" + "m" * 26
MARKETER_KEY, SEALER = Signer(b"m" * 32), Sealer(b"x" * 32)
IDENTITY, CONSENT, VAULT = Signer(b"i" * 32), Signer(b"c" * 32), Signer(b"v" * 32)
TRUST = Trust(
    {
        "identity": {IDENTITY.key_id: IDENTITY.public_key},
        "consent": {CONSENT.key_id: CONSENT.public_key},
        "vault": {VAULT.key_id: VAULT.public_key},
    },
    {},
)
QUICK = Backoff(first=0.001, most=0.01)
HANGS = object()
"""In a script: say nothing more, and keep the stream open."""


class Script:
    """
    What the server does: ``failures`` come first, one for each call; ``turns`` are the feed's, one for each opening.

    It notes what it was asked: ``requests`` (whole), ``resumed`` (resume tokens), ``sign_ins``.
    """

    def __init__(self, clock: StillClock) -> None:
        self.clock = clock
        self.failures: list[Fault | object] = []
        self.turns: list[list[object]] = []
        self.answers: dict[str, list[Message]] = {}
        self.requests: list[Any] = []
        self.resumed: list[str] = []
        self.sign_ins = 0
        self.sign_in_failures: list[Fault] = []
        self.refused: set[str] = set()
        self._used: set[str] = set()
        self._tokens: set[str] = set()

    def refuse_all_tokens(self) -> None:
        """As after a change of identity's key."""
        self.refused |= self._tokens

    async def sign_in(self, request: identitypb.SignInRequest, context: Any) -> identitypb.SignInResponse:
        self.sign_ins += 1
        await asyncio.sleep(0)
        await self._check_assertion(request.assertion, context)
        if self.sign_in_failures:
            await refuse(context, self.sign_in_failures.pop(0))
        now = self.clock.now()
        answer = identitypb.SignInResponse()
        for service in ("broker", "identity"):
            subject = f"{MARKETER}#{self.sign_ins}"  # so that no two tokens are equal
            token = answer.tokens.add(service=service)
            token.token = issue_token(IDENTITY, Token("marketer", subject), service, now)
            token.expire_time.FromDatetime(now + TOKEN_LIFE)
            self._tokens.add(token.token)
        return answer

    async def _check_assertion(self, assertion: str, context: Any) -> None:
        keys = {MARKETER: {MARKETER_KEY.key_id: MARKETER_KEY.public_key}}
        try:
            found = verify_assertion(assertion, lambda subject: keys.get(subject, {}), self.clock.now())
        except StatementInvalid:
            await refuse(context, Unauthenticated())
            raise
        if found.jti in self._used:
            await refuse(context, Unauthenticated())
        self._used.add(found.jti)

    async def answer(self, request: Any, context: Any) -> Message:
        if not isinstance(request, auditpb.GetProofRequest):
            await self._check_token(context)
        self.requests.append(request)
        if self.failures:
            failure = self.failures.pop(0)
            if failure is HANGS:
                await asyncio.Event().wait()
            assert isinstance(failure, Fault)
            await refuse(context, failure)
        return self.answers[type(request).__name__].pop(0)

    async def deliveries(
        self, request: brokerpb.DeliveriesRequest, context: Any
    ) -> AsyncIterator[brokerpb.DeliveriesResponse]:
        self.resumed.append(request.resume_token)
        await self._check_token(context)
        for step in self.turns.pop(0) if self.turns else [HANGS]:
            if step is HANGS:
                await asyncio.Event().wait()
            if isinstance(step, Fault):
                await refuse(context, step)
            assert isinstance(step, brokerpb.Delivery)
            yield brokerpb.DeliveriesResponse(deliveries=[step])

    async def _check_token(self, context: Any) -> None:
        token = dict(context.invocation_metadata()).get("authorization", "").removeprefix("Bearer ")
        try:
            verify_token(token, TRUST.keys("identity"), "broker", self.clock.now())
        except StatementInvalid:
            await refuse(context, Unauthenticated())
        if token in self.refused:
            await refuse(context, Unauthenticated())


async def refuse(context: Any, fault: Fault) -> None:
    if isinstance(fault, ForeignFault):  # as what stands between says it: a code, and no details
        await context.abort(grpc.StatusCode[fault.code.name], fault.message)
    await context.abort_with_status(rpc_status.to_status(to_status(fault)))


def unavailable(times: int) -> list[Fault | object]:
    return [Unavailable() for _ in range(times)]


@asynccontextmanager
async def serving(script: Script) -> AsyncIterator[str]:
    """Serve a script on a unix socket; its address."""
    with tempfile.TemporaryDirectory() as directory:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers(handlers(script))
        address = f"unix:{directory}/s"
        server.add_insecure_port(address)
        await server.start()
        try:
            yield address
        finally:
            await server.stop(0)


@asynccontextmanager
async def connected(script: Script, credential: Credential | None = None, **options: Any) -> AsyncIterator[Connection]:
    """A connection to a server that follows the script."""
    options = {"deadline": timedelta(seconds=5), "backoff": QUICK, **options}
    credential = credential or Credential(MARKETER, MARKETER_KEY)
    async with serving(script) as address, Connection(address, credential, clock=script.clock, **options) as connection:
        yield connection


def handlers(script: Script) -> Iterable[grpc.GenericRpcHandler]:
    answered = {
        "CreateExchange": brokerpb.CreateExchangeRequest,
        "GetExchange": brokerpb.GetExchangeRequest,
        "ListExchanges": brokerpb.ListExchangesRequest,
        "AcknowledgeDeliveries": brokerpb.AcknowledgeDeliveriesRequest,
    }
    methods = {name: unary(script.answer, kind) for name, kind in answered.items()}
    methods["Deliveries"] = grpc.unary_stream_rpc_method_handler(
        script.deliveries,
        request_deserializer=brokerpb.DeliveriesRequest.FromString,
        response_serializer=serialized,
    )
    return [
        grpc.method_handlers_generic_handler("parley.broker.v1.BrokerService", methods),
        grpc.method_handlers_generic_handler(
            "parley.identity.v1.IdentityService", {"SignIn": unary(script.sign_in, identitypb.SignInRequest)}
        ),
        grpc.method_handlers_generic_handler(
            "parley.audit.v1.AuditService", {"GetProof": unary(script.answer, auditpb.GetProofRequest)}
        ),
    ]


def unary(behaviour: Any, kind: type[Message]) -> Any:
    return grpc.unary_unary_rpc_method_handler(
        behaviour, request_deserializer=kind.FromString, response_serializer=serialized
    )


def serialized(message: Message) -> bytes:
    return message.SerializeToString()


def marketer_files(directory: Path, policy: bytes) -> dict[str, str]:
    """Everything a client reads, as its environment."""

    write_key(directory / "signing", MARKETER_KEY.seed)
    write_key(directory / "sealing", SEALER.private_key)
    (directory / "trust").write_text(TRUST.dump())
    (directory / "policy").write_bytes(policy)
    return {
        "PARLEY_ADDRESS": "unix:/nowhere",
        "PARLEY_MARKETER": MARKETER,
        "PARLEY_SIGNING_KEY_FILE": str(directory / "signing"),
        "PARLEY_SEALING_KEY_FILE": str(directory / "sealing"),
        "PARLEY_TRUST_FILE": str(directory / "trust"),
        "PARLEY_POLICY_FILE": str(directory / "policy"),
    }
