import hashlib

import pytest

from parley_crypto.commitment import Opening, commit
from parley_crypto.jws import canonical
from tests.unit.crypto.makers import flips

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
