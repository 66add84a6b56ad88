"""How long and how often: the short form is for every change, the long one for a release."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, TypeVar

Test = TypeVar("Test", bound=Callable[..., Any])

IS_LONG = os.environ.get("OUTBOXD_CHAOS", "short") == "long"
OUTAGE_SECONDS = 60.0 if IS_LONG else 10.0
KILLS = 20 if IS_LONG else 5
PROXY_ROUNDS = 5 if IS_LONG else 1
SEED = int(os.environ.get("OUTBOXD_CHAOS_SEED", "7"))
TTL_SECONDS = 2.0
IN_FLIGHT_ROWS = 2_000
RELAY = {"max_in_flight_rows": IN_FLIGHT_ROWS, "batch_rows": 500}
CLUSTER = {"lease_ttl": f"{TTL_SECONDS}s"}
HEALED_SECONDS = 10.0
"""Relaying resumes within this of healing."""


def long_only(test: Test) -> Test:
    """Leave this test to the long form; `conftest.py` takes it out of the short one."""
    test.__dict__["is_long_only"] = True
    return test
