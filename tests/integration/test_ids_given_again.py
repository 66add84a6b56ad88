"""Ids that the database gives again while rows that had them are in memory: the new rows are sent all the same."""

from __future__ import annotations

import psycopg
import pytest

from outboxd.policy.blame.fencings import MOVED
from tests.support.checker import id_of
from tests.support.daemon import DaemonProcess
from tests.support.rig import Rig

MODES = pytest.mark.parametrize(
    "relay",
    [
        {"delivery": "at-least-once"},
        {"delivery": "at-least-once", "after_publish": "delete"},
        {"delivery": "exactly-once"},
    ],
    ids=["marking", "deleting", "exactly-once"],
)
ROWS = 20
INSERT = """
INSERT INTO outboxd.outbox (topic, key, payload) SELECT %s, 'key-' || i %% 5, 'x' FROM generate_series(1, %s) AS i
RETURNING id, event_id::text
"""


def send_unsettled(rig: Rig, daemon: DaemonProcess, topic: str) -> psycopg.Connection[tuple[object, ...]]:
    """Rows are in Kafka, and a lock on the table keeps the daemon from marking them."""
    rig.insert_many([topic], ROWS, keys=5)
    blocker = rig.database.connect(autocommit=False)
    blocker.execute("LOCK TABLE outboxd.outbox IN SHARE MODE")
    daemon.start()
    rig.kafka.consume(topic, until=ROWS)
    return blocker


def assert_sent(rig: Rig, topic: str, event_ids: set[str]) -> None:
    sent = {(record.header("outbox-event-id") or b"").decode() for record in rig.kafka.consume(topic)}
    assert event_ids - sent == set(), "rows were lost"


@MODES
def test_rows_with_the_ids_of_a_truncated_table_are_sent(rig: Rig, relay: dict[str, str]) -> None:
    topic = rig.topic()
    daemon = rig.daemon(relay=relay)
    blocker = send_unsettled(rig, daemon, topic)
    # What the rig notes of rows, by their ids, goes with them.
    blocker.execute("TRUNCATE outboxd.outbox, public.written RESTART IDENTITY")
    instead = {row_id: str(event_id) for row_id, event_id in blocker.execute(INSERT, (topic, ROWS))}
    blocker.commit()
    blocker.close()
    assert set(instead) == set(range(1, ROWS + 1))

    daemon.wait_for_event("lease_lost", reason=MOVED)
    rig.wait_until_settled()
    assert daemon.stop().code == 0
    assert_sent(rig, topic, set(instead.values()))


def test_a_table_that_is_rewritten_costs_no_row(rig: Rig) -> None:
    topic = rig.topic()
    daemon = rig.daemon()
    blocker = send_unsettled(rig, daemon, topic)
    blocker.execute("ALTER TABLE outboxd.outbox ALTER partition TYPE bigint")
    blocker.execute("ALTER TABLE outboxd.outbox ALTER partition TYPE integer")
    blocker.commit()
    blocker.close()

    daemon.wait_for_event("lease_lost", reason=MOVED)
    rig.wait_until_settled()
    assert daemon.stop().code == 0
    rig.check().assert_holds(duplicates_max=ROWS)


@MODES
def test_rows_with_the_ids_of_rows_that_a_crash_lost_are_sent(forgetful: Rig, relay: dict[str, str]) -> None:
    rig = forgetful
    topic = rig.topic()
    daemon = rig.daemon(relay=relay, cluster={"lease_ttl": "60s"})
    daemon.start()
    rig.insert_many([topic], 100, keys=5)
    rig.wait_until_settled()
    rig.database.server.freeze_wal_writer()
    rig.sql.execute("SET synchronous_commit = off")
    rig.sql.execute("SELECT outboxd.pause('*', 'a test')")
    rig.sql.execute(INSERT, (topic, 200))
    lost = {str(row[0]) for row in rig.sql.execute("SELECT event_id::text FROM public.written WHERE id > 100")}
    blocker = rig.database.connect(autocommit=False)
    blocker.execute("SET LOCAL synchronous_commit = off")
    blocker.execute("LOCK TABLE outboxd.outbox IN SHARE MODE")
    rig.sql.execute("SELECT outboxd.resume('*')")
    rig.kafka.consume(topic, until=300)

    server = rig.database.server
    daemon.freeze()
    server.kill()
    for connection in (blocker, rig.sql):
        connection.close()
    server.start()
    rig.sql = rig.database.connect()
    assert rig.count("SELECT count(*) FROM public.written") == 100, "the crash should lose what was not waited for"
    rig.sql.execute("SELECT outboxd.resume('*')")
    # Whether the page of the log before the commits was written is luck, and with it how much of the sequence is lost.
    rig.sql.execute("SELECT setval(pg_get_serial_sequence('outboxd.outbox', 'id'), 100)")
    rig.sql.execute(INSERT, (topic, 200))
    instead = {str(row[0]) for row in rig.sql.execute("SELECT event_id::text FROM public.written WHERE id > 100")}
    assert len(instead) == rig.count("SELECT count(*) FROM public.written WHERE id BETWEEN 101 AND 300")
    daemon.thaw()

    rig.wait_until_settled()
    assert daemon.stop().code == 0
    assert not lost & instead
    assert_sent(rig, topic, instead)


