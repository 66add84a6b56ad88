"""Three fencings in ten minutes are too many; fewer, or slower, are not."""

from __future__ import annotations

from outboxd.policy.blame.fencings import RIVAL_SECONDS, Fencings


def test_the_third_within_ten_minutes_is_too_many() -> None:
    fencings = Fencings()
    assert [fencings.fenced(now) for now in (0.0, 300.0, 600.0)] == [False, False, True]


def test_three_in_a_longer_time_are_not() -> None:
    fencings = Fencings()
    assert [fencings.fenced(now) for now in (0.0, 300.0, 601.0, 899.0)] == [False, False, False, True]


def test_what_one_rival_fences_in_a_row_counts_once_and_the_third_rival_is_too_many() -> None:
    fencings = Fencings(RIVAL_SECONDS)
    rivals = [rival + again for rival in (0.0, 60.0) for again in (0.0, 0.4, 1.1)]
    assert [fencings.fenced(now) for now in rivals] == [False] * 6
    assert fencings.fenced(120.0)


def test_two_that_take_it_from_each_other_without_a_rest_are_too_many_soon() -> None:
    fencings = Fencings(RIVAL_SECONDS)
    found = [second for second in range(60) if fencings.fenced(float(second))]
    assert found[0] == 2 * RIVAL_SECONDS
