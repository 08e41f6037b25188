import pytest

from parley_crypto.pae import pae, unpae

# The first three are PASETO's own (its specification, section 2.2); the last was made once.
VECTORS = [
    ((), "0000000000000000"),
    (("",), "01000000000000000000000000000000"),
    (("test",), "0100000000000000040000000000000074657374"),
    (("a", b"bc"), "020000000000000001000000000000006102000000000000006263"),
]


@pytest.mark.parametrize(("pieces", "encoded"), VECTORS)
def test_pieces_are_encoded_as_published(pieces: tuple[bytes | str, ...], encoded: str) -> None:
    assert encoded == pae(*pieces).hex()
    assert [piece.encode() if isinstance(piece, str) else piece for piece in pieces] == unpae(pae(*pieces))


def test_no_piece_slides_into_its_neighbour() -> None:
    assert 5 == len({pae("ab", "c"), pae("a", "bc"), pae("abc"), pae("abc", ""), pae("", "abc")})


def test_text_counts_as_its_utf8_bytes() -> None:
    assert pae("ü".encode()) == pae("ü")


@pytest.mark.parametrize(
    "encoded",
    [
        b"",
        b"\0" * 7,
        pae("a")[:-1],
        pae("a") + b"\0",
        b"\2" + pae("a")[1:],
        b"\xff" * 8,
        b"\xff" * 16,
        b"\xff" * 8 + b"\0" * 64,
    ],
)
def test_anything_else_is_refused(encoded: bytes) -> None:
    with pytest.raises(ValueError, match=r"truncated|canonical"):
        unpae(encoded)
