import hashlib

import pytest
from nacl.bindings import sodium_pad

from parley_crypto.commitment import Opening, commit, seal_opening, unseal_opening
from parley_crypto.jws import canonical
from parley_crypto.pae import pae
from parley_crypto.signing import SealInvalid, seal
from tests.unit.crypto.makers import OTHER_SEALER, SEALER, flips

DETAIL = {"b": 1, "a": "ü"}
# Made once: what stands in a log must be openable for as long as the log does.
COMMITMENT = "453e059f12c53e3817dd28f72c80cc970fa7cc591c330b2a58b3bf98a82e60ca"


def test_commitment_is_the_hash_of_salt_and_canonical_detail() -> None:
    opening = commit(DETAIL)

    assert '{"a":"ü","b":1}'.encode() == opening.detail == canonical(DETAIL)
    assert 32 == len(opening.salt)
    assert hashlib.sha256(opening.salt + opening.detail).digest() == opening.commitment


def test_commitment_has_not_drifted() -> None:
    assert COMMITMENT == Opening(bytes(range(32)), canonical(DETAIL)).commitment.hex()


def test_equal_details_have_unequal_commitments() -> None:
    assert 64 == len({commit(DETAIL).commitment for _ in range(64)})


def test_commitment_opens_to_nothing_else() -> None:
    opening = commit(DETAIL)
    others = [Opening(salt, opening.detail) for salt in flips(opening.salt)]
    others += [Opening(opening.salt, detail) for detail in flips(opening.detail)]

    assert opening.commitment not in {other.commitment for other in others}


def test_neither_salt_nor_detail_is_in_any_printed_form() -> None:
    assert "Opening()" == repr(commit(DETAIL))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**60, b"bytes"])
def test_detail_that_has_no_canonical_form_is_refused(value: object) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each its own, all of them ValueError
        commit({"value": value})


def test_sealed_opening_is_opened_by_audit_alone_with_its_reference() -> None:
    opening = commit(DETAIL)
    sealed = seal_opening(SEALER.public_key, opening, b"reference")

    assert (opening, b"reference") == unseal_opening(SEALER, sealed)
    assert (opening, b"") == unseal_opening(SEALER, seal_opening(SEALER.public_key, opening))
    for wrong in [*flips(sealed), sealed[:-1], b""]:
        with pytest.raises(SealInvalid):
            unseal_opening(SEALER, wrong)
    with pytest.raises(SealInvalid):
        unseal_opening(OTHER_SEALER, sealed)


def test_lengths_of_sealed_openings_show_only_to_the_next_512_bytes() -> None:
    openings = [(commit({"value": "x" * size}), bytes(size)) for size in range(0, 300, 10)]

    assert {72 + 512, 72 + 1024} == {len(seal_opening(SEALER.public_key, *each)) for each in openings}


def test_opening_that_moves_bytes_between_salt_and_detail_is_refused() -> None:
    opening = commit(DETAIL)
    whole = opening.salt + opening.detail
    for size in (0, 31, 33, len(whole)):
        moved = pae(whole[:size], whole[size:], b"")
        with pytest.raises(ValueError, match="32 bytes"):
            unseal_opening(SEALER, seal(SEALER.public_key, sodium_pad(moved, 512)))


@pytest.mark.parametrize("plain", [b"", bytes(512), sodium_pad(b"", 512), sodium_pad(pae(bytes(32), b"{}"), 512)])
def test_sealed_nonsense_is_refused(plain: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - SealInvalid or pae's own, both of them ValueError
        unseal_opening(SEALER, seal(SEALER.public_key, plain))
