import pytest

from parley_crypto.tlog import merkle
from parley_crypto.tlog.checkpoint import Checkpoint
from parley_crypto.tlog.errors import CheckpointInvalid, NoteInvalid, PolicyInvalid, PolicyUnmet
from parley_crypto.tlog.note import Ed25519Signer, KeyType, PrivateKey, sign_note
from parley_crypto.tlog.policy import Group, Policy, Witness, parse_policy, parse_sealed_policy, seal_policy
from tests.unit.tlog.makers import LOG, WITNESSES, cosigner, flips, leaves, policy, signed, witness

HASHES = leaves(5)
CHECKPOINT = Checkpoint(LOG.name, 5, merkle.root(HASHES))
LOG_LINE = f"log {LOG.vkey()}\n"
W1, W2, W3 = (f"witness w{n} {each.vkey(KeyType.COSIGNATURE)}\n" for n, each in enumerate(WITNESSES, 1))
NESTED = f"""
# Three witnesses of one firm, and one more.
\t log   {LOG.vkey()}\thttps://log.example/  \n
{W1}{W2}group firm any w1 w2
witness \u00e9t\u00e9 {WITNESSES[2].vkey(KeyType.COSIGNATURE)} https://w3.example
group everyone all firm \u00e9t\u00e9
quorum everyone
"""


def met(text: str, *cosigners: int) -> bool:
    try:
        assert parse_policy(text.encode()).check(signed(HASHES, [WITNESSES[n - 1] for n in cosigners])) == CHECKPOINT
    except PolicyUnmet:
        return False
    return True


def test_a_policy_written_as_the_specification_allows_is_read() -> None:
    assert met(NESTED, 1, 3)
    assert met(NESTED, 2, 3)
    assert not met(NESTED, 1, 2)
    assert not met(NESTED, 3)


def test_a_quorum_may_be_nobody_or_one_witness() -> None:
    assert met(f"{LOG_LINE}quorum none\n")
    assert met(f"{LOG_LINE}{W1}{W2}quorum w2\n", 2)
    assert not met(f"{LOG_LINE}{W1}{W2}quorum w2\n", 1)


@pytest.mark.parametrize(("threshold", "enough"), [("1", 1), ("any", 1), ("2", 2), ("3", 3), ("all", 3)])
def test_a_group_is_met_from_its_threshold_on(threshold: str, enough: int) -> None:
    text = f"{LOG_LINE}{W1}{W2}{W3}group g {threshold} w1 w2 w3\nquorum g\n"
    assert [count >= enough for count in range(4)] == [met(text, *range(1, count + 1)) for count in range(4)]


def test_any_one_of_several_logs_will_do_under_its_own_name_only() -> None:
    other = PrivateKey("log.example/2027", WITNESSES[0].seed)
    both = Policy((LOG.vkey(), other.vkey()))
    assert both.check(signed(HASHES)) == CHECKPOINT
    with pytest.raises(PolicyUnmet, match="own name"):
        both.check(signed(HASHES, origin=other.name))


def test_a_policy_without_logs_is_read_and_believes_nothing() -> None:
    with pytest.raises(NoteInvalid):
        parse_policy(b"quorum none\n").check(signed(HASHES))
    with pytest.raises(PolicyUnmet):
        parse_policy(f"{W1}quorum w1\n".encode()).check(signed(HASHES, WITNESSES[:1]))


def test_a_signed_text_that_is_no_checkpoint_is_refused() -> None:
    note = sign_note("log.example/2026\nmore\n", [Ed25519Signer(LOG)])
    with pytest.raises(CheckpointInvalid):
        policy().check(note)


def test_strangers_lines_are_ignored_unless_every_line_is_to_count() -> None:
    note = sign_note(
        CHECKPOINT.text(), [Ed25519Signer(LOG), cosigner(WITNESSES[0]), cosigner(PrivateKey("x", LOG.seed))]
    )
    assert policy().check(note) == CHECKPOINT
    with pytest.raises(PolicyUnmet, match="doesn't name"):
        policy().check_every_line(note)
    assert policy().check_every_line(signed(HASHES, WITNESSES)) == CHECKPOINT


def test_a_known_witness_with_a_false_signature_spoils_the_checkpoint() -> None:
    lines = signed(leaves(6), WITNESSES[1:2]).decode().splitlines(keepends=True)
    with pytest.raises(NoteInvalid, match="doesn't verify"):
        policy().check(signed(HASHES, WITNESSES[:1]) + lines[-1].encode())


