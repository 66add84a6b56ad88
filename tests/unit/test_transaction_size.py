"""Transactions shrink where they take too long, and grow again, within their bounds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from outboxd.policy.rows.transaction_size import ROWS_MIN, TransactionSize


def test_a_slow_transaction_makes_the_next_one_as_small_as_a_second_allows_and_quick_ones_grow_it_again() -> None:
    size = TransactionSize(10_000, 16_000_000)
    size.took(4.0)
    assert (size.rows, size.size_bytes) == (2_500, 4_000_000)
    size.took(1.5)
    assert size.rows == 2_500
    size.took(0.2)
    size.took(0.2)
    size.took(0.2)
    assert (size.rows, size.size_bytes) == (10_000, 16_000_000)


@given(st.integers(1, 20_000), st.lists(st.floats(0, 1_000), max_size=50))
def test_the_size_stays_within_its_bounds(rows_max: int, times: list[float]) -> None:
    size = TransactionSize(rows_max, 1_000_000)
    for seconds in times:
        size.took(seconds)
        assert min(rows_max, ROWS_MIN) <= size.rows <= rows_max
        assert 1 <= size.size_bytes <= 1_000_000
