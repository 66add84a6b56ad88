"""Trust in the lease ends while the machine sleeps, where the monotonic clock stands still."""

from __future__ import annotations

import time

import pytest

from outboxd.postgres.lease import trust
from outboxd.postgres.lease.trust import Trust, wakeful_time


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """For how long the machine slept: the clocks as they are after that."""
    seconds = [0.0]
    monkeypatch.setattr(trust, "wakeful_time", lambda: wakeful_time() + seconds[0])
    return seconds


def test_trust_lasts_for_the_ttl_less_a_margin() -> None:
    held = Trust(10.0)
    assert held.is_over()
    before = time.monotonic()
    held.begin(trust.wakeful_time())
    assert not held.is_over()
    assert before + 8.9 < held.until() < time.monotonic() + 9.0


def test_trust_is_over_for_who_slept_through_it(slept: list[float]) -> None:
    held = Trust(10.0)
    held.begin(trust.wakeful_time())
    slept[0] = 4.0
    assert not held.is_over()
    assert held.until() < time.monotonic() + 5.0
    slept[0] = 9.0
    assert held.is_over()
    assert held.until() <= time.monotonic()


def test_trust_that_was_ended_is_over() -> None:
    held = Trust(10.0)
    held.begin(trust.wakeful_time())
    held.end()
    assert held.is_over()
    assert held.until() == float("-inf")
