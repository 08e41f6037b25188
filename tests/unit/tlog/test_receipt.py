import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parley_crypto.tlog import receipt
from parley_crypto.tlog.errors import EntryInvalid, OpeningInvalid, PolicyUnmet, ProofInvalid, TlogInvalid
from parley_crypto.tlog.policy import parse_sealed_policy
from parley_crypto.tlog.proof import parse_proof
from parley_node.verify import ReceiptInvalid, verify_files
from tests.unit.tlog.makers import Files, receipt_files, small_entry

read_policy = cache(parse_sealed_policy)  # thousands of checks share the one that is good
NAMES = [each.name for each in fields(Files)]
_MORE = {*range(10, 40)} - {15, 16, 17}


def verified(files: Files) -> receipt.Receipt:
    return receipt.verify_receipt(read_policy(files.policy), files.proof, files.entry, files.opening)


def salted_batch(count: int) -> list[tuple[bytes, bytes]]:
    return [(sha256(b"%d" % n).digest(), receipt.canonical({"n": n})) for n in range(count)]


def made(salted: Sequence[tuple[bytes, bytes]]) -> tuple[bytes, list[receipt.Opening]]:
    """An entry as it is made, and its openings in order."""
    entry, ways = receipt.make_entry([receipt.commit(*each) for each in salted])
    return entry, [
        receipt.Opening(salt, detail, way.index, way.size, way.path)
        for (salt, detail), way in zip(salted, ways, strict=True)
    ]


@pytest.mark.parametrize("make", [made, small_entry])
@pytest.mark.parametrize("count", [*range(1, 18), 64, 65])
def test_each_party_of_an_entry_opens_its_own(count: int, make: Callable[..., Any]) -> None:
    salted = salted_batch(count)
    entry, openings = make(salted)
    for opening, own in zip(openings, salted, strict=True):
        read = receipt.parse_opening(opening.to_bytes())
        assert (opening, own) == (read, (read.salt, read.detail))
        read.verify(entry)


def test_an_entry_is_a_version_and_the_root_over_a_tree_of_16384_places() -> None:
    entry, (opening,) = made(salted_batch(1))
    hashed = sha256(b"\x00" + sha256(opening.salt + opening.detail).digest()).digest()
    for level, beside in enumerate(opening.proof):
        pair = (beside, hashed) if opening.index >> level & 1 else (hashed, beside)
        hashed = sha256(b"\x01" + b"".join(pair)).digest()
    assert (b"\x01" + hashed, 14) == (entry, len(opening.proof))


@pytest.mark.parametrize("count", [1, 2, 3, 100, 8191])
def test_paths_are_alike_however_many_share_the_entry(count: int) -> None:
    _, openings = made(salted_batch(count))
    assert {14} == {len(opening.proof) for opening in openings}
    assert count == len({opening.index for opening in openings})
    assert max(opening.index for opening in openings) < 16384


def test_no_tree_is_more_than_half_full() -> None:
    _, openings = made(salted_batch(8192))
    assert {15} == {len(opening.proof) for opening in openings}
    assert max(opening.index for opening in openings) >= 16384  # all in one half: a chance of 2 to the power of -8192


def test_a_place_says_nothing_of_who_came_first() -> None:
    placed = [[opening.index for opening in made(salted_batch(64))[1]] for _ in range(20)]
    assert sorted(placed[0]) != placed[0]
    assert 20 == len({tuple(each) for each in placed})


def test_where_two_paths_meet_says_nothing_of_how_many_there_are() -> None:
    met = {count: sum(meeting_level(made(salted_batch(count))[1]) for _ in range(300)) / 300 for count in (2, 60)}
    assert 12.5 < met[2] < 13.5  # of two places at random among 16,384: one level below the root, on average
    assert 12.5 < met[60] < 13.5


def meeting_level(openings: Sequence[receipt.Opening]) -> int:
    return (openings[0].index ^ openings[1].index).bit_length()


def test_an_entry_of_nothing_looks_like_any_other() -> None:
    nothing, again = made([]), made([])
    assert ([], 33, b"\x01") == (nothing[1], len(nothing[0]), nothing[0][:1])
    assert nothing != again


