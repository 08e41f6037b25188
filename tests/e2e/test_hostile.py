"""
G9, G11 and G12: whoever asks wrongly gets a documented reason and changes nothing; whoever repeats does nothing twice.

Who may call what is read anew from deploy/trust-zones.toml, and what there is to call from the descriptors: a new RPC is in
these tests without being added. "Changes nothing" is said of full dumps of all databases, but for the assertions used to sign in.
"""

import asyncio
import base64
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from parley.broker.v1 import broker_pb2 as brokerpb
from parley.common.v1 import permit_pb2 as permitpb
from parley.common.v1 import terms_pb2 as termspb
from parley.consent.v1 import consent_pb2 as consentpb
from parley.consent.v1.consent_pb2_grpc import ConsentServiceStub
from parley.identity.v1 import identity_pb2 as identitypb
from parley.vault.v1 import vault_pb2 as vaultpb
from parley.vault.v1.vault_pb2_grpc import VaultServiceStub
from parley_crypto.batch import sign_batch
from parley_crypto.signing import Signer
from parley_crypto.statements import Token, issue_token
from parley_kit.ids import new_id
from parley_node.services import SERVICES
from parley_rpc.channels import at, connect
from parley_rpc.server import MAX_REQUEST_BYTES
from parley_rpc.serving import PEER_REQUEST_BYTES
from tests.support.api import (
    BACKGROUND,
    KINDS,
    RPCS,
    Deal,
    deal_of,
    fields,
    nothing_changes,
    reason_of,
    refusal,
)
from tests.support.calls import request_id
from tests.support.carried import Carried, carried
from tests.support.chaos import rows
from tests.support.doors import Doors, token
from tests.support.dumps import changes, quiet, without
from tests.support.world import Caller, Customer, Metadata, World, between, by_criteria, terms, to_known

# --- What there is to call, and who may ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
async def doors(world: World) -> Doors:
    return await Doors.of(world)


# --- What is said --------------------------------------------------------------------------------------------------------


# --- Finding the way -----------------------------------------------------------------------------------------------------


async def test_general_client_finds_its_way_by_reflection(world: World) -> None:
    async with connect(at(world.node.running.address, "identity")) as channel:
        names = await _find_the_way(channel)
    assert {
        rpc.method.containing_service.full_name for rpc in RPCS if rpc.service == "identity" or not world.apart
    } <= names


async def _find_the_way(channel: Any) -> set[str]:
    """Learn from a server what it serves, and call a method of that; answers the services it named."""
    stub = reflection_pb2_grpc.ServerReflectionStub(channel)

    async def ask(**question: str) -> Any:
        stream = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(**question)]))
        return await anext(aiter(stream))

    listed = (await ask(list_services="")).list_services_response.service
    names = {service.name for service in listed}
    pool = descriptor_pool.DescriptorPool()
    files: dict[str, descriptor_pb2.FileDescriptorProto] = {}
    for name in sorted(names):
        for raw in (await ask(file_containing_symbol=name)).file_descriptor_response.file_descriptor_proto:
            file = descriptor_pb2.FileDescriptorProto.FromString(raw)
            files[file.name] = file
    await _add_all(pool, files, ask)

    service = pool.FindServiceByName("parley.identity.v1.IdentityService")
    method = service.methods_by_name["GetKeySet"]
    request = message_factory.GetMessageClass(method.input_type)()
    answer_class = message_factory.GetMessageClass(method.output_type)
    call = channel.unary_unary(
        f"/{service.full_name}/{method.name}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=answer_class.FromString,
    )
    assert '"keys"' in (await call(request)).jwks
    return names


async def _add_all(pool: Any, files: dict[str, descriptor_pb2.FileDescriptorProto], ask: Callable[..., Any]) -> None:
    added: set[str] = set()

    async def add(name: str) -> None:
        if name in added:
            return
        added.add(name)
        if name not in files:
            (raw, *_) = (await ask(file_by_filename=name)).file_descriptor_response.file_descriptor_proto
            files[name] = descriptor_pb2.FileDescriptorProto.FromString(raw)
        for needed in files[name].dependency:
            await add(needed)
        pool.Add(files[name])

    for name in sorted(files):
        await add(name)


