from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from parley.audit.v1 import audit_pb2 as auditpb
from parley_client.deliveries import Delivery
from parley_client.errors import ReceiptInvalid
from parley_client.receipts import FILES, Verifier
from parley_crypto.tlog.errors import PolicyInvalid
from parley_crypto.tlog.policy import seal_policy
from parley_node.verify import verify_files
from tests.unit.client.deliveries import SETTLED, WRITTEN, logged, notice, release
from tests.unit.tlog import makers

POLICY = seal_policy(makers.policy(threshold=2).to_bytes())
VERIFIER = Verifier(POLICY)


@pytest.mark.parametrize(("delivery", "detail"), [(release(), SETTLED), (notice(), WRITTEN)])
def test_a_receipt_proves_what_was_delivered(delivery: Delivery, detail: dict[str, Any]) -> None:
    found = VERIFIER.check(delivery, logged(delivery.opening))

    assert (detail, 4, 13) == (found.detail, found.log_index, found.checkpoint.size)


def test_a_saved_receipt_is_verified_offline_by_anyone(tmp_path: Path) -> None:
    delivery = release()
    paths = VERIFIER.check(delivery, logged(delivery.opening)).save(tmp_path / "kept")

    assert [tmp_path / "kept" / name for name in FILES] == list(paths)
    assert SETTLED == verify_files(*paths).detail


def test_a_receipt_takes_no_other_s_place(tmp_path: Path) -> None:
    first, second = release(), notice()
    kept = VERIFIER.check(first, logged(first.opening))
    paths = kept.save(tmp_path)
    before = [path.read_bytes() for path in kept.save(tmp_path)]

    with pytest.raises(FileExistsError, match="directory of its own"):
        VERIFIER.check(second, logged(second.opening)).save(tmp_path)

    assert before == [path.read_bytes() for path in paths]
    paths[-1].write_bytes(b"{}")
    with pytest.raises(FileExistsError):
        kept.save(tmp_path)


@pytest.mark.parametrize("name", ["release", "pseudonym", "exchange", "consent", "marketer", "kind"])
def test_a_log_that_says_otherwise_than_what_was_delivered_is_refused(name: str) -> None:
    delivery = release(detail={**SETTLED, name: "other"})

    with pytest.raises(ReceiptInvalid, match=f"otherwise.*{name}"):
        VERIFIER.check(delivery, logged(delivery.opening))


def test_a_notice_is_not_proven_by_an_entry_about_another_consent() -> None:
    delivery = notice({**WRITTEN, "consent": "consents/other"})

    with pytest.raises(ReceiptInvalid, match="consent"):
        VERIFIER.check(delivery, logged(delivery.opening))


def change(**fields: object) -> Callable[[auditpb.GetProofResponse], None]:
    def spoil(proof: auditpb.GetProofResponse) -> None:
        for name, value in fields.items():
            setattr(proof, name, value)

    return spoil


@pytest.mark.parametrize(
    "spoil",
    [
        change(entry=b"\x01" + bytes(32)),
        change(entry=b""),
        change(proof=b""),
        change(index=0),
        change(size=99),
        lambda proof: proof.ClearField("path"),
        lambda proof: proof.path.append(b"short"),
    ],
)
def test_a_proof_that_does_not_hold_is_refused(spoil: Callable[[auditpb.GetProofResponse], None]) -> None:
    delivery = release()
    proof = logged(delivery.opening)
    spoil(proof)

    with pytest.raises(ReceiptInvalid, match="not a valid receipt"):
        VERIFIER.check(delivery, proof)


def test_a_proof_of_another_opening_is_refused() -> None:
    with pytest.raises(ReceiptInvalid, match="doesn't open this entry"):
        VERIFIER.check(release(), logged(release().opening))


def test_too_few_witnesses_are_not_enough() -> None:
    delivery = release()

    with pytest.raises(ReceiptInvalid, match="too few witnesses"):
        VERIFIER.check(delivery, logged(delivery.opening, cosigners=makers.WITNESSES[:1]))


@pytest.mark.parametrize("detail", [b"", b"{", b'{"b": 1}', b"[1]", b"\xff"])
def test_an_opening_that_is_malformed_is_refused(detail: bytes) -> None:
    delivery = release()
    delivery.message.release.opening.detail = detail

    with pytest.raises(ReceiptInvalid):
        VERIFIER.check(delivery, logged(release().opening))


def test_a_policy_that_is_not_sealed_is_refused() -> None:
    with pytest.raises(PolicyInvalid):
        Verifier(makers.policy().to_bytes())