@pytest.mark.parametrize(
    "text",
    [
        "", "\n", LOG_LINE, f"{LOG_LINE}quorum none", f"{LOG_LINE}quorum none\nquorum none\n", f"{LOG_LINE}quorum w1\n",
        f"{LOG_LINE}quorum w1\n{W1}", f"{LOG_LINE}quorum none none\n", f"{LOG_LINE}quorum\n", "quorum none\nlog\n",
        f"{LOG_LINE}{LOG_LINE}quorum none\n", f"{W1}{W1}quorum none\n", f"{W1}{W2.replace('w2', 'w1')}quorum none\n",
        f"{W1.replace('w1', 'none')}quorum none\n", f"{W1}group w1 1 w1\nquorum w1\n", f"{W1}group none 1 w1\nquorum none\n",
        f"{W1}group g 0 w1\nquorum g\n", f"{W1}group g 2 w1\nquorum g\n", f"{W1}group g 01 w1\nquorum g\n",
        f"{W1}group g most w1\nquorum g\n", f"{W1}group g any\nquorum g\n", f"{W1}group g any w2\n{W2}quorum g\n",
        f"{W1}group g any g\nquorum g\n", f"{W1}group g any none\nquorum g\n", f"{W1}group g any w1 w1\nquorum g\n",
        f"{W1}{W2}group g any w1 w2\ngroup h any w1\nquorum g\n", f"{LOG_LINE}{W1.replace('witness w1', 'log')}quorum none\n",
        f"witness w {LOG.vkey()}\nquorum none\n", f"{LOG_LINE}witness w {LOG.vkey(KeyType.COSIGNATURE)}\nquorum none\n",
        f"{LOG_LINE.strip()} a b\nquorum none\n", f"{W1.strip()} a b\nquorum none\n", "log x+00000000+Bg==\nquorum none\n",
        f"LOG {LOG.vkey()}\nquorum none\n", f"{LOG_LINE}quorum none\r\n", f"{LOG_LINE}quorum none\x7f\n",
        f"{LOG_LINE}quorum\u00a0none\n", "logs\nquorum none\n",
        "quorum none\n# comment", "# \x00\nquorum none\n", f"{LOG_LINE.strip()} \x7f\nquorum none\n",
    ],
)  # fmt: skip
def test_malformed_policies_are_refused(text: str) -> None:
    with pytest.raises(PolicyInvalid):
        parse_policy(text.encode())


def test_names_are_bytes_that_need_not_be_text() -> None:
    raw = f"{LOG_LINE}{W1}".encode().replace(b"w1", b"\xff\xfe") + b"quorum \xff\xfe\n"
    assert raw == parse_policy(raw).to_bytes()
    with pytest.raises(PolicyInvalid):
        parse_policy(raw.replace(b"log.example", b"log.ex\xffmple"))


def test_policies_survive_a_round_trip() -> None:
    assert policy() == parse_policy(policy().to_bytes()) == parse_sealed_policy(seal_policy(policy().to_bytes()))


W1_ALONE = (witness("w1", WITNESSES[0]),)


@pytest.mark.parametrize(
    ("witnesses", "groups", "quorum"),
    [
        ((), (), "w1"),
        ((witness("a b", WITNESSES[0]),), (), "none"),
        ((witness("", WITNESSES[0]),), (), "none"),
        (W1_ALONE, (Group("g", 1, ("h",)), Group("h", 1, ("w1",))), "g"),
        (W1_ALONE, (Group("g", 0, ("w1",)),), "g"),
    ],
)
def test_policies_that_make_no_sense_are_not_built(
    witnesses: tuple[Witness, ...], groups: tuple[Group, ...], quorum: str
) -> None:
    with pytest.raises(PolicyInvalid):
        Policy((LOG.vkey(),), witnesses, groups, quorum)


def test_standard_readers_take_a_sealed_policy_for_the_same() -> None:
    assert parse_policy(NESTED.encode()) == parse_policy(seal_policy(NESTED.encode()))


def test_every_turned_bit_of_a_sealed_policy_is_refused() -> None:
    for bad in flips(seal_policy(NESTED.encode())):
        with pytest.raises(PolicyInvalid):
            parse_sealed_policy(bad)


def test_a_policy_that_nobody_sealed_is_refused() -> None:
    sealed = seal_policy(policy().to_bytes())
    for bad in [policy().to_bytes(), b"", b"\n", sealed[:-1], sealed + b"\n", sealed + b"# more\n", sealed[1:]]:
        with pytest.raises(PolicyInvalid):
            parse_sealed_policy(bad)
    with pytest.raises(PolicyInvalid):
        seal_policy(b"nonsense\n")