def test_dead_letters_whose_rows_had_the_same_id_are_replayed_one_after_the_other(rig: Rig) -> None:
    topic, other = rig.topic(), rig.topic()
    daemon = rig.daemon()
    daemon.start()
    for key in ("a", "b"):
        assert rig.insert(topic, key, headers='"no object"') == 1
        rig.wait_until("SELECT count(*) = 1 FROM outboxd.dead_letter WHERE key = %s", key)
        rig.sql.execute("TRUNCATE outboxd.outbox, public.written RESTART IDENTITY")
    rig.insert_many([other], ROWS, keys=5)
    rig.wait_until_settled()

    rig.sql.execute("SELECT outboxd.pause(%s)", (topic,))
    rig.sql.execute("UPDATE outboxd.dead_letter SET headers = '{}'")
    rig.sql.execute("SELECT outboxd.replay(array_agg(id), force => true) FROM outboxd.dead_letter")
    rig.insert_many([other], ROWS, keys=5)
    rig.wait_until_settled()
    rig.sql.execute("SELECT outboxd.resume(%s)", (topic,))

    rig.wait_until("SELECT count(*) = 2 FROM outboxd.dead_letter WHERE status = 'replayed'")
    assert sorted(record.key or b"" for record in rig.kafka.consume(topic)) == [b"a", b"b"]
    assert not daemon.events("producer_renewed")
    assert daemon.stop().code == 0


@pytest.mark.parametrize("delivery", ["at-least-once", "exactly-once"])
def test_a_row_with_the_id_of_a_dead_letter_that_holds_another_key_is_sent(rig: Rig, delivery: str) -> None:
    topic = rig.topic()
    daemon = rig.daemon([{"topic": topic, "on_dead_letter": "hold-key"}], relay={"delivery": delivery})
    daemon.start()
    for key in ("a", "b"):
        assert rig.insert(topic, key, headers='"no object"') == 1, "the second has the id of what holds the other key"
        rig.wait_until("SELECT count(*) = 1 FROM outboxd.dead_letter WHERE key = %s AND holds_key", key)
        rig.sql.execute("TRUNCATE outboxd.outbox, public.written RESTART IDENTITY")
    assert rig.insert(topic, "c") == 1
    for key in ("a", "b", "c"):
        rig.insert(topic, key)
    rig.wait_until("SELECT count(*) = 2 FROM outboxd.outbox WHERE published_at IS NOT NULL")
    assert rig.pending() == 2, "both dead letters hold their keys"

    rig.sql.execute("SELECT outboxd.discard(id) FROM outboxd.dead_letter WHERE key = 'a'")
    rig.wait_until_settled(but=1)
    rig.sql.execute("UPDATE outboxd.dead_letter SET headers = '{}' WHERE key = 'b'")
    rig.sql.execute("SELECT outboxd.replay(id) FROM outboxd.dead_letter WHERE key = 'b'")
    rig.wait_until_settled()
    sent = [(record.key, id_of(record)) for record in rig.kafka.consume(topic)]
    assert sorted(sent) == [(b"a", 2), (b"b", 1), (b"b", 3), (b"c", 1), (b"c", 4)]
    assert [record_id for key, record_id in sent if key == b"b"] == [1, 3], "the replay goes first"
    assert daemon.stop().code == 0


def test_a_row_with_the_key_and_the_id_of_a_dead_letter_waits_for_it(rig: Rig) -> None:
    topic = rig.topic()
    daemon = rig.daemon([{"topic": topic, "on_dead_letter": "hold-key"}])
    daemon.start()
    assert rig.insert(topic, "a", headers='"no object"') == 1
    rig.wait_until("SELECT count(*) = 1 FROM outboxd.dead_letter WHERE holds_key")
    rig.sql.execute("TRUNCATE outboxd.outbox, public.written RESTART IDENTITY")
    assert rig.insert(topic, "a") == 1
    rig.insert(topic, "b")
    daemon.wait_for_event("owner", count=2)
    rig.wait_until_settled(but=1)
    assert rig.count("SELECT id FROM outboxd.outbox WHERE published_at IS NULL") == 1

    rig.sql.execute("SELECT outboxd.discard(id) FROM outboxd.dead_letter")
    rig.wait_until_settled()
    assert [(record.key, id_of(record)) for record in rig.kafka.consume(topic) if record.key == b"a"] == [(b"a", 1)]
    assert daemon.stop().code == 0
