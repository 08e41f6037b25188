import os
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parley_audit.domain import Page, Progress, advance, leaf_of, page_of, page_token
from parley_crypto.commitment import commit
from parley_crypto.tlog import merkle
from parley_kit.faults import InvalidRequest

AT = datetime(2026, 11, 22, 12, 0, 0, 123456, tzinfo=UTC)


@pytest.mark.parametrize("count", [0, 1, 2, 17])
def test_all_of_a_tick_share_one_entry_and_each_has_its_way_there(count: int) -> None:
    ticked = {commit({"n": n}).commitment for n in range(count)}
    leaf = leaf_of(ticked)
    assert ticked == leaf.ways.keys()
    for commitment, way in leaf.ways.items():
        merkle.verify_inclusion(merkle.leaf_hash(commitment), way.index, way.size, way.path, leaf.entry[1:])


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
