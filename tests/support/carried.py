"""What broker carries of a deal: references that it can't open, a candidate, and a permit."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from parley.common.v1 import permit_pb2 as permitpb
from parley.consent.v1 import consent_pb2 as consentpb
from parley.consent.v1.consent_pb2_grpc import ConsentServiceStub
from parley.identity.v1 import identity_pb2 as identitypb
from parley.identity.v1.identity_pb2_grpc import IdentityServiceStub
from parley.vault.v1 import vault_pb2 as vaultpb
from parley.vault.v1.vault_pb2_grpc import VaultServiceStub
from parley_kit.ids import new_id
from tests.support.api import Deal
from tests.support.world import World, between, terms

ASKED = terms("profile.city", valid_for=timedelta(days=9))


@dataclass(frozen=True)
class Carried:
    """For an exchange that isn't recorded: its marketer's card, a customer's references, and a good permit with its batch."""

    marketer: str
    exchange: str
    card: str
    candidate_ref: bytes
    consent_ref: bytes
    vault_ref: bytes
    audit_ref: bytes
    permit: permitpb.Permit
    batch: permitpb.PermitBatch


async def carried(world: World, deal: Deal, age: str) -> Carried:
    """What broker is given for the two who have a deal, by whoever gives it; the customer is found by their age."""
    channel, marketer = world.calling("broker"), deal.marketer.name
    identity: Any = IdentityServiceStub(channel)
    vault: Any = VaultServiceStub(channel)
    consent: Any = ConsentServiceStub(channel)
    exchange = f"{marketer}/exchanges/{new_id()}"
    card = (await identity.GetMarketerCard(identitypb.GetMarketerCardRequest(name=marketer))).card
    criteria = between("profile.age", age, age)
    found = await vault.Match(vaultpb.MatchRequest(marketer_card=card, exchange=exchange, criteria=criteria))
    introduced = await identity.Introduce(
        identitypb.IntroduceRequest(marketer=marketer, exchange=exchange, candidate_refs=found.candidate_refs)
    )
    ((candidate, one),) = (
        pair
        for pair in zip(found.candidate_refs, introduced.introductions, strict=True)
        if pair[1].pseudonym == deal.pseudonym
    )
    entry = consentpb.DecideEntry(consent_ref=one.consent_ref, audit_ref=one.audit_ref)
    decided = await consent.Decide(
        consentpb.DecideRequest(marketer_card=card, exchange=exchange, terms=ASKED, entries=[entry])
    )
    assert consentpb.DECISION_OUTCOME_ALLOWED == decided.decisions[0].outcome
    return Carried(
        marketer=marketer,
        exchange=exchange,
        card=card,
        candidate_ref=candidate,
        consent_ref=one.consent_ref,
        vault_ref=one.vault_ref,
        audit_ref=one.audit_ref,
        permit=decided.decisions[0].permit,
        batch=decided.batch,
    )
