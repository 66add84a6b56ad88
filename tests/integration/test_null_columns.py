"""Columns that may be null in a table of somebody's own: such a row costs no other."""

from __future__ import annotations

import pytest

from tests.support.rig import Rig
from tests.support.shell import shell_on


@pytest.mark.parametrize(
    "relay",
    [{"after_publish": "mark"}, {"after_publish": "delete"}, {"delivery": "exactly-once"}],
    ids=["marking", "deleting", "exactly-once"],
)
def test_a_row_without_headers_event_or_time_goes_and_one_without_a_topic_dies(rig: Rig, relay: dict[str, str]) -> None:
    topic = rig.topic()
    for column in ("headers", "event_id", "created_at", "topic"):
        rig.sql.execute(f"ALTER TABLE outboxd.outbox ALTER {column} DROP NOT NULL, ALTER {column} DROP DEFAULT")
    insert = "INSERT INTO outboxd.outbox (topic, key, payload) VALUES (%s, %s, 'x') RETURNING id"
    rig.sql.execute(insert, (topic, "k"))
    rig.sql.execute("INSERT INTO outboxd.outbox (payload) VALUES ('x')")
    rig.sql.execute(insert, ("no topic", None))
    rig.insert_many([topic], 20, 5)
    daemon = rig.daemon(relay={"sweep_interval": "200ms", **relay})
    daemon.start()
    rig.wait_until_settled()
    assert daemon.stop().code == 0
    assert [(letter["topic"], letter["error_code"]) for letter in rig.dead_letters().values()] == [
        ("", "INVALID_TOPIC"),
        ("no topic", "INVALID_TOPIC"),
    ]
    assert len(rig.kafka.consume(topic)) == 21
    assert not daemon.events("database_failed")
    assert not daemon.events("producer_rebuilt")


def test_rows_without_an_event_are_settled_after_a_lost_connection_and_found_by_the_audit(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    topic, lossy = rig.topic(), rig.topic(prefix="lossy")
    rig.sql.execute(
        "ALTER TABLE outboxd.outbox ALTER event_id DROP NOT NULL, ALTER event_id DROP DEFAULT,"
        " ALTER headers DROP NOT NULL, ALTER headers DROP DEFAULT"
    )
    rig.insert_many([topic, lossy], 20, 5)
    with rig.database.connect(autocommit=False) as blocker:
        blocker.execute("LOCK TABLE outboxd.outbox IN SHARE MODE")
        daemon = rig.daemon([{"topic": lossy, "confirm": "none"}])
        daemon.start()
        rig.kafka.consume(topic, until=10)
        ended = "SELECT count(pg_terminate_backend(pid)) > 0 FROM pg_stat_activity WHERE query LIKE 'WITH ours%%'"
        rig.wait_until(ended + " AND state = 'active' AND datname = current_database()")
        blocker.commit()
    rig.wait_until_settled()
    assert daemon.stop().code == 0

    assert len(rig.kafka.consume(topic)) == 10
    shell = shell_on(rig.database, monkeypatch, capsys, OUTBOXD_KAFKA__BOOTSTRAP_SERVERS=rig.kafka.bootstrap)
    assert "10 are at their place" in shell.ok("audit", "--topic", topic).out
