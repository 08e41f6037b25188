"""Can a customer and a marketer get through? The exchange, from the request to the withdrawal."""

import hashlib
from datetime import timedelta

import grpc
import pytest

from parley.audit.v1 import audit_pb2 as auditpb
from parley.broker.v1 import broker_pb2 as brokerpb
from parley.common.v1 import terms_pb2 as termspb
from parley.consent.v1 import consent_pb2 as consentpb
from parley.vault.v1 import vault_pb2 as vaultpb
from parley_crypto.jws import verify_statement
from parley_crypto.tlog.policy import parse_sealed_policy
from parley_crypto.tlog.receipt import Opening, verify_receipt
from tests.support.calls import request_id
from tests.support.canaries import word
from tests.support.waiting import until
from tests.support.world import Customer, Marketer, World, between, by_criteria, one_of, terms, to_known

ALLOW, ASK, REFUSE = 1, 2, 3
CITY, NEW_CITY = word(), word()


async def _hiker(world: World, age: str = "34") -> Customer:
    customer = await world.customer()
    await customer.put(interest_hiking="yes", profile_age=age, profile_city=CITY)
    await customer.discoverable("interest.hiking", "profile.age")
    return customer


async def test_accepted_offer_releases_exactly_what_was_agreed(world: World) -> None:
    marketer, customer = await world.marketer(), await _hiker(world, age="91")
    await marketer.ask(by_criteria(terms("profile.city"), between("profile.age", "91", "91"), "Walk with us"))
    offer = await customer.offer()
    assert ("Walk with us", marketer.name) == (offer.text, offer.marketer)
    consent = await customer.accept(offer)
    (delivery,) = await marketer.collect(1)
    release = world.opened(marketer, delivery)
    assert [
        {"attribute": "profile.city", "form": "exact", "value": CITY},
        {"attribute": "profile.age", "form": "answer", "question": {"max": "91", "min": "91"}, "answer": True},
    ] == release["fields"]
    assert (marketer.name, delivery.release.pseudonym, consent.name) == (
        release["marketer"],
        release["pseudonym"],
        release["consent"],
    )
    artefact = verify_statement("consent", delivery.release.consent_artefact, world.trust.keys("consent"))
    assert delivery.release.pseudonym == artefact["pii_principal_id"]
    await marketer.acknowledge(delivery)
    assert [] == await marketer.collect_for(0.5)


async def test_withdrawn_consent_ends_what_a_marketer_gets(world: World) -> None:
    marketer, customer = await world.marketer(), await _hiker(world, age="92")
    await marketer.ask(by_criteria(terms("profile.city"), between("profile.age", "92", "92")))
    consent = await customer.accept(await customer.offer())
    (delivery,) = await marketer.collect(1)
    pseudonym = delivery.release.pseudonym
    again = await marketer.ask(to_known(_briefly("profile.city"), pseudonym, in_answer=True))
    assert again.HasField("delivery")
    withdrawn = await customer.withdraw(consent.name)
    assert consentpb.CONSENT_STATE_REVOKED == withdrawn.state
    assert {delivery.release.release_id, again.delivery.release.release_id} == {
        settlement.release_id for settlement in withdrawn.settlements
    }
    refused = await marketer.ask(to_known(_briefly("profile.city"), pseudonym, in_answer=True))
    assert not refused.HasField("delivery")
    (notice,) = [one for one in await marketer.collect(1) if one.HasField("notice")]
    assert ("ConsentRevoked", consent.name) == (notice.notice.notice, notice.notice.consent)


async def test_unacknowledged_release_is_not_sent_again_after_a_withdrawal(world: World) -> None:
    marketer, customer = await world.marketer(), await _hiker(world, age="93")
    await marketer.ask(by_criteria(terms("profile.city"), between("profile.age", "93", "93")))
    consent = await customer.accept(await customer.offer())
    await marketer.collect(1)
    await customer.withdraw(consent.name)
    assert [] == [one for one in await marketer.collect_for(1.0) if one.HasField("release")]


async def test_unacknowledged_release_comes_again_though_the_customer_acted_elsewhere(world: World) -> None:
    marketer, customer = await world.marketer(), await _hiker(world, age="94")
    await marketer.ask(by_criteria(terms("profile.city"), between("profile.age", "94", "94")))
    await customer.accept(await customer.offer())
    (first,) = await marketer.collect(1)
    await customer.rule(REFUSE, termspb.Terms(purposes=["https://w3id.org/dpv#Advertising"]))
    (second,) = await marketer.collect(1)
    assert (first.name, first.release.release_id) == (
        second.name,
        second.release.release_id,
    )  # nothing tells of the act
    assert world.opened(marketer, first)["fields"] == world.opened(marketer, second)["fields"]


async def test_release_that_is_sent_later_holds_nothing_changed_or_deleted_since(world: World) -> None:
    marketer, customer = await world.marketer(), await _hiker(world, age="89")
    await marketer.ask(by_criteria(terms("profile.city", "interest.hiking"), between("profile.age", "89", "89")))
    await customer.accept(await customer.offer())
    (first,) = await marketer.collect(1)
    await customer.put(profile_city=NEW_CITY)
    await customer.call(
        "vault", "DeleteItem", vaultpb.DeleteItemRequest(name="items/interest.hiking", request_id=request_id())
    )
    (second,) = await marketer.collect(1)
    assert first.name == second.name
    assert {"profile.city": NEW_CITY} == {
        one["attribute"]: one["value"] for one in world.opened(marketer, second)["fields"] if one["form"] == "exact"
    }