async def test_method_that_is_not_there_is_refused_with_details(world: World) -> None:
    call = world.stubs.channel.unary_unary("/parley.vault.v1.VaultService/Steal", bytes, bytes)
    assert "UNIMPLEMENTED" == await refusal(call(b""))


# --- Who may call what ---------------------------------------------------------------------------------------------------


async def test_every_call_that_is_not_listed_is_refused_and_changes_nothing(world: World, doors: Doors) -> None:
    cells = 0
    async with nothing_changes(world):
        for rpc in RPCS:
            for caller in (*KINDS, *SERVICES, "anyone"):
                if rpc.listed(caller) or not doors.has(rpc, caller):
                    continue
                expected = "UNAUTHENTICATED" if caller == "anyone" else "CALLER_NOT_ALLOWED"
                assert expected == await refusal(doors.call(rpc, caller, _filled(rpc.method.input_type))), (rpc, caller)
                cells += 1
    assert cells > len(RPCS) * 5


async def test_every_call_that_is_listed_gets_past_the_door(doors: Doors) -> None:
    for rpc in RPCS:
        for caller in rpc.callers():
            if rpc.method.server_streaming or not doors.has(rpc, caller):
                continue
            said = await _answer(doors.call(rpc, caller, b"\xff"))
            assert said == "INVALID_REQUEST", (rpc, caller)


async def _answer(call: Awaitable[Any]) -> str:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return reason_of(error)
    return ""


@cache
def _filled(descriptor: Descriptor) -> bytes:
    """A request with something in every text field: permission comes before all that it says."""
    message = message_factory.GetMessageClass(descriptor)()
    for field in descriptor.fields:
        if field.type == field.TYPE_STRING and not field.is_repeated:
            setattr(message, field.name, "x" * 26)
    return bytes(message.SerializeToString())


def _tokens_of_nobody(world: World) -> dict[str, Metadata]:
    now, stranger = datetime.now(UTC), Signer(secrets.token_bytes(32))
    (key, good), *_ = token(world, "marketer", "broker")
    head, body, mark = good.split(".")
    unsigned = base64.urlsafe_b64encode(b'{"alg":"none","typ":"parley-token+jwt"}').decode().rstrip("=")
    forged = issue_token(stranger, Token("marketer", f"marketers/{new_id()}"), "broker", now)
    return {
        "expired": token(world, "marketer", "broker", at=now - timedelta(hours=1)),
        "from the future": token(world, "marketer", "broker", at=now + timedelta(hours=1)),
        "for another service": token(world, "marketer", "broker", audience="vault"),
        "of a service": token(world, "service", "broker", subject="consent"),
        "of no kind": token(world, "emperor", "broker"),
        "by a stranger's key": ((key, f"Bearer {forged}"),),
        "changed": ((key, f"{head}.{body[:-2]}AA.{mark}"),),
        "unsigned": ((key, f"Bearer {unsigned}.{body}."),),
        "nonsense": ((key, "Bearer nonsense"),),
        "basic": ((key, "Basic bWFya2V0ZXI6c2VjcmV0"),),
        "two at once": ((key, good), (key, good)),
    }


async def test_tokens_that_are_not_good_here_are_refused(world: World) -> None:
    async with nothing_changes(world):
        for name, metadata in _tokens_of_nobody(world).items():
            request = by_criteria(terms("profile.city"), between("profile.age", "3", "3"))
            assert "UNAUTHENTICATED" == await refusal(world.stubs.broker.CreateExchange(request, metadata=metadata)), (
                name
            )


# --- Bytes that make no sense --------------------------------------------------------------------------------------------


async def test_random_bytes_are_refused_by_every_method(world: World, doors: Doors) -> None:
    async with nothing_changes(world):
        for rpc in RPCS:
            caller = rpc.callers()[0]
            for _ in range(10):
                noise = b"\x0f" + secrets.token_bytes(secrets.randbelow(200))  # wire type 7: nothing begins so
                assert "INVALID_REQUEST" == await refusal(doors.call(rpc, caller, noise)), (rpc, noise)


