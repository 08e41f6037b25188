"""Codes, sectors, keys and staff: decisions that need nobody else."""

import base64
import json
from datetime import UTC, datetime, timedelta

import pytest

from parley_crypto.signing import Signer
from parley_identity.domain.accounts import Blinder, make_code, print_code, read_code
from parley_identity.domain.marketers import KeyUse, Marketer, MarketerKey, Profile, sector_of
from parley_identity.domain.staff import Staff, StaffUnusable, kind_of
from parley_terms.terms import Level

NOW = datetime(2026, 5, 4, tzinfo=UTC)
KEY = base64.b64encode(Signer(b"k" * 32).public_key).decode()


def marketer(*keys: MarketerKey) -> Marketer:
    profile = Profile("Friend", "Friend GmbH", Level.VERIFIED, "privacy@friend.example")
    return Marketer("a" * 26, profile, sector_of("Friend GmbH"), suspended=False, keys=keys)


def key(name: str, use: KeyUse = KeyUse.SIGNING, until: datetime | None = None) -> MarketerKey:
    return MarketerKey(name, use, name.encode() * 4, until)


def test_code_holds_a_hundred_bits_in_four_groups_of_five() -> None:
    assert print_code(make_code(lambda size: b"\xff" * size)) == "ZZZZZ-ZZZZZ-ZZZZZ-ZZZZZ"
    assert make_code(lambda size: b"\x00" * size) == "0" * 20


def test_every_bit_of_a_code_counts() -> None:
    codes = {make_code(lambda size, bit=bit: (1 << bit).to_bytes(size, "big")) for bit in range(100)}  # type: ignore[misc]

    assert len(codes) == 100


@pytest.mark.parametrize(
    "typed", ["0123456789ABCDEFGHJK", "o1234-56789-abcde-fghjk", " OL234 56789 ABCDE FGHJK ", "0i23456789abcdefghjk"]
)
def test_code_is_read_as_people_type_it(typed: str) -> None:
    assert read_code(typed) == "0123456789ABCDEFGHJK"


@pytest.mark.parametrize(
    "typed", ["", "0123456789ABCDEFGHJ", "0123456789ABCDEFGHJKM", "0123456789ABCDEFGHJU", "é" * 20]
)
def test_what_is_no_code_is_none(typed: str) -> None:
    assert read_code(typed) is None


def test_rows_of_two_importers_imports_or_keys_never_share_a_hash() -> None:
    blinder = Blinder(b"r" * 32)
    hashes = {blinder.row(*place) for place in [("i", "m", "k"), ("im", "", "k"), ("i", "mk", ""), ("j", "m", "k")]}

    assert len(hashes) == 4
    assert blinder.row("i", "m", "k") != Blinder(b"s" * 32).row("i", "m", "k")


def test_code_and_row_of_the_same_text_have_different_hashes() -> None:
    blinder = Blinder(b"r" * 32)

    assert blinder.code("A") != blinder._hash(b"A", b"import/row/v1")


@pytest.mark.parametrize("entity", ["Hiker's Friend GmbH", "  HIKER'S   friend\tgmbh ", "Hiker's Friend Gmb\uff28"])
def test_one_legal_entity_is_one_sector(entity: str) -> None:
    assert sector_of(entity) == "hiker's friend gmbh"


def test_older_key_is_good_until_it_expires() -> None:
    rotating = marketer(key("new"), key("old", until=NOW + timedelta(days=1)))

    assert list(rotating.signing_keys(NOW)) == ["new", "old"]
    assert list(rotating.signing_keys(NOW + timedelta(days=1))) == ["new"]


def test_card_names_the_newest_sealing_key() -> None:
    keys = (key("sign"), key("seal2", KeyUse.SEALING), key("seal1", KeyUse.SEALING, NOW + timedelta(days=1)))

    assert marketer(*keys).card().sealing_key == b"seal2" * 4


def test_sealing_key_signs_nobody_in() -> None:
    assert marketer(key("seal", KeyUse.SEALING)).signing_keys(NOW) == {}


def test_staff_is_who_the_file_lists() -> None:
    staff = Staff.parse(json.dumps({"operators/local": KEY}))

    assert [base64.b64decode(KEY)] == list(staff.keys("operators/local").values())
    assert staff.keys("operators/other") == {}
    assert (kind_of("operators/local"), kind_of("importers/x")) == ("operator", "importer")


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"operators/a": 1}', '{"operators/a": "AAAA"}', f'{{"customers/a": "{KEY}"}}', f'{{"operators/": "{KEY}"}}',
     json.dumps({"operators/a": base64.b64encode(bytes(32)).decode()})],
)  # fmt: skip
def test_file_that_is_no_list_of_staff_is_refused(text: str) -> None:
    with pytest.raises(StaffUnusable):
        Staff.parse(text)
