"""Every mutation that there is, by its RPC: each with what must be there first, so that it can be made again and again."""

import asyncio
import json
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

from google.protobuf.message import Message

from parley.broker.v1 import broker_pb2 as brokerpb
from parley.common.v1 import terms_pb2 as termspb
from parley.consent.v1 import consent_pb2 as consentpb
from parley.identity.v1 import identity_pb2 as identitypb
from parley.vault.v1 import vault_pb2 as vaultpb
from parley_crypto.signing import Sealer, Signer
from parley_node.provision import key_file
from tests.support.api import RPCS
from tests.support.calls import request_id
from tests.support.chaos import ALLOW, population, rows
from tests.support.openings import open_history
from tests.support.races import Known, acquainted
from tests.support.waiting import until
from tests.support.world import Caller, Marketer, World, registration, terms, to_known

MUTATIONS = [rpc for rpc in RPCS if "request_id" in rpc.method.input_type.fields_by_name]


@dataclass(frozen=True)
class Mutation:
    """A mutation to make: whose, and the request."""

    caller: Caller
    request: Message


@dataclass(frozen=True)
class Cast:
    """Who mutates: customers whom a marketer knows, each of whom does one thing at a time, and staff."""

    world: World
    marketer: Marketer
    actors: "asyncio.Queue[Known]"
    importer: Caller
    operator: Caller

    @classmethod
    async def of(cls, world: World, size: int) -> "Cast":
        """So many customers. They are 34 years old, and have told nobody their language."""
        people = await population(world, [{"profile.city": "Lisbon", "profile.age": "34"}] * size, "profile.age")
        for person in people:
            await person.put(profile_language="pt")
        around, actors = await acquainted(world, people), asyncio.Queue[Known]()
        for one in around.known:
            actors.put_nowait(one)
        return cls(world, around.marketer, actors, await world.staff("importer"), await world.staff("operator"))

    async def sign_in(self) -> None:
        """Sign everybody in who isn't busy; tokens live for minutes."""
        free = [self.actors.get_nowait() for _ in range(self.actors.qsize())]
        for one in free:
            await one.customer.sign_in()
            self.actors.put_nowait(one)
        for caller in (self.marketer, self.importer, self.operator):
            await caller.sign_in()

    @asynccontextmanager
    async def mutation(self, name: str) -> AsyncIterator[Mutation]:
        """A mutation by its RPC, ready to be made; whose it is does nothing else meanwhile."""
        actor = await self.actors.get()
        try:
            yield await MAKERS[name](self, actor)
        finally:
            self.actors.put_nowait(actor)


Make = Callable[[Cast, Known], Awaitable[Mutation]]
_EACH_A_MARKETER = dict.fromkeys(("identity.RegisterMarketer", "identity.UpdateMarketer", "identity.AddMarketerKey"), 1)


# --- What customers do -----------------------------------------------------------------------------------------------------


async def _make_rule(_cast: Cast, one: Known) -> Mutation:
    return Mutation(one.customer, consentpb.CreateRuleRequest(rule=_rule(), request_id=request_id()))


async def _delete_rule(_cast: Cast, one: Known) -> Mutation:
    made = await one.customer.call(
        "consent", "CreateRule", consentpb.CreateRuleRequest(rule=_rule(), request_id=request_id())
    )
    return Mutation(one.customer, consentpb.DeleteRuleRequest(name=made.name, request_id=request_id()))


def _rule() -> consentpb.Rule:
    return consentpb.Rule(
        effect=consentpb.RuleEffect.ValueType(ALLOW),
        scope=consentpb.RuleScope(everyone=consentpb.Everyone()),
        terms=terms("profile.city", "profile.age", valid_for=timedelta(days=300), decide_within=None),
    )


async def _answer(request: Callable[..., Message], cast: Cast, one: Known) -> Mutation:
    """An answer to an offer that is open."""
    await _willing(cast, one)
    asked = terms("profile.language", use=termspb.USE_ONE_TIME, valid_for=timedelta(days=20))
    exchange = (await cast.marketer.ask(to_known(asked, one.pseudonym))).exchange.name

    async def there() -> list[str]:
        return [offer.name for offer in await one.customer.offers() if offer.exchange == exchange]

    await until(there, 30)
    (name,) = await there()
    return Mutation(one.customer, request(name=name, request_id=request_id()))


async def _act(request: Callable[..., Message], cast: Cast, one: Known) -> Mutation:
    """An act on a consent that is in force."""
    return Mutation(one.customer, request(name=await _consent(cast, one), request_id=request_id()))


async def _resume(cast: Cast, one: Known) -> Mutation:
    name = await _consent(cast, one)
    pause = consentpb.PauseConsentRequest(name=name, request_id=request_id())
    await one.customer.call("consent", "PauseConsent", pause)
    return Mutation(one.customer, consentpb.ResumeConsentRequest(name=name, request_id=request_id()))


async def _consent(cast: Cast, one: Known) -> str:
    """A consent of a customer's that is in force, made anew if need be."""
    await _willing(cast, one)
    while not (found := await _active(cast, one)):
        await cast.marketer.ask(to_known(terms("profile.city"), one.pseudonym, in_answer=True))
    return found