async def test_fields_that_nobody_knows_are_refused_by_every_method(world: World, doors: Doors) -> None:
    unknown = b"\xfa\xff\x3f\x04dial"  # field 131,071, length-delimited
    async with nothing_changes(world):
        for rpc in RPCS:
            request = _filled(rpc.method.input_type) + unknown
            assert "INVALID_REQUEST" == await refusal(doors.call(rpc, rpc.callers()[0], request)), rpc


async def test_too_large_a_message_is_refused_by_every_method(world: World, doors: Doors) -> None:
    async with nothing_changes(world):
        for rpc in RPCS:
            caller = rpc.callers()[0]
            large = bytes(1 + (PEER_REQUEST_BYTES if caller in SERVICES else MAX_REQUEST_BYTES))
            assert "TOO_LARGE" == await refusal(doors.call(rpc, caller, large)), rpc


async def test_a_message_beyond_what_may_arrive_is_refused_by_the_transport(world: World, doors: Doors) -> None:
    async with nothing_changes(world):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await doors.call(RPCS[0], RPCS[0].callers()[0], bytes(7 * 1024 * 1024))
    assert grpc.StatusCode.RESOURCE_EXHAUSTED == refused.value.code()


# --- Terms ---------------------------------------------------------------------------------------------------------------


def _soon(message: Any, **span: float) -> None:
    message.FromDatetime(datetime.now(UTC) + timedelta(**span))


def _set(path: str, value: Any) -> Callable[[termspb.Terms], None]:
    *parents, name = path.split(".")

    def change(message: termspb.Terms) -> None:
        place: Any = message
        for parent in parents:
            place = getattr(place, parent)
        if isinstance(value, list):
            getattr(place, name).extend(value)
        elif isinstance(value, Message):
            getattr(place, name).CopyFrom(value)
        else:
            setattr(place, name, value)

    return change


def _first_field(**values: Any) -> Callable[[termspb.Terms], None]:
    def change(message: termspb.Terms) -> None:
        for name, value in values.items():
            setattr(message.content.fields[0], name, value)

    return change


UNSUPPORTED: Mapping[str, tuple[Callable[[termspb.Terms], None], str]] = {
    "banded": (_first_field(form=termspb.FORM_BANDED, band_width=10), "content.fields[0].form"),
    "band width": (_first_field(band_width=10), "content.fields[0].form"),
    "topics": (_set("content.inward.topics", ["hiking"]), "content.inward"),
    "formats": (_set("content.inward.formats", ["text"]), "content.inward"),
    "incentive kinds": (_set("content.inward.incentive_kinds", ["money"]), "content.inward"),
    **{
        termspb.Channel.Name(channel): (_set("mode.channels", [channel]), "mode.channels[2]")
        for channel in termspb.Channel.values()
        if channel > termspb.CHANNEL_WEB_INBOX
    },
    **{
        termspb.IdentityLevel.Name(level): (_set("mode.identity_level", level), "mode.identity_level")
        for level in termspb.IdentityLevel.values()
        if level > termspb.IDENTITY_LEVEL_PSEUDONYMOUS
    },
    "weekly windows": (_set("timing.weekly_windows", [termspb.WeeklyWindow(weekdays=[1])]), "timing.weekly_windows"),
    "quiet hours": (_set("timing.quiet_hours", termspb.QuietHours(start_minute=1)), "timing.quiet_hours"),
    "frequency caps": (_set("timing.frequency_caps", [termspb.FrequencyCap(count=1)]), "timing.frequency_caps"),
    "place": (_set("timing.place", termspb.Place(item="home")), "timing.place"),
    "least value": (_set("goals.least_value", termspb.Amount(unit="EUR", value=1)), "goals"),
    "words": (_set("goals.words", "a cup of tea"), "goals"),
    "no onward sharing": (_set("obligations.no_onward_sharing", True), "obligations"),
    "use report": (_set("obligations.use_report", True), "obligations"),
}


