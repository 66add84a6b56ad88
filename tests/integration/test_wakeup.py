"""LISTEN: rows are seen at once, and without notifications it polls as ever."""

from __future__ import annotations

from tests.support.rig import Rig
from tests.support.rows import value

SLOW = {"listen": True, "poll_interval_max": "1m", "sweep_interval": "1h"}
"""Only a notification brings a row to light soon."""


def test_a_row_is_seen_by_its_notification(rig: Rig) -> None:
    topic = rig.topic()
    daemon = rig.daemon(relay=SLOW)
    daemon.start()
    daemon.wait_for_event("listening")
    daemon.wait_for_event("owner")
    for number in range(3):
        rig.insert(topic)
        rig.wait_until("SELECT count(published_at) = %s FROM outboxd.outbox", number + 1, timeout_seconds=10)
    assert daemon.stop().code == 0
    rig.check().assert_holds()


def test_a_connection_that_is_cut_listens_again_and_nothing_is_missed(rig: Rig) -> None:
    topic = rig.topic()
    daemon = rig.daemon(relay=SLOW)
    daemon.start()
    daemon.wait_for_event("listening")
    for number in range(3):
        cut = value(
            rig.sql,
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE query LIKE 'LISTEN%%' AND datname = current_database()",
        )
        assert cut == 1
        rig.insert(topic)
        daemon.wait_for_event("listening", count=number + 2)
        rig.wait_until("SELECT count(published_at) = %s FROM outboxd.outbox", number + 1, timeout_seconds=10)
    assert daemon.events("listening_lost")
    assert daemon.stop().code == 0
