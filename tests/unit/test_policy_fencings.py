"""Three fencings in ten minutes are too many; fewer, or slower, are not."""

from __future__ import annotations

from outboxd.policy.fencings import Fencings


def test_the_third_within_ten_minutes_is_too_many() -> None:
    fencings = Fencings()
    assert [fencings.fenced(now) for now in (0.0, 300.0, 600.0)] == [False, False, True]


def test_three_in_a_longer_time_are_not() -> None:
    fencings = Fencings()
    assert [fencings.fenced(now) for now in (0.0, 300.0, 601.0, 899.0)] == [False, False, False, True]