async def test_every_dial_that_is_not_enforced_is_refused_by_name(world: World) -> None:
    marketer, customer = await world.marketer(), await world.customer()
    async with nothing_changes(world):
        for name, (change, path) in UNSUPPORTED.items():
            asked, ruled = terms("profile.city"), terms("profile.city", decide_within=None)
            change(asked)
            change(ruled)
            request = by_criteria(asked, between("profile.age", "3", "3"))
            assert ("NOT_SUPPORTED_YET", [f"terms.{path}"]) == await fields(marketer.ask(request)), name
            assert ("NOT_SUPPORTED_YET", [f"rule.terms.{path}"]) == await fields(customer.rule(1, ruled)), name


WRONG: Mapping[str, tuple[str, Callable[[termspb.Terms], None]]] = {
    "no purpose of ours": ("INVALID_CONSENT_PURPOSE", _set("purposes", ["https://w3id.org/dpv#WorldDomination"])),
    "no IRI": ("INVALID_REQUEST", _set("purposes", ["marketing"])),
    "no attribute of ours": ("ATTRIBUTE_UNKNOWN", _first_field(attribute="profile.shoe_size")),
    "no attribute": ("INVALID_REQUEST", _first_field(attribute="Robert'); DROP TABLE items;--")),
    "unknown form": ("INVALID_REQUEST", _first_field(form=99)),
    "no form": ("INVALID_REQUEST", _first_field(form=0)),
    "unknown use": ("INVALID_REQUEST", _set("content.use", 99)),
    "unknown channel": ("INVALID_REQUEST", _set("mode.channels", [99])),
    "no channel": ("NOT_SUPPORTED_YET", _set("mode.channels", [0])),
    "unknown identity level": ("INVALID_REQUEST", _set("mode.identity_level", 99)),
    "answer without a question": ("INVALID_REQUEST", _first_field(form=termspb.FORM_ANSWER)),
    "past": ("INVALID_DATE_RANGE", lambda asked: _soon(asked.timing.validity.end_time, days=-1)),
    "for ever": ("INVALID_DATE_RANGE", lambda asked: _soon(asked.timing.validity.end_time, days=36500)),
    "no time": ("INVALID_REQUEST", lambda asked: setattr(asked.timing.validity.end_time, "seconds", 2**62)),
}


async def test_terms_that_can_not_be_are_refused_with_their_reason(world: World) -> None:
    marketer, unverified = await world.marketer(), await world.marketer(level=1)
    async with nothing_changes(world):
        request = by_criteria(terms("profile.city"), between("profile.age", "3", "3"))
        assert "VERIFICATION_REQUIRED" == await refusal(unverified.ask(request))
        for name, (reason, change) in WRONG.items():
            asked = terms("profile.city")
            change(asked)
            request = by_criteria(asked, between("profile.age", "3", "3"))
            assert reason == await refusal(marketer.ask(request)), name


# --- What is somebody else's -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
async def deal(world: World) -> Deal:
    """One deal for tests that change nothing."""
    return await deal_of(world, "121")


async def test_what_is_another_marketers_is_not_there(world: World, deal: Deal) -> None:
    other, release = await world.marketer(), deal.delivery.release
    exchange, absent = release.exchange, f"{deal.marketer.name}/exchanges/{new_id()}"
    async with nothing_changes(world):
        for name in (exchange, absent, f"{other.name}/exchanges/{exchange[-26:]}"):
            for method, request in (
                ("GetExchange", brokerpb.GetExchangeRequest(name=name)),
                ("CancelExchange", brokerpb.CancelExchangeRequest(name=name, request_id=request_id())),
            ):
                assert "EXCHANGE_NOT_FOUND" == await refusal(other.call("broker", method, request))
        acknowledge = brokerpb.AcknowledgeDeliveriesRequest(names=[deal.delivery.name])
        assert "DELIVERY_NOT_FOUND" == await refusal(other.call("broker", "AcknowledgeDeliveries", acknowledge))
        stream = world.stubs.broker.Deliveries(
            brokerpb.DeliveriesRequest(resume_token=deal.delivery.resume_token), metadata=other.tokens["broker"]
        )
        assert "RESUME_TOKEN_INVALID" == await refusal(stream.read())


