"""
G9: what is somebody else's reads, to the byte, like what is not there, whoever asks, by every RPC that there is.

Which RPCs there are is read from the descriptors. Each has an entry here: how to name somebody else's thing and one that is
nowhere, or why it names nobody's. A new RPC without an entry fails.
"""

import hashlib
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from parley.broker.v1 import broker_pb2 as brokerpb
from parley.consent.v1 import consent_pb2 as consentpb
from parley.identity.v1 import identity_pb2 as identitypb
from parley.vault.v1 import vault_pb2 as vaultpb
from parley_crypto.signing import Signer
from parley_crypto.statements import make_assertion
from parley_kit.ids import new_id
from parley_node.services import SERVICES
from tests.support.api import KINDS, RPCS, Deal, Rpc, deal_of, nothing_changes, reason_of
from tests.support.calls import request_id
from tests.support.carried import ASKED as PERMITTED
from tests.support.carried import Carried, carried
from tests.support.doors import Doors
from tests.support.world import Caller, Customer, Marketer, World, between, by_criteria, terms, to_known


@dataclass(frozen=True)
class Stage:
    """Two who have something, and two others who try to get at it."""

    deal: Deal
    offer: str
    rule: str
    customer: Customer
    marketer: Marketer
    importer: Caller
    carried: Carried
    """What broker carries of it."""
    own: Carried
    """What it carries of another deal, of which it is asked."""


@dataclass(frozen=True)
class Pair:
    """A request for what is another's, and the same for what is not there; ``caller`` makes both, or else broker does."""

    caller: Caller | None
    theirs: Message
    absent: Message


Make = Callable[[Stage], Pair]
ASKED = request_id()
CITY = f"Nowhere {secrets.token_hex(4)}"
"""Where the one who has something lives."""


def _named(
    request: Callable[..., Message], of: Callable[[Stage], tuple[Caller, str, str]], part: str = "name", **more: Any
) -> Make:
    """A request that names one thing: whose caller, what is another's, what is nowhere."""

    def make(stage: Stage) -> Pair:
        caller, theirs, absent = of(stage)
        return Pair(caller, request(**{part: theirs}, **more), request(**{part: absent}, **more))

    return make


def _offer(stage: Stage) -> tuple[Caller, str, str]:
    return stage.customer, stage.offer, f"offers/{new_id()}"


def _consent(stage: Stage) -> tuple[Caller, str, str]:
    return stage.customer, stage.deal.consent, f"consents/{new_id()}"


def _rule(stage: Stage) -> tuple[Caller, str, str]:
    return stage.customer, stage.rule, f"rules/{new_id()}"


def _item(stage: Stage) -> tuple[Caller, str, str]:
    return stage.customer, "items/profile.city", "items/profile.country"


def _deleted(stage: Stage) -> Pair:
    caller, theirs, absent = _item(stage)
    return Pair(caller, *(vaultpb.DeleteItemRequest(name=name, request_id=request_id()) for name in (theirs, absent)))


def _exchange(stage: Stage) -> tuple[Caller, str, str]:
    exchange = stage.deal.delivery.release.exchange
    return stage.marketer, exchange, f"{stage.deal.marketer.name}/exchanges/{new_id()}"


def _acknowledged(stage: Stage) -> Pair:
    absent = f"deliveries/{new_id()}"
    of = brokerpb.AcknowledgeDeliveriesRequest
    return Pair(stage.marketer, of(names=[stage.deal.delivery.name]), of(names=[absent]))


def _resumed(stage: Stage) -> Pair:
    of = brokerpb.DeliveriesRequest
    return Pair(stage.marketer, of(resume_token=stage.deal.delivery.resume_token), of(resume_token="A" * 32))


def _asked(stage: Stage) -> Pair:
    def of(pseudonym: str) -> Message:
        return to_known(terms("profile.city"), pseudonym, in_answer=True)

    return Pair(stage.marketer, of(stage.deal.pseudonym), of("a" * 32))


def _signed_in(stage: Stage) -> Pair:
    def of(name: str) -> Message:
        assertion = make_assertion(Signer(secrets.token_bytes(32)), name, secrets.token_hex(16), datetime.now(UTC))
        return identitypb.SignInRequest(assertion=assertion)

    return Pair(stage.customer, of(stage.deal.customer.name), of(f"customers/{new_id()}"))


def _garbled(ref: bytes) -> bytes:
    """What is as long as a reference, and none."""
    return secrets.token_bytes(len(ref))


