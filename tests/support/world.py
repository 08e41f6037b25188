"""
A whole Parley, and the people in it, on the wire and with real keys.

It runs in the test's own process, or with ``PARLEY_NODE=split`` in one process per service, as `parley up --split` runs it.
"""

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from types import MappingProxyType
from typing import Any

import grpc

from parley.audit.v1 import audit_pb2_grpc
from parley.broker.v1 import broker_pb2 as brokerpb
from parley.broker.v1 import broker_pb2_grpc
from parley.common.v1 import terms_pb2 as termspb
from parley.consent.v1 import consent_pb2 as consentpb
from parley.consent.v1 import consent_pb2_grpc
from parley.identity.v1 import identity_pb2 as identitypb
from parley.identity.v1 import identity_pb2_grpc
from parley.vault.v1 import vault_pb2 as vaultpb
from parley.vault.v1 import vault_pb2_grpc
from parley_crypto.release import open_release
from parley_crypto.signing import Sealer, Signer
from parley_crypto.statements import make_assertion
from parley_crypto.trust import Trust
from parley_kit.telemetry import Tracer
from parley_node.home import Home
from parley_node.node import Node, Options, run
from parley_node.split import ApartNode, Doors, run_apart
from parley_node.stores import Servers
from parley_rpc.channels import RoutedChannel, connect, dial
from parley_rpc.logs import logger
from parley_rpc.peers import Credentials
from parley_rpc.platform import Service
from tests.support.calls import request_id
from tests.support.waiting import until

MARKETING = "https://w3id.org/dpv#Marketing"
Metadata = tuple[tuple[str, str], ...]


def soon(**span: float) -> datetime:
    """A moment so far from now."""
    return datetime.now(UTC) + timedelta(**span)


@dataclass
class Stubs:
    """Every service, over one channel."""

    channel: grpc.aio.Channel

    def __post_init__(self) -> None:
        self.identity: Any = identity_pb2_grpc.IdentityServiceStub(self.channel)
        self.vault: Any = vault_pb2_grpc.VaultServiceStub(self.channel)
        self.consent: Any = consent_pb2_grpc.ConsentServiceStub(self.channel)
        self.broker: Any = broker_pb2_grpc.BrokerServiceStub(self.channel)
        self.audit: Any = audit_pb2_grpc.AuditServiceStub(self.channel)


@dataclass
class Caller:
    """Somebody who is signed in."""

    stubs: Stubs
    name: str
    signer: Signer = field(repr=False)
    tokens: Mapping[str, Metadata] = field(default_factory=dict, repr=False)

    async def sign_in(self) -> None:
        """Trade an assertion for tokens."""
        assertion = make_assertion(self.signer, self.name, secrets.token_hex(16), datetime.now(UTC))
        answer = await self.stubs.identity.SignIn(identitypb.SignInRequest(assertion=assertion))
        self.tokens = {token.service: (("authorization", f"Bearer {token.token}"),) for token in answer.tokens}

    async def call(self, service: str, method: str, request: Any, **options: Any) -> Any:
        """Call a method of a service with the token for it."""
        stub = getattr(getattr(self.stubs, service), method)
        return await stub(request, metadata=self.tokens.get(service, ()), **options)


