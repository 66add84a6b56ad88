"""Rows of few keys that go together, beside all that may happen meanwhile: nothing is lost, and the order holds."""

from __future__ import annotations

import signal

import pytest

from tests.support.chained import Chained
from tests.support.kafka_fixtures import fresh_name
from tests.support.rig import Rig
from tests.support.rows import value

IN_FLIGHT_MAX = 50_000


def test_a_row_that_is_too_large_for_its_topic_dies_alone(rig: Rig) -> None:
    topic = rig.topic(partitions=1, config={"max.message.bytes": "20000"})
    chained = Chained(rig)
    chained.go(topic, 2_000, keys=2)
    row_id = rig.insert(topic, "key-0", b"x" * 40_000)
    rig.insert_many([topic], 2_000, keys=2)
    rig.wait_until(f"SELECT EXISTS (SELECT FROM outboxd.dead_letter WHERE outbox_id = {row_id})")
    rig.wait_until_settled()
    assert set(rig.dead_letters()) == {row_id}
    assert all(event["unknown_rows"] == 0 for event in chained.daemon.events("chains_ended"))
    rig.check().assert_holds(dead=1)


def test_rows_without_payload_key_or_with_a_partition_of_their_own_go_among_them(rig: Rig) -> None:
    topic = rig.topic(partitions=3)
    chained = Chained(rig)
    chained.go(topic, 2_000, keys=2)
    for number in range(20):
        rig.insert(topic, "key-0", None)
        rig.insert(topic, "")
        rig.insert(topic, None)
        rig.insert(topic, "placed", partition=number % 3)
        rig.insert_many([topic], 200, keys=2)
    rig.wait_until_settled()
    assert chained.daemon.events("chains_ended") == []
    assert chained.rows() > 2_000
    rig.check().assert_holds()


@pytest.mark.parametrize("confirm", ["each", "none"])
def test_topics_of_another_confirmation_beside_them_keep_their_ways(rig: Rig, confirm: str) -> None:
    topic, other = rig.topic(partitions=2), rig.topic(partitions=2)
    chained = Chained(rig, {"topic": other, "confirm": confirm})
    chained.go(topic, 3_000, keys=2)
    rig.insert_many([topic, other], 600, keys=2)
    rig.wait_until_settled()
    chained.daemon.stop()
    # Where nobody waits for a report no place is noted.
    unnoted = [other] if confirm == "none" else []
    rig.check(ignore_places_of=unnoted).assert_holds()


def test_a_row_that_is_committed_late_is_found_while_later_ones_of_its_key_go_together(rig: Rig) -> None:
    topic = rig.topic(partitions=2)
    chained = Chained(rig)
    chained.daemon.start()
    chained.daemon.wait_for_event("owner")
    with rig.database.connect(autocommit=False) as late:
        row_id = value(
            late, "INSERT INTO outboxd.outbox (topic, key, payload) VALUES (%s, 'key-0', 'late') RETURNING id", topic
        )
        rig.insert_many([topic], 20_000, keys=2)
        chained.wait_until_they_go()
    rig.wait_until_settled()
    rig.check(unordered=[row_id]).assert_holds()


def test_a_pause_stops_them_and_a_resume_lets_them_go_on(rig: Rig) -> None:
    topic = rig.topic(partitions=2)
    chained = Chained(rig)
    chained.go(topic, 30_000, keys=2)
    rig.sql.execute("SELECT outboxd.pause(%s, 'a test')", (topic,))
    chained.daemon.wait_for_event("topic_paused")
    # What is delivered after others of its topic were has no earlier ones in the air.
    other = rig.topic(partitions=1)
    kept = -1
    for _ in range(3):
        row_id, before, kept = rig.insert(other), kept, rig.pending() - 1
        rig.wait_until("SELECT published_at IS NOT NULL FROM outboxd.outbox WHERE id = %s", row_id)
    assert before == kept > 0
    rig.sql.execute("SELECT outboxd.resume(%s)", (topic,))
    rig.wait_until_settled()
    rig.check().assert_holds()


def test_a_reload_beside_them_costs_nothing(rig: Rig) -> None:
    topic = rig.topic(partitions=2)
    chained = Chained(rig)
    chained.go(topic, 30_000, keys=2)
    for count in range(1, 6):
        chained.daemon.signal(signal.SIGHUP)
        chained.daemon.wait_for_event("config_reloaded", count=count)
    rig.wait_until_settled()
    assert chained.daemon.events("chains_ended") == []
    rig.check().assert_holds()


def test_a_frozen_owner_that_wakes_beside_its_successor_settles_nothing_and_the_order_holds(rig: Rig) -> None:
    topic = rig.topic(partitions=2)
    first, second = (Chained(rig, cluster={"lease_ttl": "2s"}) for _ in range(2))
    first.daemon.start()
    first.daemon.wait_for_event("owner")
    second.daemon.start()
    second.daemon.wait_for_event("standing_by")
    rig.insert_many([topic], 60_000, keys=2)
    first.wait_until_they_go()
    first.daemon.freeze()
    assert rig.pending() > 0, "it was done before it was frozen, which proves nothing"
    second.daemon.wait_for_event("owner", timeout_seconds=30)
    first.daemon.thaw()
    rig.wait_until_settled()
    first.daemon.wait_for_event("lease_lost")
    assert second.rows() > 0
    rig.check().assert_holds(duplicates_max=IN_FLIGHT_MAX)


def test_a_topic_that_is_deleted_meanwhile_is_held_and_the_others_go_on(rig: Rig) -> None:
    topic = rig.topic(partitions=2)
    deleted = fresh_name("deleted")
    rig.kafka.create_topic(deleted, partitions=2)
    chained = Chained(rig)
    chained.go(deleted, 20_000, keys=2)
    rig.kafka.delete_topic(deleted)
    rig.insert_many([topic], 5_000, keys=2)
    rig.wait_until("SELECT NOT EXISTS (SELECT FROM outboxd.outbox WHERE topic = %s AND published_at IS NULL)", topic)
    assert rig.dead_letters() == {}
    rig.check(lossy_topics=[deleted]).assert_holds(pending=rig.pending())