def _introduced(stage: Stage) -> Pair:
    theirs, own = stage.carried, stage.own

    def of(ref: bytes) -> Message:
        return identitypb.IntroduceRequest(marketer=own.marketer, exchange=own.exchange, candidate_refs=[ref])

    return Pair(None, of(theirs.candidate_ref), of(_garbled(theirs.candidate_ref)))


def _decide(stage: Stage, consent_ref: bytes) -> consentpb.DecideRequest:
    entry = consentpb.DecideEntry(consent_ref=consent_ref, audit_ref=stage.carried.audit_ref)
    return consentpb.DecideRequest(
        marketer_card=stage.own.card, exchange=stage.own.exchange, terms=PERMITTED, entries=[entry]
    )


def _decided(stage: Stage) -> Pair:
    ref = stage.carried.consent_ref
    return Pair(None, _decide(stage, ref), _decide(stage, _garbled(ref)))


def _all_decided(stage: Stage) -> Pair:
    def of(ref: bytes) -> Message:
        return consentpb.BatchDecideRequest(requests=[_decide(stage, ref)])

    return Pair(None, of(stage.carried.consent_ref), of(_garbled(stage.carried.consent_ref)))


def _settled(stage: Stage) -> Pair:
    own, ref = stage.own, stage.carried.consent_ref

    def of(ref: bytes) -> Message:
        entry = consentpb.SettleEntry(consent_ref=ref, permit=own.permit, batch=own.batch)
        return consentpb.SettleRequest(entries=[entry])

    return Pair(None, of(ref), of(_garbled(ref)))


def _released(stage: Stage) -> Pair:
    own, ref = stage.own, stage.carried.vault_ref

    def of(ref: bytes) -> Message:
        return vaultpb.ReleaseRequest(batch=own.batch, entries=[vaultpb.ReleaseEntry(vault_ref=ref, permit=own.permit)])

    return Pair(None, of(ref), of(_garbled(ref)))


def _imported(stage: Stage) -> Pair:
    item = vaultpb.ImportedItem(attribute="profile.city", value="Faro", provenance=vaultpb.PROVENANCE_IMPORTED)

    def of(ref: bytes) -> Message:
        entry = vaultpb.ImportEntry(vault_ref=ref, items=[item])
        return vaultpb.ImportItemsRequest(entries=[entry], request_id=ASKED)

    return Pair(stage.importer, of(stage.carried.vault_ref), of(_garbled(stage.carried.vault_ref)))


OWN = "acts on the caller's own alone: the token says whose"
PUBLIC = "answers everybody alike: what it names is public"
STAFF = "its callers act for the operator or an import, whose things these are"
BROKER = "broker alone calls it, for whichever marketer asks: it names no customer"
PROOF = "what it names is the proof itself: whoever holds it has the thing"
ENTRIES: Mapping[str, Make | str] = {
    "audit.GetProof": PUBLIC,
    "audit.GetCheckpoint": PUBLIC,
    "audit.ListHistory": OWN,
    "broker.CreateExchange": _asked,
    "broker.GetExchange": _named(brokerpb.GetExchangeRequest, _exchange),
    "broker.ListExchanges": OWN,
    "broker.CancelExchange": _named(brokerpb.CancelExchangeRequest, _exchange, request_id=ASKED),
    "broker.Deliveries": _resumed,
    "broker.AcknowledgeDeliveries": _acknowledged,
    "consent.CreateRule": OWN,
    "consent.ListRules": OWN,
    "consent.DeleteRule": _named(consentpb.DeleteRuleRequest, _rule, request_id=ASKED),
    "consent.ListOffers": OWN,
    "consent.GetOffer": _named(consentpb.GetOfferRequest, _offer),
    "consent.AcceptOffer": _named(consentpb.AcceptOfferRequest, _offer, request_id=ASKED),
    "consent.RefuseOffer": _named(consentpb.RefuseOfferRequest, _offer, request_id=ASKED),
    "consent.DeferOffer": _named(consentpb.DeferOfferRequest, _offer, request_id=ASKED),
    "consent.ListConsents": OWN,
    "consent.GetConsent": _named(consentpb.GetConsentRequest, _consent),
    "consent.ListSettlements": _named(consentpb.ListSettlementsRequest, _consent, "parent"),
    "consent.WithdrawConsent": _named(consentpb.WithdrawConsentRequest, _consent, request_id=ASKED),
    "consent.PauseConsent": _named(consentpb.PauseConsentRequest, _consent, request_id=ASKED),
    "consent.ResumeConsent": _named(consentpb.ResumeConsentRequest, _consent, request_id=ASKED),
    "consent.ObjectToMarketing": OWN,
    "consent.LiftObjection": OWN,
    "consent.BatchDecide": _all_decided,
    "consent.Decide": _decided,
    "consent.Settle": _settled,
    "identity.RegisterCustomer": OWN,
    "identity.ClaimAccount": PROOF,
    "identity.SignIn": _signed_in,
    "identity.RegisterMarketer": STAFF,
    "identity.UpdateMarketer": STAFF,
    "identity.AddMarketerKey": OWN,
    "identity.GetMarketer": PUBLIC,
    "identity.GetMarketerCard": BROKER,
    "identity.GetKeySet": PUBLIC,
    "identity.Introduce": _introduced,
    "identity.OpenImportedAccounts": STAFF,
    "identity.CompleteImportedAccounts": STAFF,
    "vault.ListAttributes": PUBLIC,
    "vault.PutItems": OWN,
    "vault.GetItem": _named(vaultpb.GetItemRequest, _item),
    "vault.ListItems": OWN,
    "vault.ListItemVersions": _named(vaultpb.ListItemVersionsRequest, _item),
    "vault.DeleteItem": _deleted,
    "vault.SetDiscoverable": _named(vaultpb.SetDiscoverableRequest, _item, discoverable_to=1, request_id=ASKED),
    "vault.ImportItems": _imported,
    "vault.Match": BROKER,
    "vault.Release": _released,
}