@pytest.mark.parametrize(
    "count", [*range(1, 10), 15, 16, 17, *(pytest.param(n, marks=pytest.mark.slow) for n in _MORE)]
)
def test_an_opening_fits_one_size_only(count: int) -> None:
    entry, openings = small_entry(salted_batch(count))
    for opening in openings:
        for size in range(1, 130):
            if size != opening.size:
                with pytest.raises(OpeningInvalid):
                    replace(opening, size=size).verify(entry)
        for index in range(count):
            if index != opening.index:
                with pytest.raises(OpeningInvalid):
                    replace(opening, index=index).verify(entry)


def test_a_receipt_says_where_it_stands_and_what_it_proves() -> None:
    answer = verified(receipt_files())
    assert (answer.index, answer.checkpoint.size, answer.checkpoint.origin) == (4, 13, "log.example/2026")
    assert answer.detail == {"kind": "release", "marketer": "m0", "count": 0, "note": "Grüße"}
    assert "Grüße" not in repr(answer)
    assert "Grüße" not in repr(receipt.parse_opening(receipt_files().opening))


def changed_bytes(raw: bytes) -> Iterator[bytes]:
    """Each byte changed: every bit turned, the separators, and every other digit for a digit."""
    for at, byte in enumerate(raw):
        others = (
            {byte ^ 1 << bit for bit in range(8)} | set(b'\n\t #"') | (set(b"0123456789") if 48 <= byte < 58 else set())
        )
        for other in others - {byte}:
            yield raw[:at] + bytes([other]) + raw[at + 1 :]


# Inner places whose path fits several sizes, both edges of a batch, and a batch of one.
@pytest.mark.parametrize(
    ("name", "batch", "member"),
    [
        *((name, 3, 0) for name in NAMES),
        pytest.param("opening", 7, 6, marks=pytest.mark.slow),
        pytest.param("opening", 1, 0, marks=pytest.mark.slow),
    ],
)
def test_no_changed_byte_of_any_file_verifies(name: str, batch: int, member: int) -> None:
    files = receipt_files(batch, member)
    assert member == verified(files).detail["count"]
    for bad in changed_bytes(getattr(files, name)):
        with pytest.raises(TlogInvalid):
            verified(replace(files, **{name: bad}))


@pytest.mark.parametrize("name", NAMES)
def test_no_missing_added_or_doubled_byte_of_any_file_verifies(name: str) -> None:
    files = receipt_files()
    raw = getattr(files, name)
    cut = [raw[:at] + raw[at + 1 :] for at in range(len(raw)) if raw[at : at + 1] != raw[at + 1 : at + 2]]
    for bad in [*cut, raw[:-1], raw + b"\n", raw + b" ", b" " + raw, b"\n" + raw, raw + raw, b""]:
        with pytest.raises(TlogInvalid):
            verified(replace(files, **{name: bad}))


def test_files_of_two_receipts_do_not_mix() -> None:
    one, other = receipt_files(batch=3, member=0), receipt_files(batch=4, member=1, index=5)
    for name in ("proof", "entry", "opening"):
        with pytest.raises(TlogInvalid):
            verified(replace(one, **{name: getattr(other, name)}))


def test_unauthenticated_parts_of_a_proof_are_refused() -> None:
    files = receipt_files()
    with_extra = replace(parse_proof(files.proof), extra=b"hello").to_bytes()
    with pytest.raises(ProofInvalid, match="extra"):
        verified(replace(files, proof=with_extra))
    with pytest.raises(PolicyUnmet, match="doesn't name"):
        verified(replace(files, proof=files.proof + "— stranger.example AAAAAAA=\n".encode()))


@pytest.mark.parametrize("entry", [b"", b"\x01" * 32, b"\x01" * 34, b"\x02" * 33])
def test_entries_of_another_kind_are_refused(entry: bytes) -> None:
    with pytest.raises(EntryInvalid):
        receipt.parse_opening(receipt_files().opening).verify(entry)


def spoil(**changes: Any) -> bytes:
    return receipt.canonical({**json.loads(receipt_files().opening), **changes})