async def _active(cast: Cast, one: Known) -> str:
    answer = await one.customer.call("consent", "ListConsents", consentpb.ListConsentsRequest())
    mine = [each for each in answer.consents if each.marketer == cast.marketer.name]
    for each in mine:
        if each.state == consentpb.CONSENT_STATE_PAUSED:
            resume = consentpb.ResumeConsentRequest(name=each.name, request_id=request_id())
            await one.customer.call("consent", "ResumeConsent", resume)
    return next((each.name for each in mine if each.state == consentpb.CONSENT_STATE_ACTIVE), "")


async def _willing(cast: Cast, one: Known) -> None:
    """Take back whatever a customer has against being asked."""
    await one.customer.call("consent", "LiftObjection", consentpb.LiftObjectionRequest(request_id=request_id()))
    rules = await one.customer.call("consent", "ListRules", consentpb.ListRulesRequest())
    for rule in rules.rules:
        if rule.scope.marketer == cast.marketer.name:  # left by a withdrawal
            delete = consentpb.DeleteRuleRequest(name=rule.name, request_id=request_id())
            await one.customer.call("consent", "DeleteRule", delete)


async def _object(cast: Cast, one: Known) -> Mutation:
    await _consent(cast, one)
    return Mutation(one.customer, consentpb.ObjectToMarketingRequest(request_id=request_id()))


async def _lift(cast: Cast, one: Known) -> Mutation:
    await _willing(cast, one)
    request = consentpb.ObjectToMarketingRequest(request_id=request_id())
    await one.customer.call("consent", "ObjectToMarketing", request)
    return Mutation(one.customer, consentpb.LiftObjectionRequest(request_id=request_id()))


async def _put(_cast: Cast, one: Known) -> Mutation:
    value = vaultpb.ItemValue(attribute="profile.country", value=secrets.choice(("PT", "DE", "TR")))
    return Mutation(one.customer, vaultpb.PutItemsRequest(items=[value], request_id=request_id()))


async def _delete(_cast: Cast, one: Known) -> Mutation:
    await one.customer.put(profile_country="PT")
    return Mutation(one.customer, vaultpb.DeleteItemRequest(name="items/profile.country", request_id=request_id()))


async def _show(_cast: Cast, one: Known) -> Mutation:
    level = termspb.VerificationLevel.ValueType(secrets.choice((1, 2, 3)))
    request = vaultpb.SetDiscoverableRequest(name="items/profile.city", discoverable_to=level, request_id=request_id())
    return Mutation(one.customer, request)


async def _register(cast: Cast, _one: Known) -> Mutation:
    signer = Signer(secrets.token_bytes(32))
    request = identitypb.RegisterCustomerRequest(public_key=signer.public_key, request_id=request_id())
    return Mutation(Caller(cast.world.stubs, "nobody", signer), request)


# --- What marketers do -----------------------------------------------------------------------------------------------------


async def _ask(cast: Cast, one: Known) -> Mutation:
    await _willing(cast, one)
    return Mutation(cast.marketer, to_known(terms("profile.city"), one.pseudonym, in_answer=True))


async def _cancel(cast: Cast, one: Known) -> Mutation:
    exchange = (await cast.marketer.ask(to_known(terms("profile.language"), one.pseudonym))).exchange.name
    return Mutation(cast.marketer, brokerpb.CancelExchangeRequest(name=exchange, request_id=request_id()))


async def _add_key(cast: Cast, _one: Known) -> Mutation:
    marketer, key = await cast.world.marketer(), Sealer(secrets.token_bytes(32)).public_key
    request = identitypb.AddMarketerKeyRequest(use=identitypb.KEY_USE_SEALING, public_key=key, request_id=request_id())
    return Mutation(marketer, request)


# --- What staff does -------------------------------------------------------------------------------------------------------


async def _register_marketer(cast: Cast, _one: Known) -> Mutation:
    sealer, signer = Sealer(secrets.token_bytes(32)), Signer(secrets.token_bytes(32))
    return Mutation(cast.operator, registration(sealer, signer))


async def _update_marketer(cast: Cast, _one: Known) -> Mutation:
    name = (await cast.world.marketer()).name
    return Mutation(cast.operator, identitypb.UpdateMarketerRequest(name=name, suspended=True, request_id=request_id()))


async def _import(cast: Cast, _one: Known) -> Mutation:
    opened = await _row(cast, identitypb.OpenImportedAccountsRequest, secrets.token_hex(8))
    item = vaultpb.ImportedItem(attribute="profile.city", value="Lisbon", provenance=vaultpb.PROVENANCE_IMPORTED)
    entry = vaultpb.ImportEntry(vault_ref=opened.accounts[0].vault_ref, items=[item])
    return Mutation(cast.importer, vaultpb.ImportItemsRequest(entries=[entry], request_id=request_id()))