async def test_allow_rule_agrees_at_once_and_refuse_rule_never(world: World) -> None:
    marketer = await world.marketer()
    willing, unwilling = await _hiker(world, age="95"), await _hiker(world, age="95")
    await willing.rule(ALLOW, terms("profile.city", "profile.age", valid_for=timedelta(days=365), decide_within=None))
    await unwilling.rule(REFUSE)
    await marketer.ask(by_criteria(terms("profile.city"), between("profile.age", "95", "95")))
    (delivery,) = await marketer.collect(1)
    assert delivery.release.HasField("consent_opening")
    (consent,) = (await willing.call("consent", "ListConsents", consentpb.ListConsentsRequest())).consents
    assert consent.rule
    assert [] == await unwilling.offers()
    assert [] == [one for one in await marketer.collect_for(0.5) if one.release.pseudonym != consent.pseudonym]


async def test_refused_absent_undecided_and_unmatched_are_one_to_the_marketer(world: World) -> None:
    marketer = await world.marketer()
    people = [await _hiker(world, age="96") for _ in range(3)]
    await people[0].rule(REFUSE)
    criteria = between("profile.age", "96", "96")
    asked = await marketer.ask(by_criteria(terms("profile.city"), criteria))
    nobody = await marketer.ask(by_criteria(terms("profile.city"), between("profile.age", "4", "4")))
    offer = await people[1].offer()
    await people[1].call(
        "consent", "RefuseOffer", consentpb.RefuseOfferRequest(name=offer.name, request_id=request_id())
    )
    await people[2].offer()
    seen = [
        await marketer.call("broker", "GetExchange", brokerpb.GetExchangeRequest(name=one.exchange.name))
        for one in (asked, nobody)
    ]
    assert {brokerpb.EXCHANGE_STATE_REQUESTED} == {one.state for one in seen}
    unknown = await marketer.ask(to_known(terms("profile.city"), "a" * 32, in_answer=True))
    assert brokerpb.EXCHANGE_STATE_REQUESTED == unknown.exchange.state
    assert not unknown.HasField("delivery")


async def test_objection_ends_every_consent_and_stands_above_rules_until_it_is_lifted(world: World) -> None:
    marketer, customer = await world.marketer(), await _hiker(world, age="90")
    await customer.rule(ALLOW, terms("profile.city", "profile.age", valid_for=timedelta(days=365), decide_within=None))
    await marketer.ask(by_criteria(terms("profile.city"), between("profile.age", "90", "90")))
    (delivery,) = await marketer.collect(1)
    objection = consentpb.ObjectToMarketingRequest(request_id=request_id())
    (ended,) = (await customer.call("consent", "ObjectToMarketing", objection)).ended
    assert [delivery.release.release_id] == [settlement.release_id for settlement in ended.settlements]
    request = to_known(_briefly("profile.city"), delivery.release.pseudonym, in_answer=True)
    assert not (await marketer.ask(request)).HasField("delivery")
    await customer.call("consent", "LiftObjection", consentpb.LiftObjectionRequest(request_id=request_id()))
    request = to_known(_briefly("profile.city"), delivery.release.pseudonym, in_answer=True)
    assert (await marketer.ask(request)).HasField("delivery")


async def test_customer_sees_in_their_history_who_got_what_and_why(world: World) -> None:
    marketer, customer = await world.marketer(), await _hiker(world, age="97")
    await marketer.ask(by_criteria(terms("profile.city"), between("profile.age", "97", "97")))
    await customer.accept(await customer.offer())
    await marketer.collect(1)

    async def kinds() -> set[str]:
        answer = await customer.call("audit", "ListHistory", auditpb.ListHistoryRequest())
        return {entry.kind for entry in answer.entries}

    async def told() -> bool:
        return {"consent:offer:accepted", "consent:release:settled", "vault:items:put"} <= await kinds()

    await until(told)


async def test_receipt_of_a_release_is_verified_offline(world: World) -> None:
    marketer, customer = await world.marketer(), await _hiker(world, age="98")
    await marketer.ask(by_criteria(terms("profile.city"), between("profile.age", "98", "98")))
    await customer.accept(await customer.offer())
    (delivery,) = await marketer.collect(1)
    salt, detail = delivery.release.opening.salt, delivery.release.opening.detail
    proof = await _proof(world, hashlib.sha256(salt + detail).digest())
    opening = Opening(salt, detail, proof.index, proof.size, tuple(proof.path))
    policy = parse_sealed_policy(world.home.policy.read_bytes())
    receipt = verify_receipt(policy, proof.proof, proof.entry, opening.to_bytes())
    assert delivery.release.release_id == receipt.detail["release"]


async def test_exchange_of_another_marketer_reads_like_one_that_is_not_there(world: World) -> None:
    owner, other = await world.marketer(), await world.marketer()
    made = await owner.ask(by_criteria(terms("profile.city"), one_of("interest.hiking", "true")))
    absent = f"{other.name}/exchanges/{'a' * 26}"
    answers = [await _refusal(other, name) for name in (made.exchange.name, absent)]
    assert answers[0] == answers[1]


def _briefly(attribute: str) -> termspb.Terms:
    """A request that lies within the consent agreed a moment ago."""
    return terms(attribute, valid_for=timedelta(days=20))


async def _refusal(marketer: Marketer, name: str) -> tuple[object, str | None, object]:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await marketer.call("broker", "GetExchange", brokerpb.GetExchangeRequest(name=name))
    return refused.value.code(), refused.value.details(), refused.value.trailing_metadata()


async def _proof(world: World, commitment: bytes) -> auditpb.GetProofResponse:
    request = auditpb.GetProofRequest(commitment=commitment)

    async def logged() -> bool:
        try:
            await world.stubs.audit.GetProof(request)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            return False
        return True

    await until(logged)
    proof: auditpb.GetProofResponse = await world.stubs.audit.GetProof(request)
    return proof
