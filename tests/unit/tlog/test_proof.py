import pytest
from hypothesis import given
from hypothesis import strategies as st

from parley_crypto.tlog import merkle
from parley_crypto.tlog.errors import PolicyUnmet, ProofInvalid
from parley_crypto.tlog.proof import MAX_HASHES, TlogProof, parse_proof, verify
from tests.unit.tlog.makers import WITNESSES, leaves, policy, proof_of, signed

HEAD = "c2sp.org/tlog-proof@v1\n"
HASH = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"


def test_the_layout_is_the_specifications() -> None:
    proof = TlogProof(5, (merkle.EMPTY_ROOT,), b"checkpoint\n", extra=b"extra")
    expected = f"{HEAD}extra ZXh0cmE=\nindex 5\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n\ncheckpoint\n"
    assert expected.encode() == proof.to_bytes()
    assert f"{HEAD}index 0\n\ncheckpoint\n".encode() == TlogProof(0, (), b"checkpoint\n").to_bytes()


hashes_of_32 = st.lists(st.binary(min_size=32, max_size=32), max_size=MAX_HASHES).map(tuple)


@given(st.builds(TlogProof, st.integers(0, 2**63 - 1), hashes_of_32, st.binary(), st.none() | st.binary(min_size=1)))
def test_proof_files_survive_a_round_trip(proof: TlogProof) -> None:
    assert proof == parse_proof(proof.to_bytes())


@pytest.mark.parametrize(
    "text",
    [
        "", "\n\n", HEAD, f"{HEAD}\n\ncheckpoint\n", "wrong-header\nindex 0\n\ncheckpoint\n", f"{HEAD}index 0\n",
        f"{HEAD}index 0",
        f"{HEAD}extra !!notbase64!!\nindex 0\n\ncheckpoint\n", f"{HEAD}extra \nindex 0\n\ncheckpoint\n",
        f"{HEAD}extra ZXh0cmE=\n\ncheckpoint\n", f"{HEAD}extra ZXh0cmF=\nindex 0\n\ncheckpoint\n",
        f"{HEAD}index notanumber\n\ncheckpoint\n", f"{HEAD}index -5\n\ncheckpoint\n", f"{HEAD}index 05\n\ncheckpoint\n",
        f"{HEAD}index  5\n\ncheckpoint\n", f"{HEAD}index 0\n!!notbase64!!\n\ncheckpoint\n",
        f"{HEAD}index 0\n{'A' * 86}==\n\ncheckpoint\n", f"{HEAD}index 0\n{HASH.strip()} \n\ncheckpoint\n",
        f"{HEAD}index 0\n{HASH * (MAX_HASHES + 1)}\ncheckpoint\n", f"{HEAD}index 0\r\n\ncheckpoint\n",
        f"{HEAD}index 0\nindex 0\n\ncheckpoint\n", f"{HEAD}index {2**63}\n\ncheckpoint\n", f" {HEAD}index 0\n\ncheckpoint\n",
    ],
)  # fmt: skip
def test_malformed_proof_files_are_refused(text: str) -> None:
    with pytest.raises(ProofInvalid):
        parse_proof(text.encode())


@pytest.mark.parametrize("size", [1, 2, 7, 64, 100])
def test_a_logged_entry_verifies_and_no_other_does(size: int) -> None:
    entry, index = b"entry", size // 2
    hashes = leaves(size)
    hashes[index] = merkle.leaf_hash(entry)
    proof = parse_proof(proof_of(hashes, index, signed(hashes, WITNESSES[:1])).to_bytes())
    assert index == verify(policy(), proof, entry)
    with pytest.raises(ProofInvalid):
        verify(policy(), proof, b"another")
    with pytest.raises(PolicyUnmet):
        verify(policy(threshold=2), proof, entry)