GOOD = receipt_files().opening


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"null", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"a":' * 100_000, GOOD.decode().encode("utf-16"),
        json.dumps(json.loads(GOOD)).encode(), GOOD[:-1] + b',"version":1}', GOOD[:-1] + b',"zz":1}', b"\xef\xbb\xbf" + GOOD,
        spoil(version=2), spoil(version=True), GOOD.replace(b'"version":1', b'"version":1.0'), spoil(index=True),
        spoil(index=-1), spoil(index="0"), spoil(index=0.5), spoil(size=None), spoil(salt="AAAA"), spoil(salt=3),
        spoil(detail=[]), spoil(detail="x"), spoil(proof={}), spoil(proof=[3]), spoil(proof=["AAAA"]), spoil(extra=1),
        GOOD.replace(b'"count":0', b'"count":NaN'), GOOD.replace(b'"count":0', b'"count":1e999'),
        GOOD.replace(b'"count":0', b'"count":' + b"9" * 5000), GOOD.replace(b'"count":0', b'"count":-0'),
        GOOD.replace(b'"count":0', b'"count":9007199254740993'), GOOD.replace(b"release", b"\\ud800"),
        GOOD.replace(b"release", b"rel\\u0065ase"),
    ],
)  # fmt: skip
def test_malformed_openings_are_refused(raw: bytes) -> None:
    assert raw != GOOD
    with pytest.raises(OpeningInvalid):
        receipt.parse_opening(raw)


def test_openings_and_entries_that_nobody_could_verify_are_not_made() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        receipt.make_entry([bytes(31)])
    with pytest.raises(ValueError, match="32 bytes"):
        receipt.commit(bytes(31), b"{}")
    with pytest.raises(ValueError, match="canonical form"):
        receipt.Opening(bytes(32), b'{"a": 1}', 0, 1, ()).to_bytes()
    for value in ({"a": float("nan")}, {"a": 2**53}, {"a": "\ud800"}):
        with pytest.raises(ValueError, match="canonical form"):
            receipt.canonical(value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip


@given(
    details=st.lists(
        st.dictionaries(st.text(st.characters(codec="utf-8")), json_values, max_size=4), min_size=1, max_size=9
    )
)
def test_any_detail_is_opened_as_it_was_committed(details: list[dict[str, Any]]) -> None:
    salted = [(sha256(b"%d" % n).digest(), receipt.canonical(detail)) for n, detail in enumerate(details)]
    entry, openings = made(salted)
    for opening, (_, detail) in zip(openings, salted, strict=True):
        read = receipt.parse_opening(opening.to_bytes())
        read.verify(entry)
        assert detail == read.detail


def written(folder: Path, files: Files) -> list[Path]:
    for name in NAMES:
        (folder / name).write_bytes(getattr(files, name))
    return [folder / name for name in NAMES]


def test_a_receipt_verifies_from_its_files(tmp_path: Path) -> None:
    files = receipt_files()
    assert verified(files) == verify_files(*written(tmp_path, files))


@pytest.mark.parametrize(
    ("change", "message", "advice"),
    [
        ({"policy": b"quorum none\n"}, "policy", "channel you trust"),
        ({"proof": b""}, "proof file", "belong together"),
        ({"proof": receipt_files().proof.replace(b"2026\n13", b"2026\n14")}, "signature", "evidence"),
        ({"proof": receipt_files().proof + "— stranger.example AAAAAAA=\n".encode()}, "policy", "one log"),
        ({"entry": receipt_files(batch=5).entry}, "inclusion proof", "belong together"),
        ({"opening": receipt_files(member=1).opening + b"\n"}, "opening file", "exact to the byte"),
    ],
)
def test_a_failed_check_says_what_to_do(tmp_path: Path, change: dict[str, bytes], message: str, advice: str) -> None:
    paths = written(tmp_path, replace(receipt_files(), **change))
    with pytest.raises(ReceiptInvalid, match=message) as caught:
        verify_files(*paths)
    assert advice in caught.value.diagnostics()


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    paths = written(tmp_path, receipt_files())
    paths[2].unlink()
    with pytest.raises(ReceiptInvalid, match="entry: No such file") as caught:
        verify_files(*paths)
    assert "permissions" in caught.value.diagnostics()
