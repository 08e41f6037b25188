"""People on the command line: a customer, the staff, and the keys they keep in files of their own."""

import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from parley.audit.v1 import audit_pb2 as auditpb
from parley.audit.v1.audit_pb2_grpc import AuditServiceStub
from parley.common.v1 import terms_pb2 as termspb
from parley.consent.v1 import consent_pb2 as consentpb
from parley.consent.v1.consent_pb2_grpc import ConsentServiceStub
from parley.identity.v1 import identity_pb2 as identitypb
from parley.identity.v1.identity_pb2_grpc import IdentityServiceStub
from parley.vault.v1 import vault_pb2 as vaultpb
from parley.vault.v1.vault_pb2_grpc import VaultServiceStub
from parley_client.connection import Connection, Credential
from parley_crypto.keyfiles import read_key
from parley_crypto.signing import Signer
from parley_node.home import Home
from parley_terms.values import Catalogue
from parley_terms.wire import attribute_from

_PAGE = 100


@dataclass(frozen=True)
class Customer:
    """A customer's own acts, signed in."""

    connection: Connection

    @property
    def _vault(self) -> VaultServiceStub:
        return VaultServiceStub(self.connection.channel)

    @property
    def _consent(self) -> ConsentServiceStub:
        return ConsentServiceStub(self.connection.channel)

    async def put(self, items: Mapping[str, str]) -> Sequence[vaultpb.ItemVersion]:
        """Put values by attribute, all or none."""
        values = [vaultpb.ItemValue(attribute=name, value=value) for name, value in items.items()]
        request = vaultpb.PutItemsRequest(items=values)
        return (await self.connection.call(self._vault.PutItems, request, service="vault")).versions

    async def items(self) -> list[vaultpb.Item]:
        """Everything in the bank, by attribute."""
        return [
            item
            async for page in self._pages(self._vault.ListItems, vaultpb.ListItemsRequest(), "vault")
            for item in page.items
        ]

    async def versions(self, attribute: str) -> Sequence[vaultpb.Item]:
        """Every version of an item, newest first."""
        request = vaultpb.ListItemVersionsRequest(name=f"items/{attribute}")
        return (await self.connection.call(self._vault.ListItemVersions, request, service="vault")).items

    async def delete(self, attribute: str) -> None:
        """Delete an item with its history."""
        request = vaultpb.DeleteItemRequest(name=f"items/{attribute}")
        await self.connection.call(self._vault.DeleteItem, request, service="vault")

    async def discoverable(self, attribute: str, level: int) -> vaultpb.Item:
        """Let marketers of a level and above match on an item; 0: nobody."""
        request = vaultpb.SetDiscoverableRequest(
            name=f"items/{attribute}", discoverable_to=termspb.VerificationLevel.ValueType(level)
        )
        return await self.connection.call(self._vault.SetDiscoverable, request, service="vault")

    async def add_rule(self, rule: consentpb.Rule) -> consentpb.Rule:
        """Add a standing rule."""
        request = consentpb.CreateRuleRequest(rule=rule)
        return await self.connection.call(self._consent.CreateRule, request, service="consent")

    async def rules(self) -> list[consentpb.Rule]:
        """Standing rules, newest first."""
        return [
            rule
            async for page in self._pages(self._consent.ListRules, consentpb.ListRulesRequest(), "consent")
            for rule in page.rules
        ]

    async def objected(self) -> Timestamp | None:
        """When the customer objected to all marketing; None where they don't."""
        request = consentpb.ListRulesRequest(page_size=1)
        answer = await self.connection.call(self._consent.ListRules, request, service="consent")
        return answer.object_time if answer.HasField("object_time") else None

    async def end_rule(self, name: str) -> None:
        """End a rule."""
        await self.connection.call(self._consent.DeleteRule, consentpb.DeleteRuleRequest(name=name), service="consent")

    async def offers(self, *, open_only: bool = True) -> list[consentpb.Offer]:
        """The inbox, newest first."""
        request = consentpb.ListOffersRequest(open_only=open_only)
        return [
            offer async for page in self._pages(self._consent.ListOffers, request, "consent") for offer in page.offers
        ]

    async def accept(self, name: str) -> consentpb.AcceptOfferResponse:
        """Accept an offer."""
        request = consentpb.AcceptOfferRequest(name=name)
        return await self.connection.call(self._consent.AcceptOffer, request, service="consent")

    async def refuse(self, name: str) -> None:
        """Refuse an offer."""
        request = consentpb.RefuseOfferRequest(name=name)
        await self.connection.call(self._consent.RefuseOffer, request, service="consent")

    async def defer(self, name: str) -> None:
        """Put an offer aside."""
        await self.connection.call(self._consent.DeferOffer, consentpb.DeferOfferRequest(name=name), service="consent")

    async def consents(self) -> list[consentpb.Consent]:
        """What was agreed, newest first."""
        return [
            consent
            async for page in self._pages(self._consent.ListConsents, consentpb.ListConsentsRequest(), "consent")
            for consent in page.consents
        ]

    async def consent(self, name: str) -> consentpb.Consent:
        """One consent with its releases."""
        request = consentpb.GetConsentRequest(name=name)
        return await self.connection.call(self._consent.GetConsent, request, service="consent")

    async def settlements(self, consent: str) -> list[consentpb.Settlement]:
        """All releases made under a consent, newest first."""
        request = consentpb.ListSettlementsRequest(parent=consent)
        return [
            settlement
            async for page in self._pages(self._consent.ListSettlements, request, "consent")
            for settlement in page.settlements
        ]

    async def withdraw(self, name: str) -> consentpb.WithdrawConsentResponse:
        """Withdraw a consent."""
        request = consentpb.WithdrawConsentRequest(name=name)
        return await self.connection.call(self._consent.WithdrawConsent, request, service="consent")

    async def pause(self, name: str) -> consentpb.Consent:
        """Suspend a consent."""
        request = consentpb.PauseConsentRequest(name=name)
        return (await self.connection.call(self._consent.PauseConsent, request, service="consent")).consent

    async def resume(self, name: str) -> consentpb.Consent:
        """End a pause."""
        request = consentpb.ResumeConsentRequest(name=name)
        return (await self.connection.call(self._consent.ResumeConsent, request, service="consent")).consent

    async def object(self) -> int:
        """Object to all marketing; answers how many consents this ended."""
        request = consentpb.ObjectToMarketingRequest()
        return (await self.connection.call(self._consent.ObjectToMarketing, request, service="consent")).ended_count

    async def lift_objection(self) -> None:
        """Lift the objection."""
        await self.connection.call(self._consent.LiftObjection, consentpb.LiftObjectionRequest(), service="consent")

    async def history(self) -> list[auditpb.HistoryEntry]:
        """What happened to this customer's information, newest first."""
        stub = AuditServiceStub(self.connection.channel)
        return [
            entry
            async for page in self._pages(stub.ListHistory, auditpb.ListHistoryRequest(), "audit")
            for entry in page.entries
        ]

    async def _pages(self, method: Any, request: Any, service: str) -> AsyncIterator[Any]:
        """A list, page by page, to its end."""
        request.page_size = _PAGE
        while True:
            page = await self.connection.call(method, request, service=service)
            yield page
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token


