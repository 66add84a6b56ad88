"""How long to wait before the next try: a row's own retries with full jitter; a breaker's probes, and what the database
refused, without.

Full jitter (a delay drawn evenly between nothing and the capped exponential) spreads ten thousand retries that fell
due together; see Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015. Probes are few and must be
prompt, so they have none.
"""

from __future__ import annotations

import math
from typing import Final

PROBE_DELAY_MIN_SECONDS: Final = 0.25
PROBE_DELAY_MAX_SECONDS: Final = 5.0
FAILURE_PAUSE_SECONDS_MIN: Final = 0.1
FAILURE_PAUSE_SECONDS_MAX: Final = 2.0


def retry_delay_seconds(attempts: int, initial_seconds: float, max_seconds: float, random_unit: float) -> float:
    """Return the delay after the `attempts`-th counted failure (1 is the first).

    The ceiling is `initial_seconds` doubled for each failure after the first, at most `max_seconds`; `random_unit`,
    drawn by the caller from [0, 1), is the part of the ceiling that is waited. Raises `ValueError` for an argument
    out of its range. Any number of attempts is fine.
    """
    if attempts < 1:
        raise ValueError(f"attempts is {attempts}; the first failure is attempt 1")
    if not 0.0 <= random_unit < 1.0:
        raise ValueError(f"random_unit is {random_unit}; it must be at least 0 and below 1")
    return random_unit * _ceiling_seconds(attempts - 1, initial_seconds, max_seconds)


def probe_delay_seconds(failures: int) -> float:
    """Return the delay before a breaker's next probe, after `failures` failed ones: 250 ms, doubled up to 5 s."""
    if failures < 0:
        raise ValueError(f"failures is {failures}; it counts from 0")
    return _ceiling_seconds(failures, PROBE_DELAY_MIN_SECONDS, PROBE_DELAY_MAX_SECONDS)


def failure_pause_seconds(failures: int) -> float:
    """Return the pause after so many failures of the database in a row: 100 ms after the first, doubled up to 2 s."""
    if failures < 1:
        raise ValueError(f"failures is {failures}; the first one is 1")
    return _ceiling_seconds(failures - 1, FAILURE_PAUSE_SECONDS_MIN, FAILURE_PAUSE_SECONDS_MAX)


def _ceiling_seconds(doublings: int, initial_seconds: float, max_seconds: float) -> float:
    if not (0.0 <= initial_seconds < math.inf and 0.0 <= max_seconds < math.inf):
        raise ValueError(f"delays must be finite and not negative, not {initial_seconds} and {max_seconds}")
    if initial_seconds == 0.0 or initial_seconds >= max_seconds:
        return min(initial_seconds, max_seconds)
    # Logarithms are compared first, since doubling a million times would overflow.
    if doublings >= math.log2(max_seconds) - math.log2(initial_seconds):
        return max_seconds
    return min(math.ldexp(initial_seconds, doublings), max_seconds)