async def test_pseudonym_of_another_marketer_is_nobodys(world: World, deal: Deal) -> None:
    other = await world.marketer()
    answer = await other.ask(to_known(terms("profile.city"), deal.pseudonym, in_answer=True))
    nobody = await other.ask(to_known(terms("profile.city"), "a" * 32, in_answer=True))
    assert [False, False] == [each.HasField("delivery") for each in (answer, nobody)]
    query = "SELECT 1 FROM participants WHERE marketer = $1"
    assert [] == await rows(world, "broker", query, other.name)


async def test_what_is_another_customers_is_not_there(world: World, deal: Deal) -> None:
    other = await world.customer()
    await other.call("vault", "ListItems", vaultpb.ListItemsRequest())  # from now on the bank is theirs
    rules = await deal.customer.call("consent", "ListRules", consentpb.ListRulesRequest())
    consent, absent, asked = deal.consent, f"consents/{new_id()}", request_id()
    async with nothing_changes(world):
        for name in (consent, absent):
            for method in ("WithdrawConsent", "PauseConsent", "ResumeConsent"):
                request = getattr(consentpb, f"{method}Request")(name=name, request_id=asked)
                assert "CONSENT_NOT_FOUND" == await refusal(other.call("consent", method, request))
            read = consentpb.GetConsentRequest(name=name)
            assert "CONSENT_NOT_FOUND" == await refusal(other.call("consent", "GetConsent", read))
        end = consentpb.DeleteRuleRequest(name=rules.rules[0].name, request_id=asked)
        assert "RULE_NOT_FOUND" == await refusal(other.call("consent", "DeleteRule", end))
        item = vaultpb.GetItemRequest(name="items/profile.city")
        assert "ITEM_NOT_FOUND" == await refusal(other.call("vault", "GetItem", item))


# --- A hostile broker ------------------------------------------------------------------------------------------------------


def _signed(body: permitpb.PermitBody, signer: Signer, key_id: str) -> tuple[permitpb.Permit, permitpb.PermitBatch]:
    raw = body.SerializeToString(deterministic=True)
    batch, (proof,) = sign_batch(signer, [raw])
    return permitpb.Permit(body=raw, proof=proof), permitpb.PermitBatch(
        root=batch.root, size=batch.size, signature=batch.signature, key_id=key_id
    )


def _changed(permitted: Carried, **changed: Any) -> permitpb.PermitBody:
    body = permitpb.PermitBody.FromString(permitted.permit.body)
    for name, value in changed.items():
        setattr(body, name, value)
    return body


def _forgeries(permitted: Carried, other: Carried) -> dict[str, tuple[permitpb.Permit, permitpb.PermitBatch]]:
    more = permitpb.PermitBody.FromString(permitted.permit.body)
    more.fields.add(attribute="contact.email", form=termspb.FORM_EXACT)

    def unsigned(body: permitpb.PermitBody) -> tuple[permitpb.Permit, permitpb.PermitBatch]:
        changed = permitpb.Permit()
        changed.CopyFrom(permitted.permit)
        changed.body = body.SerializeToString(deterministic=True)
        return changed, permitted.batch

    stranger = Signer(secrets.token_bytes(32))
    return {
        "other fields": unsigned(more),
        "another key to seal to": unsigned(_changed(permitted, sealing_key=bytes([9]) + bytes(31))),
        "another release": unsigned(_changed(permitted, release_id="a" * 32)),
        "a stranger's signature": _signed(more, stranger, stranger.key_id),
        "a stranger's signature under consent's name": _signed(more, stranger, permitted.batch.key_id),
        "another customer's permit": (other.permit, other.batch),
        "no permit": (permitpb.Permit(body=b"nonsense"), permitted.batch),
        "another batch": (permitted.permit, other.batch),
    }


