"""Names and tokens: what only the broker writes, and what comes of any other text."""

import base64
from datetime import UTC, datetime, timedelta

import pytest

from parley_broker.domain.states import Exchange
from parley_broker.faults import DeliveryNotFound, ResumeTokenInvalid
from parley_broker.names import Names
from parley_broker.store import ExchangeRecord, Release
from parley_broker.wire import exchange_to

NAMES = Names(b"k" * 32)
MINE, OTHERS = "marketers/mine", "marketers/others"
RELEASE = Release(MINE, "a" * 26, "b" * 32, "d" * 32)
CREATED = datetime(2031, 5, 4, 12, 0, 0, 123456, tzinfo=UTC)
RECORD = ExchangeRecord(MINE, "a" * 26, b"", b"", "Hello", CREATED + timedelta(days=1), CREATED)


@pytest.mark.parametrize("seq", [0, 1, 2**63 - 1])
def test_resume_token_brings_back_its_place(seq: int) -> None:
    assert seq == NAMES.read_place(MINE, NAMES.place(MINE, seq))


def test_resume_tokens_tell_nobody_of_places_between_them() -> None:
    tokens = [base64.urlsafe_b64decode(NAMES.place(MINE, seq)) for seq in (1, 1, 3, 2**40)]
    assert len({token[5:] for token in tokens}) == 4
    assert 1 == len({len(token) for token in tokens})
    assert not any(seq.to_bytes(8, "big") in token for seq in (1, 3, 2**40) for token in tokens)


def test_no_resume_token_is_the_start() -> None:
    assert 0 == NAMES.read_place(MINE, "")


@pytest.mark.parametrize(
    "token",
    [
        NAMES.place(OTHERS, 7),
        Names(b"x" * 32).place(MINE, 7),
        NAMES.place(MINE, 7)[:-4],
        NAMES.place(MINE, 7) + "AAAA",
        base64.urlsafe_b64encode(bytes(24)).decode(),
        base64.urlsafe_b64encode(bytes(53)).decode(),
        "x",
        "not a token",
        "ÿüé",
        "\x00" * 32,
    ],
    ids=range(10),  # tokens are random
)
def test_any_other_text_is_no_resume_token(token: str) -> None:
    with pytest.raises(ResumeTokenInvalid):
        NAMES.read_place(MINE, token)


def test_no_bit_of_a_resume_token_may_be_another() -> None:
    raw = base64.urlsafe_b64decode(NAMES.place(MINE, 7))
    for bit in range(8 * len(raw)):
        changed = bytes(byte ^ (1 << bit % 8 if index == bit // 8 else 0) for index, byte in enumerate(raw))
        with pytest.raises(ResumeTokenInvalid):
            NAMES.read_place(MINE, base64.urlsafe_b64encode(changed).decode())


def test_name_of_a_release_brings_back_what_it_stands_for() -> None:
    assert RELEASE == NAMES.read(MINE, NAMES.release(RELEASE))


def test_name_that_an_earlier_version_gave_out_still_stands_for_its_release() -> None:
    before = RELEASE._replace(release_id="")
    assert (84, before) == (len(NAMES.release(before)), NAMES.read(MINE, NAMES.release(before)))


def test_name_of_a_notice_stands_for_no_release() -> None:
    assert None is NAMES.read(MINE, "a" * 26)


@pytest.mark.parametrize(
    "name",
    [
        NAMES.release(RELEASE._replace(marketer=OTHERS)),
        Names(b"x" * 32).release(RELEASE),
        "a" * 26 + "c" * 32 + NAMES.release(RELEASE)[58:],
        "a" * 26 + "b" * 32 + "c" * 32 + NAMES.release(RELEASE)[90:],
        "a" * 26 + "b" * 32 + NAMES.release(RELEASE)[90:],
        NAMES.release(RELEASE)[:-1] + ("a" if NAMES.release(RELEASE)[-1] != "a" else "e"),
        "a" * 84,
        "a" * 116,
    ],
)
def test_name_that_was_not_given_out_is_nobodys(name: str) -> None:
    with pytest.raises(DeliveryNotFound):
        NAMES.read(MINE, name)


def test_exchange_says_what_was_asked_and_nothing_of_whom_it_found() -> None:
    written = exchange_to(RECORD, CREATED)
    assert (RECORD.name, int(Exchange.REQUESTED), "Hello") == (written.name, written.state, written.offer_text)
    assert {"name", "state", "terms", "audience", "offer_text", "create_time"} == set(written.DESCRIPTOR.fields_by_name)
