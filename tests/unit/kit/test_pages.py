"""Pages of lists."""

import base64
from datetime import UTC, datetime, timedelta

import pytest

from parley_kit import pages
from parley_kit.faults import InvalidRequest
from parley_kit.pages import Page

NOON = datetime(2031, 5, 4, 12, tzinfo=UTC)
ENDS = [(NOON, "b" * 25 + "a"), (NOON - timedelta(microseconds=1), "c" * 25 + "a")]
PLACE = f"{NOON.isoformat()} {'b' * 25}a"


def written(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode()


def test_page_starts_behind_the_last_of_a_full_one() -> None:
    assert Page(7, *ENDS[-1]) == Page.asked(7, Page.asked(2, "").next_token(ENDS))


def test_page_that_is_not_full_is_the_last() -> None:
    assert "" == Page.asked(3, "").next_token(ENDS)


def test_no_token_is_the_newest() -> None:
    first = Page.asked(1, "")

    assert (9999, "") == (first.before.year, first.before_id)


@pytest.mark.parametrize(
    "text",
    [
        "\xff",
        "yesterday",
        "2031-05-04T12:00:00 " + "a" * 26,  # of no time zone
        "2031-05-04T12:00:00+05:00 " + "a" * 26,
        "2031-05-04 " + "a" * 26,
        "0001-01-01T00:00:00+23:59 " + "a" * 26,  # before time, in UTC
        "2031-05-04T12:00:00+00:00 ",
        "2031-05-04T12:00:00+00:00 \x00",
        "2031-05-04T12:00:00+00:00 " + "a" * 27,
    ],
)
def test_text_that_is_no_place_is_no_token(text: str) -> None:
    with pytest.raises(InvalidRequest):
        Page.asked(1, written(text))


@pytest.mark.parametrize("token", ["x", "ÿ", "====", "\x00", "!!" + written(PLACE), written(PLACE) + "\n", "AB=="])
def test_token_has_one_spelling(token: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        pages.decode(token)

    assert ["page_token"] == [violation.field for violation in refused.value.violations]


def test_what_was_encoded_is_decoded() -> None:
    assert [b"", b"\xff\x00"] == [pages.decode(pages.encode(end)) for end in (b"", b"\xff\x00")]


def test_pages_have_a_usual_and_a_greatest_size() -> None:
    assert [100, 1, 1000, 1000] == [pages.size(asked) for asked in (0, 1, 1000, 4_000_000_000)]
