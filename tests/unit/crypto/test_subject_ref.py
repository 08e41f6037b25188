import secrets

import pytest

from parley_crypto.keyring import KeyRing
from parley_crypto.pae import pae
from parley_crypto.subject_ref import (
    CandidateRef,
    RefInvalid,
    SubjectRef,
    open_candidate,
    open_ref,
    seal_candidate,
    seal_ref,
)
from tests.unit.crypto.makers import flips

RING = KeyRing({7: bytes([7]) * 32}, 7)
SHORT = SubjectRef("s", "h", "p", "m")
LONG = SubjectRef("s" * 26, "local", "p" * 32, "marketers/" + "m" * 26)
CANDIDATE = CandidateRef("s", "x", "m")
LENGTH = 1 + 4 + 24 + 224 + 16
# Made once, with the nonce 00 01 ... 17: references are kept and sent. The end is the tag, which vouches for all between.
PINNED_START = (
    "0100000007000102030405060708090a0b0c0d0e0f1011121314151617a83baf85fa1c5ba525c78047e6e2afac5fd64b1614f73771"
)
PINNED_END = "0ed4cf8158a103424d9036e236d08e6"


def test_refs_come_back_as_they_were() -> None:
    for ref in (SHORT, LONG, SubjectRef("s")):
        assert ref == open_ref(RING, "vault", seal_ref(RING, "vault", ref))
    assert CANDIDATE == open_candidate(RING, seal_candidate(RING, CANDIDATE))


def test_ref_that_comes_again_is_opened_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sealed = seal_ref(RING, "vault", LONG)
    open_ref(RING, "vault", sealed)
    monkeypatch.setattr(KeyRing, "unwrap", None)

    assert LONG == open_ref(RING, "vault", sealed)
    with pytest.raises(TypeError):
        open_ref(RING, "consent", sealed)
    with pytest.raises(TypeError):
        open_ref(KeyRing(RING.keys, RING.primary), "vault", sealed)


def test_format_has_not_drifted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secrets, "token_bytes", lambda size: bytes(range(size)))
    sealed = seal_ref(RING, "vault", SHORT).hex()

    assert (PINNED_START, PINNED_END) == (sealed[: len(PINNED_START)], sealed[-len(PINNED_END) :])


def test_all_refs_are_of_one_length() -> None:
    refs = [seal_ref(RING, "vault", ref) for ref in (SHORT, LONG, SubjectRef("s"))]

    assert {LENGTH} == {len(sealed) for sealed in [*refs, seal_candidate(RING, CANDIDATE)]}


def test_two_refs_of_one_customer_share_nothing_but_the_key_version() -> None:
    one, other = (seal_ref(RING, "vault", LONG) for _ in range(2))

    assert one[:5] == other[:5]
    assert one[5:29] != other[5:29]
    assert 16 > sum(a == b for a, b in zip(one[29:], other[29:], strict=True))


def test_ref_is_opened_by_its_reader_alone() -> None:
    sealed = seal_ref(RING, "vault", SHORT)

    with pytest.raises(RefInvalid):
        open_ref(RING, "consent", sealed)
    with pytest.raises(RefInvalid):
        open_ref(KeyRing({7: bytes([8]) * 32}, 7), "vault", sealed)


def test_ref_and_candidate_do_not_stand_in_for_each_other() -> None:
    with pytest.raises(RefInvalid):
        open_candidate(RING, seal_ref(RING, "identity", SHORT))
    with pytest.raises(RefInvalid):
        open_ref(RING, "identity", seal_candidate(RING, CANDIDATE))


def test_part_that_is_too_long_is_refused_before_anything_is_sealed() -> None:
    room = 222 - 8 - 4 * 8

    assert LENGTH == len(seal_ref(RING, "vault", SubjectRef("s" * room)))
    with pytest.raises(ValueError, match="too long"):
        seal_ref(RING, "vault", SubjectRef("s" * (room + 1)))
    with pytest.raises(ValueError, match="too long"):
        seal_candidate(RING, CandidateRef("s", "ü" * 100, "m"))


def test_changed_and_truncated_refs_are_refused() -> None:
    sealed = seal_ref(RING, "vault", SHORT)
    for wrong in [*flips(sealed), *(sealed[:size] for size in range(len(sealed)))]:
        with pytest.raises(RefInvalid):
            open_ref(RING, "vault", wrong)


@pytest.mark.parametrize("plain", [b"", b"\0", b"\0\0", b"\xff\xff", bytes(224), b"\0\x08" + b"\1" + bytes(7)])
def test_sealed_nonsense_is_refused(plain: bytes) -> None:
    with pytest.raises(RefInvalid):
        open_ref(RING, "vault", RING.wrap(plain, "parley/ref/v1", "vault"))


@pytest.mark.parametrize("parts", [(), ("s", "h", "p"), ("s", "h", "p", "m", ""), (b"\xff", "h", "p", "m")])
def test_sealed_parts_that_are_not_a_refs_are_refused(parts: tuple[str | bytes, ...]) -> None:
    plain = pae(*parts)
    sealed = RING.wrap(len(plain).to_bytes(2, "big") + plain, "parley/ref/v1", "vault")

    with pytest.raises(RefInvalid):
        open_ref(RING, "vault", sealed)