@pytest.fixture(scope="module")
async def stage(world: World) -> Stage:
    """A deal with an offer and a rule beside it, and two strangers to it."""
    deal = await deal_of(world, "117")
    asked = terms("profile.city", "profile.language")
    await deal.marketer.ask(by_criteria(asked, between("profile.age", "117", "117")))
    rules = await deal.customer.call("consent", "ListRules", consentpb.ListRulesRequest())
    await deal.customer.put(profile_city=CITY)
    other = await world.customer()
    await other.put(profile_age="18")
    others = await deal_of(world, "116")
    return Stage(
        importer=await world.staff("importer"),
        carried=await carried(world, deal, "117"),
        own=await carried(world, others, "116"),
        deal=deal,
        offer=(await deal.customer.offer()).name,
        rule=rules.rules[0].name,
        customer=other,
        marketer=await world.marketer(),
    )


def test_every_rpc_has_an_entry_and_every_entry_an_rpc() -> None:
    assert sorted(map(str, RPCS)) == sorted(ENTRIES)


NAMES = {"name", "names", "parent", "pseudonym", "exchange", "resume_token", "assertion"}
"""What requests call the thing that they are about."""
NAMED_ALL_THE_SAME = {
    "identity.GetMarketer": PUBLIC,
    "identity.UpdateMarketer": STAFF,
    **dict.fromkeys(("identity.GetMarketerCard", "vault.Match"), BROKER),
}

NAMES_NOTHING = {"page_size", "page_token", "open_only", "request_id", "rule", "items", "public_key", "use"}
"""All that a request may have that acts on the caller's own: a field that isn't known here may name what is another's."""


def test_request_without_another_s_has_no_field_that_might_name_one() -> None:
    assert {} == {str(rpc): more for rpc in RPCS if ENTRIES[str(rpc)] == OWN and (more := _names(rpc) - NAMES_NOTHING)}


def test_whoever_names_a_thing_is_tried_with_anothers_unless_it_is_known_why_not() -> None:
    untried = {str(rpc): entry for rpc in RPCS if isinstance(entry := ENTRIES[str(rpc)], str) and _names(rpc) & NAMES}
    assert NAMED_ALL_THE_SAME == untried
    assert all(rpc.callers() == ["broker"] for rpc in RPCS if ENTRIES[str(rpc)] == BROKER)
    assert not [
        rpc for rpc in RPCS if ENTRIES[str(rpc)] == STAFF and {"customer", "marketer", "anyone"} & {*rpc.callers()}
    ]


def _names(rpc: Rpc) -> set[str]:
    return {field.name for field in rpc.method.input_type.fields}


MAKES_ITS_OWN = {"broker.CreateExchange", "vault.DeleteItem"}
"""RPCs that make a thing of the caller's own out of either request, if it is only a request id: nobody of another's is in it."""


async def test_what_is_another_s_reads_like_what_is_not_there_and_nothing_changes(world: World, stage: Stage) -> None:
    quiet = {rpc: entry for rpc in RPCS if callable(entry := ENTRIES[str(rpc)]) and str(rpc) not in MAKES_ITS_OWN}
    async with nothing_changes(world):
        told_apart = [str(rpc) for rpc, make in quiet.items() if await _tells_apart(world, rpc, make(stage))]
    assert [] == told_apart