async def test_forged_permit_opens_nothing_and_settles_nothing(world: World, deal: Deal) -> None:
    other = await deal_of(world, "122")
    hub = world.calling("broker")
    async with nothing_changes(world):
        permitted, others = await carried(world, deal, "121"), await carried(world, other, "122")
        good = vaultpb.ReleaseRequest(
            batch=permitted.batch,
            entries=[vaultpb.ReleaseEntry(vault_ref=permitted.vault_ref, permit=permitted.permit)],
        )
        vault: Any = VaultServiceStub(hub)
        assert (await vault.Release(good)).outcomes[0].sealed_release
        for name, (permit, batch) in _forgeries(permitted, others).items():
            entries = [vaultpb.ReleaseEntry(vault_ref=permitted.vault_ref, permit=permit)]
            (outcome,) = (await vault.Release(vaultpb.ReleaseRequest(batch=batch, entries=entries))).outcomes
            assert ("PERMIT_INVALID", b"") == (outcome.refusal, outcome.sealed_release), name
            entry = consentpb.SettleEntry(consent_ref=permitted.consent_ref, permit=permit, batch=batch)
            consent: Any = ConsentServiceStub(hub)
            (settled,) = (await consent.Settle(consentpb.SettleRequest(entries=[entry]))).outcomes
            assert consentpb.SETTLE_REFUSAL_PERMIT_INVALID == settled.refusal, name


# --- Repeats ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Act:
    """A mutation, ready to be sent."""

    caller: Caller
    service: str
    method: str
    request: Any

    async def send(self) -> Any:
        return await self.caller.call(self.service, self.method, self.request)


async def _offered(world: World) -> tuple[Customer, str]:
    age = str(100 + secrets.randbelow(3))
    customer, marketer = await world.customer(), await world.marketer()
    await customer.put(profile_city="Lisbon", profile_age=age)
    await customer.discoverable("profile.age")
    await marketer.ask(by_criteria(terms("profile.city"), between("profile.age", "100", "102")))
    offer = await customer.offer()
    await customer.discoverable("profile.age", to=0)  # nobody else is to find them
    return customer, offer.name


async def _answers(world: World) -> AsyncIterator[Act]:
    for method in ("AcceptOffer", "RefuseOffer", "DeferOffer"):
        customer, name = await _offered(world)
        yield Act(
            customer, "consent", method, getattr(consentpb, f"{method}Request")(name=name, request_id=request_id())
        )


async def _consents(world: World) -> AsyncIterator[Act]:
    for method in ("WithdrawConsent", "PauseConsent", "ResumeConsent"):
        deal = await deal_of(world, "123")
        await deal.customer.discoverable("profile.age", to=0)
        await deal.marketer.acknowledge(deal.delivery)
        if method == "ResumeConsent":
            pause = consentpb.PauseConsentRequest(name=deal.consent, request_id=request_id())
            await deal.customer.call("consent", "PauseConsent", pause)
        request = getattr(consentpb, f"{method}Request")(name=deal.consent, request_id=request_id())
        yield Act(deal.customer, "consent", method, request)


async def _rules(world: World) -> AsyncIterator[Act]:
    customer = await world.customer()
    rule = await customer.rule(3)
    yield Act(customer, "consent", "DeleteRule", consentpb.DeleteRuleRequest(name=rule.name, request_id=request_id()))
    yield Act(customer, "consent", "CreateRule", consentpb.CreateRuleRequest(rule=_rule(), request_id=request_id()))
    yield Act(customer, "consent", "ObjectToMarketing", consentpb.ObjectToMarketingRequest(request_id=request_id()))
    yield Act(customer, "consent", "LiftObjection", consentpb.LiftObjectionRequest(request_id=request_id()))


def _rule() -> consentpb.Rule:
    scope = consentpb.RuleScope(everyone=consentpb.Everyone())
    return consentpb.Rule(effect=consentpb.RULE_EFFECT_REFUSE, scope=scope)


async def _items(world: World) -> AsyncIterator[Act]:
    customer = await world.customer()
    items = [vaultpb.ItemValue(attribute="profile.city", value="Porto")]
    yield Act(customer, "vault", "PutItems", vaultpb.PutItemsRequest(items=items, request_id=request_id()))
    await customer.put(profile_age="33", contact_email="ann@example.org")
    show = vaultpb.SetDiscoverableRequest(name="items/profile.age", discoverable_to=1, request_id=request_id())  # type: ignore[arg-type] # an enum's number
    yield Act(customer, "vault", "SetDiscoverable", show)
    delete = vaultpb.DeleteItemRequest(name="items/contact.email", request_id=request_id())
    yield Act(customer, "vault", "DeleteItem", delete)


