import os

import pytest

from parley_audit.subject_keys import SubjectKey
from parley_crypto.commitment import commit
from parley_crypto.keyring import CiphertextInvalid

DEK = os.urandom(32)


def test_an_opening_is_read_back_from_its_own_place_alone() -> None:
    key, opening = SubjectKey("one", 7, DEK), commit({"kind": "a:b:c"})
    sealed = key.seal(opening.commitment, opening)
    assert opening == key.open(opening.commitment, sealed)
    for moved, commitment in (
        (SubjectKey("other", 7, DEK), opening.commitment),
        (SubjectKey("one", 7, os.urandom(32)), opening.commitment),
        (key, bytes(32)),
    ):
        with pytest.raises(CiphertextInvalid):
            moved.open(commitment, sealed)


def test_a_key_is_not_shown() -> None:
    assert DEK.hex() not in repr(SubjectKey("one", 7, DEK))
    assert repr(DEK) not in repr(SubjectKey("one", 7, DEK))