class Customer(Caller):
    """A customer."""

    async def put(self, **items: str) -> None:
        """Put items; ``profile_age="34"`` is ``profile.age``."""
        values = [vaultpb.ItemValue(attribute=_dotted(name), value=value) for name, value in items.items()]
        await self.call("vault", "PutItems", vaultpb.PutItemsRequest(items=values, request_id=request_id()))

    async def discoverable(self, *names: str, to: int = 1) -> None:
        """Let marketers of a level and above match on items."""
        for name in names:
            request = vaultpb.SetDiscoverableRequest(
                name=f"items/{_dotted(name)}",
                discoverable_to=termspb.VerificationLevel.ValueType(to),
                request_id=request_id(),
            )
            await self.call("vault", "SetDiscoverable", request)

    async def offers(self) -> Sequence[consentpb.Offer]:
        """The open offers."""
        answer = await self.call("consent", "ListOffers", consentpb.ListOffersRequest(open_only=True))
        return list(answer.offers)

    async def offer(self) -> consentpb.Offer:
        """Wait for an offer."""
        await until(self.offers)
        return (await self.offers())[0]

    async def accept(self, offer: consentpb.Offer) -> consentpb.Consent:
        """Accept an offer."""
        request = consentpb.AcceptOfferRequest(name=offer.name, request_id=request_id())
        answer: consentpb.AcceptOfferResponse = await self.call("consent", "AcceptOffer", request)
        return answer.consent

    async def withdraw(self, consent: str) -> consentpb.Consent:
        """Withdraw a consent."""
        request = consentpb.WithdrawConsentRequest(name=consent, request_id=request_id())
        answer: consentpb.WithdrawConsentResponse = await self.call("consent", "WithdrawConsent", request)
        return answer.consent

    async def rule(
        self, effect: int, terms: termspb.Terms | None = None, *, marketer: str = "", level: int = 0
    ) -> consentpb.Rule:
        """Make a rule, for everyone unless said otherwise."""
        scope = consentpb.RuleScope(everyone=consentpb.Everyone())
        if marketer:
            scope = consentpb.RuleScope(marketer=marketer)
        elif level:
            scope = consentpb.RuleScope(least_level=termspb.VerificationLevel.ValueType(level))
        rule = consentpb.Rule(
            effect=consentpb.RuleEffect.ValueType(effect), scope=scope, terms=terms or termspb.Terms()
        )
        request = consentpb.CreateRuleRequest(rule=rule, request_id=request_id())
        made: consentpb.Rule = await self.call("consent", "CreateRule", request)
        return made


@dataclass
class Marketer(Caller):
    """A marketer."""

    sealer: Sealer = field(default_factory=lambda: Sealer(secrets.token_bytes(32)), repr=False)

    async def ask(self, request: brokerpb.CreateExchangeRequest) -> brokerpb.CreateExchangeResponse:
        """Make an exchange."""
        answer: brokerpb.CreateExchangeResponse = await self.call("broker", "CreateExchange", request)
        return answer

    @asynccontextmanager
    async def feed(self, resume_token: str = "") -> AsyncIterator[AsyncIterator[brokerpb.Delivery]]:
        """The feed, without its heartbeats."""
        stream = self.stubs.broker.Deliveries(
            brokerpb.DeliveriesRequest(resume_token=resume_token), metadata=self.tokens["broker"]
        )

        async def messages() -> AsyncIterator[brokerpb.Delivery]:
            async for message in stream:
                for delivery in message.deliveries:
                    if delivery.name:
                        yield delivery

        try:
            yield messages()
        finally:
            stream.cancel()

    async def collect(self, count: int, seconds: float = 30.0) -> list[brokerpb.Delivery]:
        """The first so many deliveries of the feed."""
        found: list[brokerpb.Delivery] = []
        async with asyncio.timeout(seconds), self.feed() as feed:
            async for delivery in feed:
                found.append(delivery)
                if len(found) == count:
                    break
        return found

    async def collect_for(self, seconds: float) -> list[brokerpb.Delivery]:
        """What the feed holds and brings within so many seconds."""
        found: list[brokerpb.Delivery] = []
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds), self.feed() as feed:
                async for delivery in feed:
                    found.append(delivery)  # noqa: PERF401 - what came before the time was up counts
        return found

    async def acknowledge(self, *deliveries: brokerpb.Delivery) -> None:
        """Acknowledge deliveries."""
        names = [delivery.name for delivery in deliveries]
        await self.call("broker", "AcknowledgeDeliveries", brokerpb.AcknowledgeDeliveriesRequest(names=names))


