"""When a gap may be given up, and that none is given up too early."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from outboxd.policy.fetch.gaps import Gaps

NONE: frozenset[str] = frozenset()


def gaps_after(position: int, *ids: int, gaps_max: int = 2_000) -> Gaps:
    gaps = Gaps(gaps_max)
    gaps.seen_below(0, position, ids)
    return gaps


def test_what_a_read_did_not_show_below_its_end_is_a_gap() -> None:
    assert gaps_after(9, 2, 3, 6).ranges() == ([1, 4, 7], [1, 5, 9])


@given(st.sets(st.integers(1, 30)), st.integers(2, 40))
def test_a_gap_covers_what_the_look_back_asks_for(ids: set[int], gaps_max: int) -> None:
    gaps = gaps_after(30, *sorted(ids), gaps_max=gaps_max)
    asked = {record_id for low, high in zip(*gaps.ranges(), strict=True) for record_id in range(low, high + 1)}

    assert {record_id for record_id in range(35) if gaps.covers(record_id)} == asked


def test_a_gap_closes_one_look_after_the_last_of_its_transactions_is_gone() -> None:
    gaps = gaps_after(2, 2)

    gaps.looked_back(1, [], frozenset({"3/1", "3/2"}))
    gaps.looked_back(1, [], frozenset({"3/2", "3/9"}))
    gaps.looked_back(1, [], frozenset({"3/9"}))
    assert len(gaps) == 1, "the snapshot was taken before the locks were read: one more look is needed"

    gaps.looked_back(1, [], frozenset({"3/9"}))
    assert len(gaps) == 0


def test_a_gap_without_any_transaction_needs_two_looks() -> None:
    gaps = gaps_after(2, 2)

    gaps.looked_back(1, [], NONE)
    assert len(gaps) == 1
    gaps.looked_back(1, [], NONE)
    assert len(gaps) == 0


def test_a_prepared_transaction_takes_the_place_of_one_that_vanished() -> None:
    gaps = gaps_after(2, 2)

    gaps.looked_back(1, [], frozenset({"3/1"}))
    for _ in range(3):
        gaps.looked_back(1, [], frozenset({"-1/77"}))
    assert len(gaps) == 1

    gaps.looked_back(1, [1], NONE)
    assert len(gaps) == 0


def test_what_is_found_leaves_the_gap_in_pieces_with_its_fence() -> None:
    gaps = gaps_after(10, 10)
    gaps.looked_back(1, [], frozenset({"3/1"}))

    gaps.looked_back(1, [3, 7], frozenset({"3/1"}))

    assert gaps.ranges() == ([1, 4, 8], [2, 6, 9])


def test_a_look_back_that_was_cut_says_nothing_about_what_is_behind_the_cut() -> None:
    gaps = gaps_after(20, 5, 10, 20)
    gaps.looked_back(3, [], NONE)

    gaps.looked_back(3, [3, 7], NONE, complete_to=7)

    assert gaps.ranges() == ([6, 8, 11], [6, 9, 19])


def test_gaps_noticed_by_the_same_read_were_not_looked_at() -> None:
    gaps = gaps_after(2, 2)
    gaps.looked_back(1, [], NONE)
    gaps.seen_below(2, 4, [4])

    gaps.looked_back(1, [], NONE)

    assert gaps.ranges() == ([3], [3])


@given(st.sets(st.integers(1, 400), min_size=1), st.integers(4, 40))
def test_merged_gaps_cover_every_id_that_was_not_seen(ids: set[int], gaps_max: int) -> None:
    position = max(ids)
    gaps = gaps_after(position, *sorted(ids), gaps_max=gaps_max)

    lows, highs = gaps.ranges()
    covered = {one for low, high in zip(lows, highs, strict=True) for one in range(low, high + 1)}

    assert set(range(1, position + 1)) - ids <= covered
    assert len(lows) <= gaps_max
    assert lows == sorted(lows)
    assert all(high < low for high, low in zip(highs, lows[1:], strict=False))


def test_rows_that_are_found_in_merged_gaps_do_not_make_more_of_them_than_there_may_be() -> None:
    gaps = gaps_after(1_000, *range(2, 1_001, 2), gaps_max=100)
    assert gaps.merged_to is not None

    for _ in range(5):
        gaps.looked_back(len(gaps), range(2, 1_001, 2), frozenset({"3/7"}))
        assert len(gaps) <= 100

    assert all(any(low <= one <= high for low, high in zip(*gaps.ranges(), strict=True)) for one in range(1, 1_000, 2))


def test_gaps_say_how_far_they_ask_for_what_was_seen_as_long_as_they_do() -> None:
    gaps = gaps_after(30, *range(2, 31, 2), gaps_max=6)
    gaps.seen_below(30, 99, [40])
    merged_to = gaps.merged_to
    assert merged_to is not None
    assert merged_to < 41

    for _ in range(2):
        gaps.looked_back(len(gaps), [], NONE)

    assert gaps.ranges() == ([], [])
    assert gaps.merged_to is None


@given(st.data())
def test_no_gap_closes_while_a_transaction_may_fill_it(data: st.DataObject) -> None:
    """Whatever others come and go, a transaction that held the lock before the gap was noticed keeps it open."""
    gaps = gaps_after(2, 2)
    others = st.frozensets(st.sampled_from(["3/1", "3/2", "3/3"]))
    for _ in range(data.draw(st.integers(1, 8))):
        gaps.looked_back(1, [], data.draw(others) | {"3/7"})
        assert gaps.ranges() == ([1], [1])

    gaps.looked_back(1, [], data.draw(others))

    assert gaps.ranges() == ([1], [1]), "a snapshot after the last one's end has not been taken yet"


def test_a_merged_gap_waits_for_the_transactions_of_all_that_it_was_made_of() -> None:
    gaps = gaps_after(2, 2, gaps_max=4)
    gaps.looked_back(1, [], frozenset({"3/1"}))
    gaps.seen_below(2, 8, [4, 6, 8])
    gaps.looked_back(4, [], frozenset({"3/1", "3/2"}))
    gaps.seen_below(8, 100, [*range(9, 99), 100])
    assert gaps.ranges() == ([1, 99], [7, 99])

    for _ in range(3):
        gaps.looked_back(2, [], frozenset({"3/2"}))
    assert gaps.ranges() == ([1, 99], [7, 99]), "the first of them waited for 3/1 only"
    for _ in range(2):
        gaps.looked_back(2, [], NONE)
    assert len(gaps) == 0


def test_what_is_read_forward_once_more_is_no_gap_until_then() -> None:
    gaps = gaps_after(20, 5, 10)

    gaps.forget_above(7)

    assert gaps.ranges() == ([1, 6], [4, 7])
    gaps.seen_below(7, 20, [10])
    assert gaps.ranges() == ([1, 6, 8, 11], [4, 7, 9, 20])


def test_what_is_left_of_a_merged_gap_above_a_row_that_was_found_is_still_asked_for_as_one() -> None:
    gaps = gaps_after(9, 2, 4, 6, 8, gaps_max=2)
    assert (gaps.ranges(), gaps.merged_to) == (([1], [9]), 9)

    gaps.looked_back(1, [5], frozenset({"3/1"}))

    assert (gaps.ranges(), gaps.merged_to) == (([1, 6], [4, 9]), 9)
