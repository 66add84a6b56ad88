"""What PostgreSQL would not write: when it is tried again, and when who waits for it waits no longer."""

from __future__ import annotations

from itertools import pairwise

from outboxd.policy.exchange.requests import Settlement
from outboxd.relay.memory.refusals import STUCK_TRIES, TRIES_A_SECOND_MAX, Refusals


def delivered(*ids: int) -> Settlement:
    return Settlement(delivered_ids=ids, delivered_partitions=[0] * len(ids), delivered_offsets=ids)


def try_next(refusals: Refusals) -> tuple[int, float]:
    """Try the next one in vain, once it is due and not before; return which it was, and when."""
    due_at = refusals.next_at
    assert due_at is not None
    assert refusals.take(due_at - 0.001) is None
    tried = refusals.take(due_at)
    assert tried is not None
    assert refusals.refused(tried, due_at)
    return tried.delivered_ids[0], due_at


def test_refused_rows_are_waited_for_until_each_of_them_was_tried_in_vain_again_and_again() -> None:
    refusals = Refusals()
    tries = dict.fromkeys(range(1, 4), 1)
    for record_id in tries:
        assert refusals.refused(delivered(record_id), 0.0)

    while not refusals.are_stuck:
        record_id, _ = try_next(refusals)
        tries[record_id] += 1

    assert min(tries.values()) == STUCK_TRIES
    assert not refusals.refused(delivered(8, 9), 99.0)
    assert not refusals.are_stuck, "which of two others is to blame is not found out yet"


def test_a_row_that_is_tried_just_now_counts_as_one_that_is_set_aside() -> None:
    refusals = Refusals()
    for record_id in (1, 2):
        refusals.refused(delivered(record_id), 0.0)
    tried = refusals.take(9.0)
    assert tried is not None

    assert (refusals.rows_aside, refusals.refused_rows, refusals.ids_aside()) == (2, 2, {1, 2})
    assert refusals.tries_aside
    assert not refusals.ended(), "the other one is still refused"
    assert (refusals.rows_aside, refusals.ids_aside()) == (1, {1, 2} - set(tried.delivered_ids))


def test_rows_that_were_tried_in_vain_so_often_take_turns_and_all_are_tried_at_once_when_one_is_written() -> None:
    refusals = Refusals()
    rows = 200
    for record_id in range(rows):
        refusals.refused(delivered(record_id), 0.0)
    while not refusals.are_stuck:
        try_next(refusals)
    at = [try_next(refusals)[1] for _ in range(2 * rows)]
    assert min(after - before for before, after in pairwise(at)) > 0.9 / TRIES_A_SECOND_MAX

    assert refusals.take(at[-1] + 1.0) is not None
    refusals.ended()

    assert [refusals.take(at[-1]) is not None for _ in range(3)] == [True] * 3
