"""Every call that is no mutation, by its RPC: each can be made again and again, and is answered well."""

import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import grpc
from google.protobuf.message import Message

from parley.audit.v1 import audit_pb2 as auditpb
from parley.broker.v1 import broker_pb2 as brokerpb
from parley.consent.v1 import consent_pb2 as consentpb
from parley.identity.v1 import identity_pb2 as identitypb
from parley.vault.v1 import vault_pb2 as vaultpb
from parley_crypto.statements import make_assertion
from tests.support.api import RPCS, Deal, Rpc, deal_of
from tests.support.carried import ASKED, Carried, carried
from tests.support.mutations import MUTATIONS
from tests.support.waiting import until
from tests.support.world import Caller, Customer, World, between, by_criteria, terms

QUESTIONS: Mapping[str, Rpc] = {str(rpc): rpc for rpc in RPCS if rpc not in MUTATIONS}
_AGE = "35"
_IMPORT, _ROW = "some", "a row"


@dataclass(frozen=True)
class Company:
    """Two who have a deal, an offer beside it, an import, and what broker carries of it all."""

    world: World
    deal: Deal
    carried: Carried
    offer: str
    importer: Caller
    commitment: bytes

    @classmethod
    async def of(cls, world: World) -> "Company":
        """One whose customer is 35 years old."""
        deal = await deal_of(world, _AGE)
        await deal.marketer.ask(by_criteria(terms("profile.language"), between("profile.age", _AGE, _AGE)))
        importer = await world.staff("importer")
        opened = identitypb.OpenImportedAccountsRequest(row_keys=[_ROW], **{"import": _IMPORT})
        await importer.call("identity", "OpenImportedAccounts", opened)
        return cls(
            world=world,
            deal=deal,
            carried=await carried(world, deal, _AGE),
            offer=(await deal.customer.offer()).name,
            importer=importer,
            commitment=await _logged(deal.customer),
        )

    async def sign_in(self) -> None:
        """Sign everybody in; tokens live for minutes."""
        for caller in (self.deal.customer, self.deal.marketer, self.importer):
            await caller.sign_in()

    async def ask(self, name: str, seconds: float) -> None:
        """Make a call by its RPC, with so many seconds; a stream is read to its end."""
        rpc, (caller, request) = QUESTIONS[name], _ASKED[name](self)
        channel: Any = self.world.stubs.channel if caller else self.world.calling("broker")
        options = {"metadata": caller.tokens.get(rpc.service, ()) if caller else (), "timeout": seconds}
        if rpc.method.server_streaming:
            async for _ in channel.unary_stream(rpc.path, bytes, bytes)(request.SerializeToString(), **options):
                pass
        else:
            await channel.unary_unary(rpc.path, bytes, bytes)(request.SerializeToString(), **options)


async def _logged(customer: Customer) -> bytes:
    """The commitment of something that the customer did, once it can be proven."""

    async def proven() -> bytes:
        history = await customer.call("audit", "ListHistory", auditpb.ListHistoryRequest())
        for entry in history.entries:
            with suppress(grpc.aio.AioRpcError):  # no checkpoint covers it yet
                await customer.call("audit", "GetProof", auditpb.GetProofRequest(commitment=entry.commitment))
                return bytes(entry.commitment)
        return b""

    await until(proven, 30)
    return await proven()


# --- What is asked, and by whom: broker, where nobody is named -------------------------------------------------------------

Asked = Callable[[Company], tuple[Caller | None, Message]]


def _customers(request: Callable[[Company], Message]) -> Asked:
    return lambda company: (company.deal.customer, request(company))


def _marketers(request: Callable[[Company], Message]) -> Asked:
    return lambda company: (company.deal.marketer, request(company))


def _importers(request: Callable[..., Message]) -> Asked:
    return lambda company: (company.importer, request(row_keys=[_ROW], **{"import": _IMPORT}))


def _brokers(request: Callable[[Carried], Message]) -> Asked:
    return lambda company: (None, request(company.carried))


def _assertion(company: Company) -> Message:
    """One that is used once."""
    who = company.deal.customer
    assertion = make_assertion(who.signer, who.name, secrets.token_hex(16), datetime.now(UTC))
    return identitypb.SignInRequest(assertion=assertion)