@dataclass
class World:
    """A running node and how to bring people into it."""

    home: Home
    node: Node | ApartNode
    stubs: Stubs
    log: StringIO
    callers: dict[str, grpc.aio.Channel] = field(default_factory=dict)

    @property
    def apart(self) -> bool:
        """Whether its services run apart."""
        return isinstance(self.node, ApartNode)

    @property
    def services(self) -> Mapping[str, Service]:
        """The services' insides, for tests that look there: in one process only."""
        assert isinstance(self.node, Node), "PARLEY_NODE=split: other processes have no insides"
        return self.node.services

    def calling(self, name: str) -> grpc.aio.Channel:
        """A channel on which a service calls: declared in one process, by its certificate where services run apart."""
        if isinstance(self.node, Node):
            return self.node.hub.channel(name)
        if name not in self.callers:
            self.callers[name] = calling(self.home, name)
        return self.callers[name]

    @property
    def trust(self) -> Trust:
        """The key set."""
        return Trust.load(self.home.trust)

    @property
    def servers(self) -> Servers:
        """Its PostgreSQL and Valkey."""
        return self.node.servers

    @property
    def logged(self) -> str:
        """What it logged so far."""
        return self.log.getvalue()

    async def staff(self, role: str) -> Caller:
        """The operator or the importer."""
        caller = Caller(self.stubs, f"{role}s/local", Signer.load(self.home.staff_key(role)))
        await caller.sign_in()
        return caller

    async def customer(self) -> Customer:
        """A new customer."""
        signer = Signer(secrets.token_bytes(32))
        request = identitypb.RegisterCustomerRequest(public_key=signer.public_key, request_id=request_id())
        answer = await self.stubs.identity.RegisterCustomer(request)
        customer = Customer(self.stubs, answer.customer, signer)
        await customer.sign_in()
        return customer

    async def marketer(self, *, level: int = 2, entity: str = "") -> Marketer:
        """A new marketer of a verification level."""
        operator = await self.staff("operator")
        marketer = Marketer(self.stubs, "", Signer(secrets.token_bytes(32)))
        request = registration(marketer.sealer, marketer.signer, level=level, entity=entity)
        answer = await operator.call("identity", "RegisterMarketer", request)
        marketer.name = answer.name
        await marketer.sign_in()
        return marketer

    def opened(self, marketer: Marketer, delivery: brokerpb.Delivery) -> dict[str, Any]:
        """What a release says."""
        return open_release(marketer.sealer, delivery.release.sealed_release, self.trust.keys("vault"))


@asynccontextmanager
async def living_world(
    root: Path, options: Options | None = None, *, apart: bool | None = None, tracer: Tracer | None = None
) -> AsyncIterator[World]:
    """
    Run a node on a home at ``root``, on any free ports; ``apart`` or not as the environment says, unless it is given.

    ``tracer`` has the spans of one that runs in this process.
    """
    log, home, options = StringIO(), Home(root), options or quick()
    apart = os.environ.get("PARLEY_NODE") == "split" if apart is None else apart
    say = logger("node", stream=log)
    running: AbstractAsyncContextManager[Node | ApartNode] = (
        run_apart(home, options, say) if apart else run(home, options, say, tracer=tracer)
    )
    async with running as node, connect(node.running.address) as channel:
        world = World(home, node, Stubs(channel), log)
        yield world
        for caller in world.callers.values():
            await caller.close()


def registration(
    sealer: Sealer, signer: Signer, *, level: int = 2, entity: str = ""
) -> identitypb.RegisterMarketerRequest:
    """What registers a new marketer, of a verification level."""
    marketer_id = secrets.token_hex(4)
    return identitypb.RegisterMarketerRequest(
        display_name=f"Marketer {marketer_id}",
        legal_entity=entity or f"Marketer {marketer_id} Ltd",
        verification_level=termspb.VerificationLevel.ValueType(level),
        contact="privacy@marketer.example",
        sealing_key=sealer.public_key,
        signing_key=signer.public_key,
        request_id=request_id(),
    )


