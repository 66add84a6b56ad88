"""Retries spread out and stay within their cap, whatever the number of attempts; probes stay prompt."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from outboxd.policy.blame.backoff import failure_pause_seconds, probe_delay_seconds, retry_delay_seconds

ATTEMPTS = st.integers(1, 10**6)
SECONDS = st.floats(0, 1e9, allow_nan=False)
UNIT = st.floats(0, 1, exclude_max=True)
NEARLY_ONE = math.nextafter(1.0, 0.0)


@given(attempts=ATTEMPTS, initial=SECONDS, cap=SECONDS, unit=UNIT)
def test_a_delay_is_never_negative_nor_above_the_cap(attempts: int, initial: float, cap: float, unit: float) -> None:
    assert 0 <= retry_delay_seconds(attempts, initial, cap, unit) <= cap


@given(attempts=ATTEMPTS, initial=SECONDS, cap=SECONDS, unit=UNIT)
def test_one_more_failure_never_shortens_the_same_draw(attempts: int, initial: float, cap: float, unit: float) -> None:
    assert retry_delay_seconds(attempts, initial, cap, unit) <= retry_delay_seconds(attempts + 1, initial, cap, unit)


@given(attempts=ATTEMPTS, draws=st.tuples(UNIT, UNIT))
def test_the_jitter_is_full_and_follows_the_draw(attempts: int, draws: tuple[float, float]) -> None:
    low, high = sorted(draws)
    assert retry_delay_seconds(attempts, 1.0, 300.0, 0.0) == 0.0
    assert retry_delay_seconds(attempts, 1.0, 300.0, low) <= retry_delay_seconds(attempts, 1.0, 300.0, high)


@pytest.mark.parametrize(
    ("attempts", "ceiling_seconds"),
    [(1, 1), (2, 2), (3, 4), (9, 256), (10, 300), (11, 300), (1100, 300), (10**6, 300)],
)
def test_the_ceiling_doubles_from_the_initial_delay_up_to_the_cap(attempts: int, ceiling_seconds: float) -> None:
    assert retry_delay_seconds(attempts, 1.0, 300.0, NEARLY_ONE) == pytest.approx(ceiling_seconds)
    assert retry_delay_seconds(attempts, 1.0, 300.0, 0.5) == ceiling_seconds / 2


def test_extreme_settings_do_not_overflow() -> None:
    assert retry_delay_seconds(10**6, 5e-324, 1e308, 0.5) == 5e307
    assert retry_delay_seconds(1, 1e308, 1.0, 0.5) == 0.5


def test_a_zero_initial_delay_retries_at_once_for_ever() -> None:
    assert retry_delay_seconds(10**6, 0.0, 300.0, NEARLY_ONE) == 0.0


def test_probes_back_off_from_a_quarter_of_a_second_to_five_seconds() -> None:
    assert [probe_delay_seconds(failures) for failures in range(7)] == [0.25, 0.5, 1.0, 2.0, 4.0, 5.0, 5.0]
    assert probe_delay_seconds(10**6) == 5.0


def test_pauses_after_failures_double_up_to_two_seconds() -> None:
    assert [failure_pause_seconds(failures) for failures in range(1, 8)] == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    with pytest.raises(ValueError, match="first one is 1"):
        failure_pause_seconds(0)


@pytest.mark.parametrize(
    ("attempts", "initial", "cap", "unit"),
    [
        (0, 1, 1, 0),
        (1, -1, 1, 0),
        (1, 1, -1, 0),
        (1, math.inf, 1, 0),
        (1, 1, math.nan, 0),
        (1, 1, 1, 1),
        (1, 1, 1, -0.1),
    ],
)
def test_arguments_out_of_range_are_refused(attempts: int, initial: float, cap: float, unit: float) -> None:
    with pytest.raises(ValueError, match=r"attempts|delays|random_unit"):
        retry_delay_seconds(attempts, initial, cap, unit)


def test_a_negative_count_of_probes_is_refused() -> None:
    with pytest.raises(ValueError, match="failures"):
        probe_delay_seconds(-1)