def _deciding(own: Carried) -> consentpb.DecideRequest:
    entry = consentpb.DecideEntry(consent_ref=own.consent_ref, audit_ref=own.audit_ref)
    return consentpb.DecideRequest(marketer_card=own.card, exchange=own.exchange, terms=ASKED, entries=[entry])


def _settling(own: Carried) -> Message:
    return consentpb.SettleRequest(
        entries=[consentpb.SettleEntry(consent_ref=own.consent_ref, permit=own.permit, batch=own.batch)]
    )


def _opening(own: Carried) -> Message:
    return vaultpb.ReleaseRequest(
        batch=own.batch, entries=[vaultpb.ReleaseEntry(vault_ref=own.vault_ref, permit=own.permit)]
    )


def _matching(own: Carried) -> Message:
    return vaultpb.MatchRequest(
        marketer_card=own.card, exchange=own.exchange, criteria=between("profile.age", _AGE, _AGE)
    )


def _introducing(own: Carried) -> Message:
    return identitypb.IntroduceRequest(marketer=own.marketer, exchange=own.exchange, candidate_refs=[own.candidate_ref])


_CITY = "items/profile.city"
_ASKED: Mapping[str, Asked] = {
    "audit.GetCheckpoint": _customers(lambda _: auditpb.GetCheckpointRequest()),
    "audit.GetProof": _customers(lambda company: auditpb.GetProofRequest(commitment=company.commitment)),
    "audit.ListHistory": _customers(lambda _: auditpb.ListHistoryRequest()),
    "broker.AcknowledgeDeliveries": _marketers(
        lambda company: brokerpb.AcknowledgeDeliveriesRequest(names=[company.deal.delivery.name])
    ),
    "broker.Deliveries": _marketers(lambda _: brokerpb.DeliveriesRequest()),
    "broker.GetExchange": _marketers(
        lambda company: brokerpb.GetExchangeRequest(name=company.deal.delivery.release.exchange)
    ),
    "broker.ListExchanges": _marketers(lambda _: brokerpb.ListExchangesRequest()),
    "consent.BatchDecide": _brokers(lambda own: consentpb.BatchDecideRequest(requests=[_deciding(own)])),
    "consent.Decide": _brokers(_deciding),
    "consent.GetConsent": _customers(lambda company: consentpb.GetConsentRequest(name=company.deal.consent)),
    "consent.GetOffer": _customers(lambda company: consentpb.GetOfferRequest(name=company.offer)),
    "consent.ListConsents": _customers(lambda _: consentpb.ListConsentsRequest()),
    "consent.ListOffers": _customers(lambda _: consentpb.ListOffersRequest()),
    "consent.ListRules": _customers(lambda _: consentpb.ListRulesRequest()),
    "consent.ListSettlements": _customers(
        lambda company: consentpb.ListSettlementsRequest(parent=company.deal.consent)
    ),
    "consent.Settle": _brokers(_settling),
    "identity.CompleteImportedAccounts": _importers(identitypb.CompleteImportedAccountsRequest),
    "identity.GetKeySet": _customers(lambda _: identitypb.GetKeySetRequest()),
    "identity.GetMarketer": _customers(lambda company: identitypb.GetMarketerRequest(name=company.deal.marketer.name)),
    "identity.GetMarketerCard": _brokers(lambda own: identitypb.GetMarketerCardRequest(name=own.marketer)),
    "identity.Introduce": _brokers(_introducing),
    "identity.OpenImportedAccounts": _importers(identitypb.OpenImportedAccountsRequest),
    "identity.SignIn": _customers(_assertion),
    "vault.GetItem": _customers(lambda _: vaultpb.GetItemRequest(name=_CITY)),
    "vault.ListAttributes": _customers(lambda _: vaultpb.ListAttributesRequest()),
    "vault.ListItemVersions": _customers(lambda _: vaultpb.ListItemVersionsRequest(name=_CITY)),
    "vault.ListItems": _customers(lambda _: vaultpb.ListItemsRequest()),
    "vault.Match": _brokers(_matching),
    "vault.Release": _brokers(_opening),
}
assert _ASKED.keys() == QUESTIONS.keys()
