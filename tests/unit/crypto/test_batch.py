from dataclasses import replace

import pytest

from parley_crypto.batch import Batch, BatchInvalid, sign_batch, verify_in_batch
from tests.unit.crypto.makers import SIGNER, STRANGER, flips

STATEMENTS = [f"statement {number}".encode() for number in range(13)]
# The batch of b"a", b"b", b"c", made once.
ROOT = "36642e73c2540ab121e3a6bf9545b0a24982cd830eb13d3cd19de3ce6c021ec1"
SIGNATURE = (
    "d5276043354527d67b50afd3239246261ceeaf32731e14f289fe548e458217eb84b68dfb8e6db5b498d330dea9d91d74e03fc38d0e9b5798ad"
    "599115c7a6cb01"
)


def test_format_has_not_drifted() -> None:
    batch, proofs = sign_batch(SIGNER, [b"a", b"b", b"c"])

    assert Batch(bytes.fromhex(ROOT), 3, bytes.fromhex(SIGNATURE)) == batch
    assert [2, 2, 1] == [len(proof) for proof in proofs]


@pytest.mark.parametrize("size", range(1, 14))
def test_every_statement_of_a_batch_is_in_it_at_its_index_alone(size: int) -> None:
    batch, proofs = sign_batch(SIGNER, STATEMENTS[:size])
    for index, proof in enumerate(proofs):
        verify_in_batch(SIGNER.public_key, batch, STATEMENTS[index], index, proof)
        for elsewhere in {*range(-1, size + 1)} - {index}:
            with pytest.raises(BatchInvalid):
                verify_in_batch(SIGNER.public_key, batch, STATEMENTS[index], elsewhere, proof)


def test_statement_of_another_batch_is_refused() -> None:
    batch, _ = sign_batch(SIGNER, STATEMENTS[:4])
    _, foreign = sign_batch(SIGNER, STATEMENTS[4:8])

    for index in range(4):
        with pytest.raises(BatchInvalid):
            verify_in_batch(SIGNER.public_key, batch, STATEMENTS[4 + index], index, foreign[index])


def test_batch_that_another_signed_is_refused() -> None:
    batch, proofs = sign_batch(STRANGER, STATEMENTS)

    with pytest.raises(BatchInvalid):
        verify_in_batch(SIGNER.public_key, batch, STATEMENTS[0], 0, proofs[0])


def test_any_flipped_bit_is_noticed_even_where_the_batch_was_verified_before() -> None:
    batch, proofs = sign_batch(SIGNER, STATEMENTS[:5])
    verify_in_batch(SIGNER.public_key, batch, STATEMENTS[2], 2, proofs[2])
    wrong = [(replace(batch, root=each), STATEMENTS[2], proofs[2]) for each in flips(batch.root)]
    wrong += [(replace(batch, signature=each), STATEMENTS[2], proofs[2]) for each in flips(batch.signature)]
    wrong += [(replace(batch, size=size), STATEMENTS[2], proofs[2]) for size in (3, 4, 6, 8)]
    wrong += [(batch, each, proofs[2]) for each in flips(STATEMENTS[2])]
    wrong += [(batch, STATEMENTS[2], [each, *proofs[2][1:]]) for each in flips(proofs[2][0])]
    wrong += [(batch, STATEMENTS[2], proof) for proof in ([], proofs[2][:-1], [*proofs[2], bytes(32)], proofs[3])]
    for each, statement, proof in wrong:
        with pytest.raises(BatchInvalid):
            verify_in_batch(SIGNER.public_key, each, statement, 2, proof)


def test_inner_node_is_no_statement() -> None:
    batch, proofs = sign_batch(SIGNER, STATEMENTS[:4])
    inner = b"".join([proofs[1][0], proofs[0][0]])  # the two leaves under the left node

    with pytest.raises(BatchInvalid):
        verify_in_batch(SIGNER.public_key, replace(batch, size=2), inner, 0, proofs[0][1:])
    with pytest.raises(BatchInvalid):
        verify_in_batch(SIGNER.public_key, batch, inner, 0, proofs[0][1:])


def test_signature_of_a_root_is_no_signature_of_anything_else() -> None:
    batch, _ = sign_batch(SIGNER, STATEMENTS)

    assert batch.signature != SIGNER.sign(batch.root)
