import base64
import random
from functools import partial
from uuid import RFC_4122

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parley_kit.ids import decode_id, encode_id, new_id, uuid7


@given(st.binary(min_size=16, max_size=16))
def test_sixteen_bytes_come_back(raw: bytes) -> None:
    assert raw == decode_id(encode_id(raw))


def test_id_is_base32_that_names_allow() -> None:
    assert "aaaqeayeaudaocajbifqydiob4" == encode_id(bytes(range(16))) == new_id(lambda size: bytes(range(size)))
    assert 256 == len({new_id() for _ in range(256)})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a" * 25,
        "a" * 27,
        "A" * 26,
        "a" * 25 + "1",
        "a" * 25 + "b",
        "a" * 25 + "=",
        "a" * 26 + "\n",
        "ä" * 26,
        base64.b32encode(bytes(16)).decode(),
    ],
)
def test_text_that_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not an id"):
        decode_id(text)


def test_ids_of_later_milliseconds_are_greater() -> None:
    dice = random.Random(7)  # what is random in them must not matter
    moments = [0, 1, 255, 256, 2**32, 2**47, 2**48 - 1]
    made = [uuid7(dice.randbytes, partial(int, moment)) for moment in moments]

    assert made == sorted(made)
    assert moments == [each.int >> 80 for each in made]


def test_uuid_is_version_7_with_74_random_bits() -> None:
    lowest, highest = uuid7(bytes, lambda: 0), uuid7(lambda size: b"\xff" * size, lambda: 0)
    for each in (lowest, highest):
        assert (7, RFC_4122) == (each.version, each.variant)

    assert 74 == (lowest.int ^ highest.int).bit_count()
    assert "00000000-0000-7000-8000-000000000000" == str(lowest)


def test_uuid_is_the_standards_example() -> None:
    # RFC 9562, appendix A.6.
    entropy = (0xCC3 << 64 | 0x18C4DC0C0C07398F).to_bytes(10, "big")

    assert "017f22e2-79b0-7cc3-98c4-dc0c0c07398f" == str(uuid7(lambda _size: entropy, lambda: 0x017F22E279B0))
