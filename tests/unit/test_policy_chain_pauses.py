"""How long no records of a key go together, since one of them failed."""

from __future__ import annotations

import pytest

from outboxd.policy.keys.chain_pauses import DOUBLINGS_MAX, PAUSES_MAX, ChainPauses


def test_a_failure_pauses_its_topic_and_no_other() -> None:
    pauses = ChainPauses(5.0)
    assert pauses.are_over(0.0)
    assert pauses.failed("orders", 100.0) == 5.0
    assert pauses.is_paused("orders", 104.9)
    assert not pauses.is_paused("orders", 105.0)
    assert not pauses.is_paused("invoices", 100.0)
    assert not pauses.are_over(104.9)
    assert pauses.are_over(105.0)


def test_a_failure_of_the_client_pauses_all_topics() -> None:
    pauses = ChainPauses(5.0)
    pauses.failed(None, 100.0)
    assert pauses.is_paused("orders", 104.9)
    assert not pauses.is_paused("orders", 105.0)


def test_each_failure_soon_after_a_pause_doubles_it_up_to_a_limit() -> None:
    pauses, now = ChainPauses(5.0), 0.0
    spans = []
    for _ in range(DOUBLINGS_MAX + 3):
        spans.append(pauses.failed("orders", now))
        now += spans[-1] + 0.1
    assert spans == [5.0 * 2 ** min(doubled, DOUBLINGS_MAX) for doubled in range(DOUBLINGS_MAX + 3)]


def test_a_failure_long_after_a_pause_begins_with_the_shortest_one_again() -> None:
    pauses = ChainPauses(5.0)
    pauses.failed("orders", 0.0)
    pauses.failed("orders", 6.0)
    assert pauses.failed("orders", 6.0 + 10.0 + 10.0) == 5.0


@pytest.mark.parametrize("topics", [PAUSES_MAX + 1, 3 * PAUSES_MAX])
def test_with_very_many_failing_topics_all_pause_and_memory_is_bounded(topics: int) -> None:
    pauses = ChainPauses(5.0)
    for number in range(topics):
        pauses.failed(f"topic-{number}", 0.0)
    assert pauses.is_paused("topic-0", 4.9)
    assert pauses.is_paused("never met", 4.9)
    assert len(pauses._until) <= PAUSES_MAX + 1


def test_with_very_many_failing_topics_no_long_pause_becomes_shorter() -> None:
    pauses, now = ChainPauses(5.0), 0.0
    for _ in range(4):
        now += pauses.failed("sick", now) + 0.1
    long = pauses.failed("sick", now)
    assert long == 80.0
    for number in range(PAUSES_MAX + 1):
        pauses.failed(f"topic-{number}", now)
    pauses.failed(None, now)
    assert pauses.is_paused("sick", now + long - 0.1)
    assert not pauses.is_paused("sick", now + long)