def calling(home: Home, name: str) -> grpc.aio.Channel:
    """A channel to the services' doors for each other, on which a service of a home calls with what is in its own keys."""
    doors, certificate = Doors.of(home), home.tls_certificate(name)
    credentials = Credentials.load(certificate, home.tls_key(name), home.tls_authority).client()
    return RoutedChannel(lambda service: dial(doors.peers(service), credentials, server_name=service))


def quick(
    *,
    processes: Mapping[str, int] = MappingProxyType({}),
    faults: Callable[[str], str] = lambda _process: "",
    **settings: Mapping[str, Any],
) -> Options:
    """Options for tests: any free ports, notices at once."""
    notices = {"consent": {"longest_notice_delay": timedelta(0)}}
    merged = {name: {**notices.get(name, {}), **settings.get(name, {})} for name in {*notices, *settings}}
    return Options(port=0, http_port=0, settings=merged, processes=processes, faults=faults)


def terms(
    *exact: str,
    purposes: Sequence[str] = (MARKETING,),
    channels: Sequence[int] = (termspb.CHANNEL_DATA, termspb.CHANNEL_WEB_INBOX),
    use: int = termspb.USE_STANDING,
    valid_for: timedelta = timedelta(days=30),
    decide_within: timedelta | None = timedelta(days=7),
    questions: Sequence[tuple[str, termspb.Question]] = (),
) -> termspb.Terms:
    """A request's terms (a rule's, with ``decide_within=None``): exact values of attributes, and answers to questions."""
    message = termspb.Terms(purposes=purposes)
    for name in exact:
        message.content.fields.add(attribute=name, form=termspb.FORM_EXACT)
    for name, question in questions:
        message.content.fields.add(attribute=name, form=termspb.FORM_ANSWER, question=question)
    message.content.use = termspb.Use.ValueType(use)
    message.mode.channels.extend(termspb.Channel.ValueType(channel) for channel in channels)
    message.timing.validity.end_time.FromDatetime(datetime.now(UTC) + valid_for)
    if decide_within is not None:
        message.timing.decision_deadline.FromDatetime(datetime.now(UTC) + decide_within)
    return message


def between(attribute: str, least: str, most: str) -> termspb.Criteria:
    """A criterion: a value between two."""
    question = termspb.Question(range=termspb.Range(min=least, max=most))
    return termspb.Criteria(test=termspb.Criterion(attribute=attribute, question=question))


def one_of(attribute: str, *values: str) -> termspb.Criteria:
    """A criterion: one of these."""
    question = termspb.Question(one_of=termspb.OneOf(values=sorted(values)))
    return termspb.Criteria(test=termspb.Criterion(attribute=attribute, question=question))


def all_of(*criteria: termspb.Criteria) -> termspb.Criteria:
    """Criteria taken together."""
    return termspb.Criteria(all_of=termspb.CriteriaList(criteria=criteria))


def by_criteria(asked: termspb.Terms, criteria: termspb.Criteria, text: str = "") -> brokerpb.CreateExchangeRequest:
    """A request to whoever meets criteria."""
    return brokerpb.CreateExchangeRequest(
        terms=asked, audience=brokerpb.Audience(criteria=criteria), offer_text=text, request_id=request_id()
    )


def to_known(asked: termspb.Terms, *pseudonyms: str, in_answer: bool = False) -> brokerpb.CreateExchangeRequest:
    """A request to customers the marketer knows."""
    audience = brokerpb.Audience(pseudonyms=brokerpb.Pseudonyms(pseudonyms=pseudonyms))
    return brokerpb.CreateExchangeRequest(
        terms=asked, audience=audience, release_in_answer=in_answer, request_id=request_id()
    )


def _dotted(name: str) -> str:
    head, _, tail = name.partition("_")
    return name if "." in name else f"{head}.{tail}"
