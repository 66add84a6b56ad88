"""The chaos campaign's short form: half a minute of faults from a seed, in either mode, and nothing is violated.

The long one is `python -m tests.chaos.campaign`; its last run stands in docs/reliability/.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.chaos.campaign.campaign import Plan, run
from tests.chaos.campaign.faults import MENU
from tests.chaos.lengths import IS_LONG, SEED
from tests.support.kafka_jars import KafkaMissingError
from tests.support.postgres import PostgresMissingError

pytestmark = pytest.mark.timeout(1_200 if IS_LONG else 300)

MINUTES = 5.0 if IS_LONG else 0.4
ROWS_A_MINUTE = 40_000
BRIEF = {
    "kill-owner", "stop-owner", "freeze-owner-past-its-lease", "kill-broker", "kafka-cut", "kafka-black-hole",
    "postgres-crashed", "postgres-cut", "failover", "sessions-terminated", "table-locked", "mass-rollback",
    "poison-headers", "poison-over-topic-limit", "topic-paused", "bad-reload",
}  # fmt: skip
"""Kinds that take a few seconds each."""


@pytest.mark.parametrize("delivery", ["at-least-once", "exactly-once"])
def test_a_campaign_of_faults_from_a_seed_violates_nothing(delivery: str, tmp_path: Path) -> None:
    menu = [kind for kind in MENU if IS_LONG or kind.name in BRIEF]
    plan = Plan(
        minutes=MINUTES,
        seed=SEED,
        rows=round(MINUTES * ROWS_A_MINUTE),
        delivery=delivery,
        every_seconds=2.0,
        directory=tmp_path / "log",
        menu=menu,
    )
    try:
        result = run(plan)
    except (KafkaMissingError, PostgresMissingError) as missing:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip(str(missing))
    assert result.failures == [], result.text
    assert result.verdict.written >= plan.rows
    assert len(result.log.kinds) >= 4, result.text
