from collections.abc import Mapping

import pytest

from parley_bus.bus import View
from parley_bus.relay import acknowledged, is_whole


def view(first: int, last: int, length: int, acked: Mapping[str, int] | None = None) -> View:
    return View(first=first, last=last, length=length, acked=acked or {})


@pytest.mark.parametrize(
    ("seen", "acked", "published"),
    [
        (view(0, 0, 0), 0, 0),  # nothing was ever written
        (view(0, 9, 0), 9, 9),  # all is acknowledged and trimmed
        (view(0, 0, 0), 9, 9),  # wiped, with nothing left to lose
        (view(8, 9, 2), 9, 9),  # all is acknowledged, not yet trimmed
        (view(4, 9, 6), 3, 9),
        (view(2, 9, 8), 3, 9),  # acknowledged entries not yet trimmed
    ],
)
def test_a_stream_that_holds_all_that_is_needed_is_whole(seen: View, acked: int, published: int) -> None:
    assert is_whole(seen, acked, published)


@pytest.mark.parametrize(
    ("seen", "acked", "published"),
    [
        (view(0, 0, 0), 3, 9),  # wiped
        (view(0, 0, 0), 0, 1),  # wiped before the first acknowledgement
        (view(0, 9, 0), 3, 9),  # emptied by somebody
        (view(4, 8, 5), 3, 9),  # came back a second older
        (view(9, 9, 1), 3, 9),  # wiped, then written to
        (view(5, 9, 5), 3, 9),  # trimmed too far
        (view(4, 9, 5), 3, 9),  # a gap in the middle
        (view(0, 12, 0), 9, 9),  # the database came back older
        (view(12, 12, 1), 9, 9),
        (view(4, 12, 9), 3, 9),
    ],
)
def test_a_stream_that_lacks_something_is_not_whole(seen: View, acked: int, published: int) -> None:
    assert not is_whole(seen, acked, published)


@pytest.mark.parametrize(
    ("groups", "acked", "expected"),
    [
        ({"audit": 7, "broker": 9}, 3, 7),  # the slowest decides
        ({"audit": 7}, 3, 3),  # a missing group has read nothing
        ({"audit": 0, "broker": 9}, 3, 3),  # nor has a new one; what was forgotten stays so
        ({"audit": 30, "broker": 40}, 3, 9),  # never past what is recorded as published
    ],
)
def test_only_what_every_group_acknowledged_is_forgotten(groups: dict[str, int], acked: int, expected: int) -> None:
    assert expected == acknowledged(view(4, 9, 6, groups), ["audit", "broker"], acked, 9)


def test_with_no_readers_what_is_published_is_done() -> None:
    assert acknowledged(view(4, 9, 6), [], 3, 9) == 9
