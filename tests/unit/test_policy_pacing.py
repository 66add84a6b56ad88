"""When to read again."""

from __future__ import annotations

from outboxd.policy.fetch.pacing import Pacing


def test_reads_follow_at_once_while_rows_flow_and_ever_later_while_none_come() -> None:
    pacing = Pacing(0.01, 0.05)

    assert pacing.after_read(5) == 0.01
    assert [pacing.after_read(0) for _ in range(5)] == [0.01, 0.02, 0.04, 0.05, 0.05]
    assert pacing.after_read(1) == 0.01
    assert pacing.after_read(0) == 0.01


def test_a_wake_up_makes_the_next_pause_short_too() -> None:
    pacing = Pacing(0.01, 0.05)
    for _ in range(5):
        pacing.after_read(0)

    pacing.woken()

    assert pacing.after_read(0) == 0.01