async def _claim(cast: Cast, _one: Known) -> Mutation:
    row = secrets.token_hex(8)
    await _row(cast, identitypb.OpenImportedAccountsRequest, row)
    completed = await _row(cast, identitypb.CompleteImportedAccountsRequest, row)
    signer = Signer(secrets.token_bytes(32))
    request = identitypb.ClaimAccountRequest(
        claim_code=completed.claim_codes[0], public_key=signer.public_key, request_id=request_id()
    )
    return Mutation(Caller(cast.world.stubs, "nobody", signer), request)


async def _row(cast: Cast, request: Callable[..., Message], row: str) -> Any:
    method = request.__name__.removesuffix("Request")
    return await cast.importer.call("identity", method, request(row_keys=[row], **{"import": "some"}))


# --- What comes of them ----------------------------------------------------------------------------------------------------

TOLD: Mapping[str, Mapping[str, int]] = {
    "consent:offer:accepted": {"consent.AcceptOffer": 1},
    "consent:offer:refused": {"consent.RefuseOffer": 1},
    "consent:offer:deferred": {"consent.DeferOffer": 1},
    "consent:consent:paused": {"consent.PauseConsent": 1, "consent.ResumeConsent": 1},
    "consent:objection:made": {"consent.ObjectToMarketing": 1, "consent.LiftObjection": 1},
    "consent:rule:made": {"consent.CreateRule": 1, "consent.DeleteRule": 1},
    "identity:account:claimed": {"identity.ClaimAccount": 1},
    "identity:account:opened": {"identity.RegisterCustomer": 1, "identity.ClaimAccount": 1},
    "identity:marketer:registered": _EACH_A_MARKETER,
    "identity:marketer:changed": {"identity.UpdateMarketer": 1, "identity.AddMarketerKey": 1},
    "vault:items:put": {"vault.PutItems": 1, "vault.DeleteItem": 1},
    "vault:items:deleted": {"vault.DeleteItem": 1},
}
"""How many entries of a kind the log has of each mutation, and of what must be there first; of kinds that come of these alone."""

MADE: Mapping[tuple[str, str], Mapping[str, int]] = {
    ("identity", "customers"): {"identity.RegisterCustomer": 1, "identity.ClaimAccount": 1, "vault.ImportItems": 1},
    ("identity", "marketers"): _EACH_A_MARKETER,
    ("identity", "marketer_keys"): {**dict.fromkeys(_EACH_A_MARKETER, 2), "identity.AddMarketerKey": 3},
    ("consent", "rules WHERE effect = 1"): {"consent.CreateRule": 1, "consent.DeleteRule": 1},
    ("consent", "rules WHERE effect = 1 AND ended_at IS NOT NULL"): {"consent.DeleteRule": 1},
    ("vault", "items WHERE attribute = 'profile.city'"): {"vault.ImportItems": 1},
}
"""How many rows of a table there are of each mutation, likewise."""


async def effects(world: World) -> Counter[str]:
    """How often each thing is there that comes of mutations; all events must have been read."""
    found: Counter[str] = Counter()
    for service, table in MADE:
        ((count,),) = await rows(world, service, f"SELECT count(*) FROM {table}")
        found[f"{service}: {table}"] = count
    keys = await rows(world, "audit", "SELECT subject, wrapped FROM subject_keys")
    history = await rows(world, "audit", "SELECT subject, commitment, sealed FROM history")
    kinds = (
        json.loads(one.detail)["kind"] for one in open_history(key_file(world.home, "audit", "master"), keys, history)
    )
    return found + Counter(kind for kind in kinds if kind in TOLD)


def effects_of(calls: Mapping[str, int]) -> Counter[str]:
    """What comes of so many calls of each mutation, whoever gave up in how many of them."""
    each = {**TOLD, **{f"{service}: {table}": counts for (service, table), counts in MADE.items()}}
    return Counter({name: sum(n * calls.get(rpc, 0) for rpc, n in counts.items()) for name, counts in each.items()})


MAKERS: Mapping[str, Make] = {
    "broker.CreateExchange": _ask,
    "broker.CancelExchange": _cancel,
    "consent.CreateRule": _make_rule,
    "consent.DeleteRule": _delete_rule,
    "consent.AcceptOffer": partial(_answer, consentpb.AcceptOfferRequest),
    "consent.RefuseOffer": partial(_answer, consentpb.RefuseOfferRequest),
    "consent.DeferOffer": partial(_answer, consentpb.DeferOfferRequest),
    "consent.WithdrawConsent": partial(_act, consentpb.WithdrawConsentRequest),
    "consent.PauseConsent": partial(_act, consentpb.PauseConsentRequest),
    "consent.ResumeConsent": _resume,
    "consent.ObjectToMarketing": _object,
    "consent.LiftObjection": _lift,
    "identity.RegisterCustomer": _register,
    "identity.ClaimAccount": _claim,
    "identity.RegisterMarketer": _register_marketer,
    "identity.UpdateMarketer": _update_marketer,
    "identity.AddMarketerKey": _add_key,
    "vault.PutItems": _put,
    "vault.DeleteItem": _delete,
    "vault.SetDiscoverable": _show,
    "vault.ImportItems": _import,
}
