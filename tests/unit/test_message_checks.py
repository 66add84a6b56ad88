"""What is found wrong with a record before the client sees it."""

from __future__ import annotations

import pytest

from outboxd.kafka.messages import MessageChecks
from outboxd.policy.row_checks import TIMESTAMP_MS_MAX
from tests.unit.records import record


@pytest.mark.parametrize(
    ("created_at_ms", "fault"), [(1, None), (TIMESTAMP_MS_MAX, None), (TIMESTAMP_MS_MAX + 1, "INVALID_TIMESTAMP")]
)
def test_a_time_beyond_what_kafka_can_express_is_found_in_an_otherwise_plain_record(
    created_at_ms: int, fault: str | None
) -> None:
    found = MessageChecks("shop", 1_000_000).fault_of(record(1)._replace(created_at_ms=created_at_ms))

    assert (None if found is None else found.fault.name) == fault