async def register(connection: Connection, signer: Signer) -> str:
    """Open an account for a key; returns the name to sign in with."""
    stub = IdentityServiceStub(connection.channel)
    request = identitypb.RegisterCustomerRequest(public_key=signer.public_key)
    return (await connection.call(stub.RegisterCustomer, request)).customer


async def claim(connection: Connection, code: str, signer: Signer) -> str:
    """Bind an imported account to a key; returns the name to sign in with."""
    stub = IdentityServiceStub(connection.channel)
    request = identitypb.ClaimAccountRequest(claim_code=code, public_key=signer.public_key)
    return (await connection.call(stub.ClaimAccount, request)).customer


@asynccontextmanager
async def customer(
    address: str, name: str, signer: Signer, channel: grpc.aio.Channel | None = None
) -> AsyncIterator[Customer]:
    """Act as a customer, over a channel of their own or one that is shared."""
    async with Connection(address, Credential(name, signer), channel=channel) as connection:
        yield Customer(connection)


@asynccontextmanager
async def staff(address: str, home: Home, role: str) -> AsyncIterator[Connection]:
    """Act as the operator or the importer of a home."""
    signer = Signer(read_key(home.staff_key(role)))
    async with Connection(address, Credential(f"{role}s/local", signer)) as connection:
        yield connection


async def register_marketer(
    connection: Connection, *, name: str, entity: str, contact: str, level: int, signing_key: bytes, sealing_key: bytes
) -> identitypb.Marketer:
    """Register a marketer, as the operator."""
    request = identitypb.RegisterMarketerRequest(
        display_name=name,
        legal_entity=entity,
        verification_level=termspb.VerificationLevel.ValueType(level),
        contact=contact,
        sealing_key=sealing_key,
        signing_key=signing_key,
    )
    stub = IdentityServiceStub(connection.channel)
    return await connection.call(stub.RegisterMarketer, request, service="identity")


async def catalogue(connection: Connection) -> Catalogue:
    """The attributes that values are checked against."""
    stub = VaultServiceStub(connection.channel)
    answer = await connection.call(stub.ListAttributes, vaultpb.ListAttributesRequest())
    return {one.name: attribute_from(one) for one in answer.attributes}


def new_signer() -> Signer:
    """A fresh key."""
    return Signer(secrets.token_bytes(32))
