"""Columns that may be null in a table of somebody's own: such a row costs no other."""

from __future__ import annotations

import pytest

from tests.support.rig import Rig


@pytest.mark.parametrize("after_publish", ["mark", "delete"])
def test_a_row_without_headers_event_or_time_goes_and_one_without_a_topic_dies(rig: Rig, after_publish: str) -> None:
    topic = rig.topic()
    for column in ("headers", "event_id", "created_at", "topic"):
        rig.sql.execute(f"ALTER TABLE outboxd.outbox ALTER {column} DROP NOT NULL, ALTER {column} DROP DEFAULT")
    insert = "INSERT INTO outboxd.outbox (topic, key, payload) VALUES (%s, %s, 'x') RETURNING id"
    rig.sql.execute(insert, (topic, "k"))
    rig.sql.execute("INSERT INTO outboxd.outbox (payload) VALUES ('x')")
    rig.sql.execute(insert, ("no topic", None))
    rig.insert_many([topic], 20, 5)
    daemon = rig.daemon(relay={"after_publish": after_publish, "sweep_interval": "200ms"})
    daemon.start()
    rig.wait_until_settled()
    assert daemon.stop().code == 0
    assert [(letter["topic"], letter["error_code"]) for letter in rig.dead_letters().values()] == [
        ("", "INVALID_TOPIC"),
        ("no topic", "INVALID_TOPIC"),
    ]
    assert len(rig.kafka.consume(topic)) == 21
    assert not daemon.events("database_failed")
