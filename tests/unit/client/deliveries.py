"""Deliveries as a broker would send them, sealed and signed for real, with receipts in a small log."""

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

from parley.audit.v1 import audit_pb2 as auditpb
from parley.broker.v1 import broker_pb2 as brokerpb
from parley.common.v1 import receipt_pb2 as receiptpb
from parley_client.deliveries import Delivery, Opener
from parley_crypto.commitment import Opening, commit
from parley_crypto.jws import sign_statement
from parley_crypto.release import seal_release
from parley_crypto.tlog import merkle, receipt
from tests.unit.client.scripted import CONSENT, MARKETER, SEALER, TRUST, VAULT
from tests.unit.tlog import makers

PSEUDONYM = "p" * 32
EXCHANGE = f"{MARKETER}/exchanges/" + "x" * 26
OPENER = Opener(MARKETER, [SEALER], TRUST)
ABOUT = {"marketer": MARKETER, "pseudonym": PSEUDONYM, "consent": "consents/c"}
CLAIMS: Mapping[str, Any] = {
    **ABOUT,
    "release": "r" * 32,
    "exchange": EXCHANGE,
    "fields": [
        {"attribute": "profile.education", "form": "exact", "value": "tertiary"},
        {"attribute": "profile.age", "form": "answer", "question": {"min": "30", "max": "45"}, "answer": True},
        {"attribute": "profile.job", "form": "answer", "question": {"one_of": ["student"]}, "answer": False},
    ],
    "expires": "2026-06-01T00:00:00.000000Z",
}
CONSENT_CLAIMS: Mapping[str, Any] = {
    "record_id": "consents/c",
    "pii_principal_id": PSEUDONYM,
    "pii_processing": [{"pii_controllers": [MARKETER]}],
}
NOTICE_CLAIMS: Mapping[str, Any] = {
    "consent": "consents/c",
    "pseudonym": PSEUDONYM,
    "notice": "ConsentRevoked",
    "iat": 1_777_852_800,
}
SETTLED: Mapping[str, Any] = {"kind": "consent:release:settled", **ABOUT, "release": "r" * 32, "exchange": EXCHANGE}
WRITTEN: Mapping[str, Any] = {"kind": "consent:notice:written", **ABOUT, "notice": "ConsentRevoked"}


def release(
    claims: Mapping[str, Any] = CLAIMS,
    consent: Mapping[str, Any] = CONSENT_CLAIMS,
    detail: Mapping[str, Any] = SETTLED,
    name: str = "deliveries/1",
) -> Delivery:
    """A release; its envelope says what CLAIMS say."""
    message = brokerpb.ReleaseDelivery(
        exchange=EXCHANGE,
        release_id="r" * 32,
        pseudonym=PSEUDONYM,
        sealed_release=seal_release(VAULT, SEALER.public_key, claims),
        consent_artefact=sign_statement("consent", consent, CONSENT),
        opening=opening_to(commit(detail)),
    )
    return Delivery(brokerpb.Delivery(name=name, resume_token=name, release=message), OPENER)


def notice(detail: Mapping[str, Any] = WRITTEN) -> Delivery:
    """A notice of withdrawal."""
    message = brokerpb.ConsentNotice(
        consent="consents/c",
        pseudonym=PSEUDONYM,
        notice="ConsentRevoked",
        signed_notice=sign_statement("notice", NOTICE_CLAIMS, CONSENT),
        opening=opening_to(commit(detail)),
    )
    return Delivery(brokerpb.Delivery(name="deliveries/2", notice=message), OPENER)


def opening_to(opening: Opening) -> receiptpb.Opening:
    return receiptpb.Opening(salt=opening.salt, detail=opening.detail)


def logged(
    opening: Opening, cosigners: Sequence[Any] = tuple(makers.WITNESSES), batch: int = 3
) -> auditpb.GetProofResponse:
    """The proof that a log holds an opening's commitment, the last of a batch."""
    others = [(sha256(b"%d" % n).digest(), receipt.canonical({"other": n})) for n in range(batch - 1)]
    salted = [*others, (opening.salt, opening.detail)]
    entry, (*_, own) = makers.small_entry(salted)
    hashes = makers.leaves(13)
    hashes[4] = merkle.leaf_hash(entry)
    proof = makers.proof_of(hashes, 4, makers.signed(hashes, cosigners))
    return auditpb.GetProofResponse(proof=proof.to_bytes(), entry=entry, index=own.index, size=own.size, path=own.proof)
