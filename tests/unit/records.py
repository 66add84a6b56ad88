"""Records for unit tests."""

from __future__ import annotations

from uuid import UUID

from outboxd.policy.rows.records import Arm, Record


def record(
    record_id: int,
    *,
    topic: str = "orders",
    key: str | None = "k",
    arm: Arm = Arm.FORWARD,
    partition: int | None = None,
    size_bytes: int = 100,
) -> Record:
    """Return a record of which only what the test names matters."""
    event_id = str(UUID(int=record_id % 2**64))
    return Record(arm, record_id, event_id, topic, key, b"payload", "{}", partition, 0, size_bytes)
