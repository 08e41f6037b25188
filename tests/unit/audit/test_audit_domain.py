import os
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parley_audit.domain import Noted, Page, Progress, advance, leaves_of, page_of, page_token
from parley_crypto.commitment import Opening, commit
from parley_crypto.tlog.receipt import make_entry
from parley_kit.faults import InvalidRequest

AT = datetime(2026, 11, 22, 12, 0, 0, 123456, tzinfo=UTC)


RELEASES, BIRTHS = "ReleaseSettled", "ConsentBorn"


def noted(count: int, together: str = "") -> list[Noted]:
    return [Noted(f"s{n}", AT, commit({"n": n}), together) for n in range(count)]


def openings(batch: list[Noted]) -> list[Opening]:
    return sorted((each.opening for each in batch), key=lambda opening: opening.commitment)


def test_what_comes_in_numbers_shares_a_leaf_with_its_like_and_everything_else_has_its_own() -> None:
    releases, births, others = noted(9, RELEASES), noted(4, BIRTHS), noted(3)
    leaves = leaves_of([*others, *births, *releases])
    assert 5 == len(leaves)
    shared = {make_entry([each.commitment for each in openings(batch)]) for batch in (releases, births)}
    alone = {make_entry([each.opening.commitment]) for each in others}
    assert alone | shared == {leaf.entry for leaf in leaves}


@pytest.mark.parametrize("count", [1, 2, 3, 17])
def test_every_way_leads_to_its_entry(count: int) -> None:
    (leaf,) = leaves_of(noted(count, RELEASES))
    assert count == len(leaf.members)
    for member in leaf.members:
        assert (member.noted.opening.salt, member.noted.opening.detail) == (member.way.salt, member.way.detail)
        member.way.verify(leaf.entry)


def test_the_order_of_events_is_not_the_order_of_leaves() -> None:
    batch = [*noted(8), *noted(8, RELEASES)]
    leaves = leaves_of(batch)
    assert leaves == leaves_of(reversed(batch))
    assert sorted(leaf.entry for leaf in leaves) == [leaf.entry for leaf in leaves]


def test_an_opening_that_comes_twice_is_one_member() -> None:
    (one,) = noted(1, RELEASES)
    (leaf,) = leaves_of([one, one])
    assert 1 == len(leaf.members)


def test_no_events_make_no_leaves() -> None:
    assert [] == leaves_of([])


@given(st.permutations(range(1, 12)), st.data())
def test_only_an_unbroken_run_counts_as_logged(order: list[int], data: st.DataObject) -> None:
    progress, seen = Progress(0), set[int]()
    while order:
        taken = data.draw(st.integers(1, len(order)))
        batch, order = order[:taken], order[taken:]
        progress, seen = advance(progress, batch), seen.union(batch)
        assert set(range(1, progress.logged + 1)) <= seen
        assert progress.logged + 1 not in seen
        assert seen == set(range(1, progress.logged + 1)) | progress.ahead
    assert Progress(11) == progress


def test_places_that_were_logged_before_change_nothing() -> None:
    assert Progress(5) == advance(Progress(5), [1, 5])


def test_a_token_says_where_a_page_ended() -> None:
    commitment = os.urandom(32)
    assert Page(100, (AT, commitment)) == page_of(0, page_token(AT, commitment))
    assert (Page(7), Page(1000)) == (page_of(7, ""), page_of(2000, ""))


@pytest.mark.parametrize("token", ["x", "AAAA", "é", page_token(AT, bytes(32))[:-4], "_" * 56, "f" + "_" * 55])
def test_other_tokens_are_refused(token: str) -> None:
    with pytest.raises(InvalidRequest):
        page_of(1, token)
