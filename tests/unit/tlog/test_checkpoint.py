import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parley_crypto.tlog.checkpoint import Checkpoint, parse_checkpoint
from parley_crypto.tlog.cosignature import CosignatureVerifier, Cosigner
from parley_crypto.tlog.errors import CheckpointInvalid, NoteInvalid
from parley_crypto.tlog.note import Ed25519Signer, KeyType, open_note, parse_vkey, sign_note, signature_line
from tests.unit.tlog.makers import LOG, NOW, WITNESSES, cosigner, flips, leaves, signed

# c2sp.org/tlog-checkpoint's own example text.
EXAMPLE = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
ROOT = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I="
VERIFIER = CosignatureVerifier(WITNESSES[0].vkey(KeyType.COSIGNATURE))


def test_the_specifications_example_is_read_and_written() -> None:
    checkpoint = parse_checkpoint(EXAMPLE)
    assert (checkpoint.origin, checkpoint.size) == ("example.com/behind-the-sofa", 20852163)
    assert checkpoint.text() == EXAMPLE


@given(
    st.text(min_size=1).filter(lambda text: min(text) >= " "),
    st.integers(0, 2**63 - 1),
    st.binary(min_size=32, max_size=32),
)
def test_checkpoints_survive_a_round_trip(origin: str, size: int, root: bytes) -> None:
    checkpoint = Checkpoint(origin, size, root)
    assert checkpoint == parse_checkpoint(checkpoint.text())


@pytest.mark.parametrize(
    "text",
    [
        "", "\n", f"o\n1\n{ROOT}", f"\n1\n{ROOT}\n", f"o\n01\n{ROOT}\n", f"o\n-1\n{ROOT}\n", f"o\n+1\n{ROOT}\n",
        f"o\n\n{ROOT}\n", f"o\n1 \n{ROOT}\n", f"o\n\u0661\n{ROOT}\n", f"o\n{2**63}\n{ROOT}\n", f"o\n{'9' * 5000}\n{ROOT}\n",
        "o\n1\nAAAA\n", f"o\n1\n{ROOT[:-2]}J=\n", f"o\n1\n{ROOT}\nextension\n", f"o\n1\n{ROOT}\n\n", f"o\t\n1\n{ROOT}\n",
    ],
)  # fmt: skip
def test_malformed_checkpoints_are_refused(text: str) -> None:
    with pytest.raises(CheckpointInvalid):
        parse_checkpoint(text)


def test_checkpoints_that_no_text_can_carry_are_not_built() -> None:
    for origin, size, root in [("", 1, bytes(32)), ("a\nb", 1, bytes(32)), ("a", -1, bytes(32)), ("a", 1, bytes(31))]:
        with pytest.raises(CheckpointInvalid):
            Checkpoint(origin, size, root)


def test_a_cosignature_is_a_time_and_a_signature_over_it_and_the_text() -> None:
    line = signature_line(EXAMPLE, cosigner(WITNESSES[0]))
    assert (len(line.signature), struct.unpack_from(">Q", line.signature)[0]) == (72, NOW)
    message = f"cosignature/v1\ntime {NOW}\n{EXAMPLE}".encode()
    assert line.signature[8:] == Ed25519Signer(WITNESSES[0]).sign(message)
    assert VERIFIER.verifies(EXAMPLE.encode(), line.signature)


def test_every_turned_bit_of_a_cosignature_is_refused() -> None:
    signature = cosigner(WITNESSES[0]).sign(EXAMPLE.encode())
    for bad in [*flips(signature), signature[:-1], signature + b"\x00", signature[8:], signature[:7], b""]:
        assert not VERIFIER.verifies(EXAMPLE.encode(), bad)


def test_times_beyond_63_bits_are_refused() -> None:
    signature = Cosigner(WITNESSES[0], lambda: 2**63).sign(EXAMPLE.encode())
    assert not VERIFIER.verifies(EXAMPLE.encode(), signature)


def test_a_witness_signs_checkpoints_and_nothing_else() -> None:
    with pytest.raises(CheckpointInvalid):
        cosigner(WITNESSES[0]).sign(b"I owe you\n")


def test_a_plain_signature_does_not_pass_as_a_cosignature() -> None:
    note = sign_note(EXAMPLE, [Ed25519Signer(WITNESSES[0])])
    with pytest.raises(NoteInvalid, match="no known key"):
        open_note(note, [VERIFIER])


def test_a_witness_appends_its_line_to_the_logs_note() -> None:
    note = signed(leaves(5))
    text = note.decode().partition("\n\n")[0] + "\n"
    cosigned = note + str(signature_line(text, cosigner(WITNESSES[0]))).encode()
    assert signed(leaves(5), WITNESSES[:1]) == cosigned
    assert (VERIFIER.key,) == open_note(cosigned, [VERIFIER]).signed_by


def test_vkeys_of_witnesses_carry_their_type() -> None:
    assert VERIFIER.key == parse_vkey(str(VERIFIER.key))
    assert LOG.vkey() != LOG.vkey(KeyType.COSIGNATURE)