async def _exchanges(world: World) -> AsyncIterator[Act]:
    marketer = await world.marketer()
    nobody = by_criteria(terms("profile.city"), between("profile.age", "3", "3"))
    yield Act(marketer, "broker", "CreateExchange", nobody)
    made = await marketer.ask(by_criteria(terms("profile.city"), between("profile.age", "3", "3")))
    cancel = brokerpb.CancelExchangeRequest(name=made.exchange.name, request_id=request_id())
    yield Act(marketer, "broker", "CancelExchange", cancel)


async def _accounts(world: World) -> AsyncIterator[Act]:
    def key() -> bytes:
        return Signer(secrets.token_bytes(32)).public_key

    operator, importer, marketer = await world.staff("operator"), await world.staff("importer"), await world.marketer()
    registered = identitypb.RegisterCustomerRequest(public_key=key(), request_id=request_id())
    yield Act(importer, "identity", "RegisterCustomer", registered)
    name = {"import": f"repeats-{secrets.token_hex(4)}"}
    opened = identitypb.OpenImportedAccountsRequest(row_keys=["1"], **name)
    (account,) = (await importer.call("identity", "OpenImportedAccounts", opened)).accounts
    items = [vaultpb.ImportedItem(attribute="profile.city", value="Faro", provenance=vaultpb.PROVENANCE_IMPORTED)]
    entries = [vaultpb.ImportEntry(vault_ref=account.vault_ref, items=items)]
    put = vaultpb.ImportItemsRequest(entries=entries, request_id=request_id())
    yield Act(importer, "vault", "ImportItems", put)
    complete = identitypb.CompleteImportedAccountsRequest(row_keys=["1"], **name)
    (code,) = (await importer.call("identity", "CompleteImportedAccounts", complete)).claim_codes
    claim = identitypb.ClaimAccountRequest(claim_code=code, public_key=key(), request_id=request_id())
    yield Act(Caller(world.stubs, "", Signer(secrets.token_bytes(32))), "identity", "ClaimAccount", claim)
    new = identitypb.RegisterMarketerRequest(
        display_name="Twice",
        legal_entity=f"Twice {secrets.token_hex(4)} Ltd",
        verification_level=termspb.VERIFICATION_LEVEL_VERIFIED,
        contact="privacy@twice.example",
        sealing_key=marketer.sealer.public_key,
        signing_key=key(),
        request_id=request_id(),
    )
    yield Act(operator, "identity", "RegisterMarketer", new)
    update = identitypb.UpdateMarketerRequest(name=marketer.name, suspended=True, request_id=request_id())
    added = identitypb.AddMarketerKeyRequest(use=identitypb.KEY_USE_SIGNING, public_key=key(), request_id=request_id())
    yield Act(marketer, "identity", "AddMarketerKey", added)
    yield Act(operator, "identity", "UpdateMarketer", update)


async def _acts(world: World) -> list[Act]:
    kinds = (_answers, _consents, _rules, _items, _exchanges, _accounts)
    return [act for kind in kinds for act in [each async for each in kind(world)]]


async def _effects(world: World, acts: Sequence[Act], times: int) -> dict[str, tuple[int, int]]:
    before = await quiet(world)
    for act in acts:
        answers = await asyncio.gather(*(act.send() for _ in range(times)))
        assert [answers[0]] * times == answers, act.method
    return changes(without(before, BACKGROUND), without(await quiet(world), BACKGROUND))


async def test_every_mutation_sent_five_times_at_once_happens_once(world: World) -> None:
    once, often = await _acts(world), await _acts(world)
    mutations = {rpc.method.name for rpc in RPCS if "request_id" in rpc.method.input_type.fields_by_name}
    assert mutations == {act.method for act in often}
    expected = await _effects(world, once, times=1)
    assert expected
    assert expected == await _effects(world, often, times=5)


async def test_request_id_with_another_request_is_refused_everywhere(world: World) -> None:
    customer, asked = await world.customer(), request_id()
    for city, expected in (("Porto", ""), ("Lisbon", "REQUEST_ID_REUSED")):
        items = [vaultpb.ItemValue(attribute="profile.city", value=city)]
        request = vaultpb.PutItemsRequest(items=items, request_id=asked)
        assert expected == await _answer(customer.call("vault", "PutItems", request))
