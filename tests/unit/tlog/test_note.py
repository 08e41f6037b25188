import pytest
from hypothesis import given
from hypothesis import strategies as st

from parley_crypto.tlog import ed25519
from parley_crypto.tlog.errors import KeyInvalid, NoteInvalid
from parley_crypto.tlog.note import (
    MAX_SIGNATURES,
    Ed25519Signer,
    Ed25519Verifier,
    KeyType,
    PrivateKey,
    VerifierKey,
    open_note,
    parse_private_key,
    parse_vkey,
    sign_note,
    split_note,
)
from tests.unit.tlog.makers import LOG, WITNESSES, flips

# c2sp.org/signed-note, "Example".
EXAMPLE_KEY = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k"
EXAMPLE = (
    "This is an example message.\n\n— example.com/foo "
    "Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n"
)
# The well-known key pair of Go's sumdb/note.
NEUMANN_SECRET = "PRIVATE+KEY+PeterNeumann+c74f20a3+AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz"
NEUMANN_KEY = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
NEUMANN = (
    "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)
# A checkpoint that Sigsum published, signed with the seed 11 00 ... 00.
SIGSUM_ORIGIN = "sigsum.org/v1/tree/e796172b92befd62d9dc67e41c2f5bc9d3100a3023b20b1ca40288dd1c679e69"
SIGSUM_TEXT = f"{SIGSUM_ORIGIN}\n10\nHA5HAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n"
SIGSUM_LINE = (
    f"— {SIGSUM_ORIGIN} gJ2ho0n8F8olcerUF1FFdv235A/5as/coWrpLrtE7ovMeP5whgwouYExowG/lTznxu6OUGjjt5yJQ6bXtTcf718MqAQ=\n"
)
VERIFIER = Ed25519Verifier(LOG.vkey())
TEXT = "one line\n"
NOTE = sign_note(TEXT, [Ed25519Signer(LOG)])


def test_the_specifications_example_verifies() -> None:
    opened = open_note(EXAMPLE.encode(), [Ed25519Verifier(parse_vkey(EXAMPLE_KEY))])
    assert opened.text == "This is an example message.\n"


def test_published_signatures_are_reproduced_byte_for_byte() -> None:
    neumann = parse_private_key(NEUMANN_SECRET)
    assert str(neumann.vkey()) == NEUMANN_KEY
    assert NEUMANN.encode() == sign_note(NEUMANN.partition("\n\n")[0] + "\n", [Ed25519Signer(neumann)])
    sigsum = PrivateKey(SIGSUM_ORIGIN, bytes([0x11]) + bytes(31))
    assert f"{SIGSUM_TEXT}\n{SIGSUM_LINE}".encode() == sign_note(SIGSUM_TEXT, [Ed25519Signer(sigsum)])


def test_keys_are_read_as_they_are_written() -> None:
    assert parse_private_key(LOG.secret_text()) == LOG
    for key_type in KeyType:
        assert LOG.vkey(key_type) == parse_vkey(str(LOG.vkey(key_type)))


def test_one_key_has_another_id_for_each_use() -> None:
    assert LOG.vkey(KeyType.ED25519).id != LOG.vkey(KeyType.COSIGNATURE).id


def test_seeds_stay_out_of_representations() -> None:
    assert f"PrivateKey(name={LOG.name!r})" == repr(LOG)


@pytest.mark.parametrize("text", [str(LOG.vkey()), LOG.secret_text()])
def test_one_changed_character_of_a_key_is_refused(text: str) -> None:
    parse = parse_private_key if text.startswith("PRIVATE") else parse_vkey
    for bad in flips(text.encode()):
        with pytest.raises(KeyInvalid):
            parse(bad.decode(errors="surrogateescape"))


@pytest.mark.parametrize(
    "text",
    ["", "name", "name+", "name++", "name+00000000+", "+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k",
     EXAMPLE_KEY.replace("530d903a", "530D903A"), EXAMPLE_KEY + "\n", NEUMANN_SECRET],
)  # fmt: skip
def test_malformed_keys_are_refused(text: str) -> None:
    with pytest.raises(KeyInvalid):
        parse_vkey(text)


def test_a_public_key_is_no_private_key_and_unknown_types_are_named() -> None:
    with pytest.raises(KeyInvalid):
        parse_private_key(NEUMANN_KEY)
    with pytest.raises(KeyInvalid, match="0x06"):
        parse_vkey("name+00000000+Bg==")
    with pytest.raises(KeyInvalid):
        parse_private_key(f"PRIVATE+KEY+{LOG.vkey(KeyType.COSIGNATURE)}")


# y = 0, 1, -1 and one of order 8; y = p + 1 is 1 spelt another way; the last is no point at all.
@pytest.mark.parametrize(
    "public",
    ["00" * 32, "01" + "00" * 31, "ec" + "ff" * 30 + "7f",
     "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05", "ee" + "ff" * 30 + "7f", "02" + "00" * 31],
)  # fmt: skip
def test_unsound_public_keys_are_refused(public: str) -> None:
    with pytest.raises(KeyInvalid):
        VerifierKey("name", KeyType.ED25519, bytes.fromhex(public))


def test_seeds_and_keys_of_another_length_are_refused() -> None:
    with pytest.raises(KeyInvalid):
        PrivateKey("name", bytes(31)).vkey()
    with pytest.raises(KeyInvalid):
        ed25519.check_public_key(LOG.vkey().public + b"\x00")
    assert not ed25519.verifies(LOG.vkey().public, b"", bytes(63))


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\u00a0b", "a\u2003b", "a\nb", "a\x01b", "a\udc80b"])
def test_names_that_no_signature_line_can_carry_are_refused(name: str) -> None:
    with pytest.raises(KeyInvalid):
        VerifierKey(name, KeyType.ED25519, LOG.vkey().public)


def test_lines_of_unknown_keys_are_ignored_and_counted() -> None:
    strangers = [Ed25519Signer(PrivateKey(LOG.name, WITNESSES[0].seed)), Ed25519Signer(PrivateKey("other", LOG.seed))]
    opened = open_note(sign_note(TEXT, [*strangers, Ed25519Signer(LOG)]), [VERIFIER])
    assert (TEXT, (LOG.vkey(),), 2) == (opened.text, opened.signed_by, opened.ignored)


def test_a_note_that_no_known_key_signed_is_refused() -> None:
    with pytest.raises(NoteInvalid, match="no known key"):
        open_note(sign_note(TEXT, [Ed25519Signer(WITNESSES[0])]), [VERIFIER])


def test_one_false_signature_of_a_known_key_spoils_the_note() -> None:
    other = Ed25519Verifier(WITNESSES[0].vkey())
    spoilt = sign_note("another\n", [Ed25519Signer(WITNESSES[0])]).partition(b"\n\n")[2]
    open_note(NOTE + spoilt, [VERIFIER])
    with pytest.raises(NoteInvalid, match="doesn't verify"):
        open_note(NOTE + spoilt, [VERIFIER, other])


def test_two_lines_of_one_known_key_are_refused() -> None:
    with pytest.raises(NoteInvalid, match="twice"):
        open_note(sign_note(TEXT, [Ed25519Signer(LOG)] * 2), [VERIFIER])


def test_every_turned_bit_of_a_note_is_refused() -> None:
    for bad in flips(NOTE):
        with pytest.raises(NoteInvalid):
            open_note(bad, [VERIFIER])


def test_the_text_may_hold_empty_lines_and_any_script() -> None:
    text = "trafitto da un raggio di sole:\n\ned è subito sera.\n\n\u2028x\n"
    assert text == open_note(sign_note(text, [Ed25519Signer(LOG)]), [VERIFIER]).text


@pytest.mark.parametrize("text", ["", "no newline", "tab\there\n", "cr\r\n", "nul\x00\n", "surrogate \udc80\n"])
def test_texts_that_no_note_can_carry_are_not_signed(text: str) -> None:
    with pytest.raises(NoteInvalid):
        sign_note(text, [Ed25519Signer(LOG)])


SIGNATURE = NOTE.decode().partition("\n\n")[2]


@pytest.mark.parametrize(
    "note",
    [
        "", "\n", "\n\n", TEXT, f"{TEXT}\n", f"{TEXT}{SIGNATURE}", f"{TEXT}\n{SIGNATURE[:-1]}", f"{TEXT}\n{SIGNATURE}\n",
        f"{TEXT}\n{SIGNATURE}junk\n", f"{TEXT}\n-{SIGNATURE[1:]}", f"{TEXT}\n{SIGNATURE[2:]}",
        f"{TEXT}\n{SIGNATURE.replace(' ', '  ')}",
        f"{TEXT}\n— name\n", f"{TEXT}\n— name \n", f"{TEXT}\n— name AAAAAA==\n", f"{TEXT}\n—  AAAAAAA=\n",
        f"{TEXT}\n— na+me AAAAAAA=\n", f"{TEXT}\n— name AAAAAAB=\n", f"{TEXT}\n{SIGNATURE}— name AAAAAAA\n",
        f"\ttab\n\n{SIGNATURE}", f"{TEXT}\n{SIGNATURE.replace('=', '= ')}",
    ],
)  # fmt: skip
def test_malformed_notes_are_refused(note: str) -> None:
    with pytest.raises(NoteInvalid):
        split_note(note.encode())


def test_notes_that_are_not_utf8_are_refused() -> None:
    with pytest.raises(NoteInvalid, match="UTF-8"):
        split_note(b"\xff" + NOTE)


def test_many_signatures_are_accepted_and_too_many_refused() -> None:
    signers = [Ed25519Signer(PrivateKey(f"s{n}", LOG.seed)) for n in range(MAX_SIGNATURES)]
    note = sign_note(TEXT, signers)
    verifiers = [Ed25519Verifier(each.key) for each in signers]
    assert len(open_note(note, verifiers).signed_by) == MAX_SIGNATURES
    with pytest.raises(NoteInvalid, match="too many"):
        open_note(note + SIGNATURE.encode(), verifiers)
    with pytest.raises(NoteInvalid):
        sign_note(TEXT, [*signers, Ed25519Signer(LOG)])
    with pytest.raises(NoteInvalid):
        sign_note(TEXT, [])


@given(raw=st.binary(max_size=200))
def test_hostile_bytes_are_refused_and_nothing_else(raw: bytes) -> None:
    for note in (raw, raw + NOTE[len(TEXT) :], NOTE + raw if raw else b""):
        with pytest.raises(NoteInvalid):
            open_note(note, [VERIFIER])