async def test_whoever_may_not_call_it_hears_no_more_of_what_is_there_than_of_what_is_not(
    world: World, stage: Stage
) -> None:
    doors, cells, told_apart = await Doors.of(world), 0, list[tuple[str, str]]()
    pairs = {rpc: entry(stage) for rpc in RPCS if callable(entry := ENTRIES[str(rpc)])}
    async with nothing_changes(world):
        for rpc, pair in pairs.items():
            for caller in (*KINDS, *SERVICES, "anyone"):
                if rpc.listed(caller) or not doors.has(rpc, caller):
                    continue
                requests = [request.SerializeToString() for request in (pair.theirs, pair.absent)]
                theirs, absent = [await _heard(doors.call(rpc, caller, request)) for request in requests]
                cells += 1
                if theirs != absent or theirs[0] is grpc.StatusCode.OK:
                    told_apart.append((str(rpc), caller))
    assert [] == told_apart
    assert cells > len(pairs) * 5


@pytest.mark.parametrize("rpc", [rpc for rpc in RPCS if str(rpc) in MAKES_ITS_OWN], ids=str)
async def test_what_is_made_of_another_s_is_made_of_nobody(world: World, stage: Stage, rpc: Rpc) -> None:
    make = ENTRIES[str(rpc)]
    assert callable(make)
    assert not await _tells_apart(world, rpc, make(stage))


async def _tells_apart(world: World, rpc: Rpc, pair: Pair) -> bool:
    theirs, absent = [await _said(world, rpc, pair.caller, request) for request in (pair.theirs, pair.absent)]
    return theirs != absent


async def test_what_broker_carries_for_whoever_asks_reads_like_neither(world: World, stage: Stage) -> None:
    own = replace(stage, carried=stage.own)
    pairs = {rpc: entry(own) for rpc in RPCS if callable(entry := ENTRIES[str(rpc)])}
    brokers = {rpc: pair for rpc, pair in pairs.items() if pair.caller is None}
    assert 5 == len(brokers)
    assert [] == [str(rpc) for rpc, pair in brokers.items() if not await _tells_apart(world, rpc, pair)]


LISTS = [rpc for rpc in RPCS if ENTRIES.get(str(rpc)) == OWN and rpc.method.name.startswith("List")]


@pytest.mark.parametrize("rpc", LISTS, ids=str)
async def test_what_lists_ones_own_lists_nothing_of_anothers(world: World, stage: Stage, rpc: Rpc) -> None:
    asks = rpc.service == "broker"
    answer = await _call(world, rpc, stage.marketer if asks else stage.customer, b"")
    owners = await _call(world, rpc, stage.deal.marketer if asks else stage.deal.customer, b"")
    secret = (stage.deal.consent, stage.offer, stage.rule, stage.deal.delivery.release.exchange, CITY)
    assert [] == [each for each in secret if each.encode() in answer]
    assert [each for each in secret if each.encode() in owners]  # the control


async def _said(world: World, rpc: Rpc, caller: Caller | None, request: Message) -> tuple[object, ...]:
    """Everything that an answer says, but for what only says which request it answers."""
    heard = await _heard(_call(world, rpc, caller, request.SerializeToString()))
    if heard[0] is not grpc.StatusCode.OK:
        return heard
    answer = heard[1]
    if str(rpc) == "broker.CreateExchange":
        made = brokerpb.CreateExchangeResponse.FromString(answer)
        return made.HasField("delivery"), made.exchange.state
    return hashlib.sha256(answer).digest(), len(answer)


async def _heard(call: Awaitable[bytes]) -> tuple[Any, ...]:
    """Everything that an answer says."""
    try:
        return grpc.StatusCode.OK, await call
    except grpc.aio.AioRpcError as refused:
        trailing = dict(refused.trailing_metadata() or ())
        return refused.code(), refused.details(), reason_of(refused), trailing.get("grpc-status-details-bin")


async def _call(world: World, rpc: Rpc, caller: Caller | None, request: bytes) -> bytes:
    channel: Any = world.stubs.channel if caller else world.calling("broker")
    metadata = caller.tokens.get(rpc.service, ()) if caller and str(rpc) != "identity.SignIn" else ()
    if rpc.method.server_streaming:
        stream = channel.unary_stream(rpc.path, request_serializer=None, response_deserializer=None)(
            request, metadata=metadata, timeout=5
        )
        answered: Awaitable[bytes] = stream.read()
        return await answered
    method = channel.unary_unary(rpc.path, request_serializer=bytes, response_deserializer=bytes)
    answer: bytes = await method(request, metadata=metadata, timeout=20)
    return answer
