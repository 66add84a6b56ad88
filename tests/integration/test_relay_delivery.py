"""Rows in order, by every pattern of confirmation: the daemon between a real PostgreSQL and a real Kafka."""

from __future__ import annotations

import os

import pytest

from tests.support.checker import id_of
from tests.support.rig import Rig

ROWS = int(os.environ.get("OUTBOXD_TEST_ROWS", "20000"))
"""More rows for a thorough run: OUTBOXD_TEST_ROWS=200000."""


@pytest.mark.timeout(600)
@pytest.mark.parametrize("after_publish", ["mark", "delete"])
def test_many_rows_over_topics_and_keys_arrive_once_in_order_and_where_the_marks_say(
    rig: Rig, after_publish: str
) -> None:
    topics = [rig.topic(partitions=6) for _ in range(3)]
    rig.insert_many(topics, ROWS, keys=1_000)
    daemon = rig.daemon(relay={"after_publish": after_publish})

    ended = daemon.run("--until-empty", timeout_seconds=300)

    assert ended.code == 0, ended.err
    verdict = rig.check()
    verdict.assert_holds()
    assert verdict.delivered == ROWS
    assert verdict.published == (ROWS if after_publish == "mark" else 0)


def test_a_row_keeps_its_null_and_empty_parts_headers_and_time(rig: Rig) -> None:
    topic = rig.topic()
    rig.insert(topic, None, None)
    rig.insert(topic, "", b"")
    rig.insert(topic, "k", None, headers='{"traceparent": "00-1-2-03", "a b\\n": "ü", "nothing": null}')
    rig.insert(topic, "k", bytes(range(256)), headers='[["twice", "1"], ["twice", "2"], ["", "empty name"]]')
    rig.insert(topic, "k" * 3_000, b"long key", created_at="2001-02-03 04:05:06.789+00")
    rig.insert(topic, "chosen", b"by partition", partition=2)

    assert rig.daemon().run("--until-empty").code == 0

    verdict = rig.check()
    verdict.assert_holds()
    assert verdict.delivered == 6


def test_each_sends_one_record_of_a_topic_at_a_time_over_all_its_keys(rig: Rig) -> None:
    topic = rig.topic(partitions=3, config={"message.timestamp.type": "LogAppendTime"}, prefix="strict")
    rig.insert_many([topic], 300, keys=20)
    daemon = rig.daemon([{"topic": "strict-*", "confirm": "each"}], kafka={"linger.ms": "0"})

    assert daemon.run("--until-empty", timeout_seconds=60).code == 0

    assert rig.pending() == 0
    records = sorted(rig.kafka.consume(topic), key=id_of)
    assert len({id_of(record) for record in records}) == len(records) == 300
    # The broker's own times: over three partitions, each record was appended after the one before it was.
    times = [record.timestamp_ms for record in records]
    assert times == sorted(times)


def test_none_settles_without_waiting_for_reports_and_notes_no_offset(rig: Rig) -> None:
    lossy, kept = rig.topic(prefix="metrics"), rig.topic()
    rig.insert_many([lossy, kept], 2_000, keys=50)
    daemon = rig.daemon([{"topic": "metrics-*", "confirm": "none"}])

    assert daemon.run("--until-empty", timeout_seconds=60).code == 0

    verdict = rig.check(lossy_topics=[lossy])
    verdict.assert_holds()
    assert verdict.delivered == 2_000
    assert (
        rig.count("SELECT count(*) FROM outboxd.outbox WHERE published_offset IS NOT NULL AND topic = %s", lossy) == 0
    )
    assert (
        rig.count("SELECT count(*) FROM outboxd.outbox WHERE published_offset IS NOT NULL AND topic = %s", kept)
        == 1_000
    )


def test_none_leaves_what_the_producer_refuses_to_its_own_outcome(rig: Rig) -> None:
    lossy = rig.topic(prefix="metrics")
    good = [rig.insert(lossy, "k") for _ in range(3)]
    bad = rig.insert(lossy, "k", headers='{"outbox-id": "mine"}')
    good.append(rig.insert(lossy, "k"))
    daemon = rig.daemon([{"topic": "metrics-*", "confirm": "none"}])

    assert daemon.run("--until-empty", timeout_seconds=60).code == 0

    assert [id_of(record) for record in rig.kafka.consume(lossy)] == good
    letters = rig.dead_letters()
    assert {row_id: letter["error_code"] for row_id, letter in letters.items()} == {bad: "RESERVED_HEADER"}
    assert rig.count("SELECT count(*) FROM outboxd.outbox WHERE published_at IS NOT NULL") == len(good)


def test_none_refuses_a_row_that_names_a_partition_which_its_topic_lacks_and_loses_nothing(rig: Rig) -> None:
    lossy = rig.topic(partitions=2, prefix="metrics")
    daemon = rig.daemon([{"topic": "metrics-*", "confirm": "none"}])
    rig.insert(lossy, "k")
    # From then on the client knows the topic's partitions.
    assert daemon.run("--until-empty", timeout_seconds=60).code == 0
    daemon.start()
    daemon.wait_for_event("owner")
    rig.insert(lossy, "k")
    rig.wait_until_settled()
    with rig.sql.transaction():
        bad = {rig.insert(lossy, f"key-{number}", partition=7) for number in range(3)}
        good = [rig.insert(lossy, f"key-{number}") for number in range(3)]

    rig.wait_until_settled(timeout_seconds=30)

    ended = daemon.stop()
    assert ended.code == 0
    assert "record_lost" not in ended.err
    letters = rig.dead_letters()
    assert {row_id: letter["error_code"] for row_id, letter in letters.items()} == dict.fromkeys(
        bad, "UNKNOWN_PARTITION"
    )
    assert set(good) <= {id_of(record) for record in rig.kafka.consume(lossy)}


def test_a_row_waits_for_its_time_and_does_not_hold_its_key(rig: Rig) -> None:
    topic = rig.topic(partitions=1)
    never = rig.insert(topic, "k", available_at="2999-01-01")
    daemon = rig.daemon()
    daemon.start()
    daemon.wait_for_event("owner")
    delayed = [
        rig.count(
            "INSERT INTO outboxd.outbox (topic, key, payload, available_at)"
            " VALUES (%s, 'k', 'later', clock_timestamp() + interval '2 s') RETURNING id",
            topic,
        )
        for _ in range(3)
    ]
    free = [rig.insert(topic, "k") for _ in range(3)]

    rig.wait_until_settled(but=1)

    assert daemon.stop().code == 0
    earliest, latest = (
        rig.count(
            f"SELECT {bound}(extract(epoch FROM published_at - available_at) * 1000)::int FROM outboxd.outbox"
            " WHERE id = ANY(%s)",
            delayed,
        )
        for bound in ("min", "max")
    )
    assert earliest >= 0
    assert latest < 2_000
    rig.check(unordered=delayed).assert_holds(pending=1)
    assert [id_of(record) for record in rig.kafka.consume(topic)] == free + delayed
    assert rig.count("SELECT count(*) FROM outboxd.outbox WHERE id = %s AND published_at IS NULL", never) == 1


def test_the_highest_id_there_is_ends_a_read_of_its_topic(rig: Rig) -> None:
    paused = rig.topic(prefix="paused")
    rig.sql.execute("SELECT outboxd.pause('paused-*', 'a test')")
    rig.sql.execute(
        "INSERT INTO outboxd.outbox (id, topic, payload) OVERRIDING SYSTEM VALUE"
        " SELECT 9223372036854775807 - i, %s, 'x' FROM generate_series(0, 5) AS i",
        (paused,),
    )
    # Six rows are what a fetch shows of a topic that goes on: the last one is where it is cut.
    daemon = rig.daemon(relay={"batch_rows": 8})
    going = rig.topic()
    rig.insert(going)
    daemon.start()
    rig.wait_until_settled(but=6)
    rig.sql.execute("SELECT outboxd.resume('paused-*')")

    rig.wait_until_settled(timeout_seconds=20)

    other = rig.insert(going)
    rig.wait_until("SELECT published_at IS NOT NULL FROM outboxd.outbox WHERE id = %s", other, timeout_seconds=20)
    ended = daemon.stop()
    assert ended.code == 0
    assert "database_failed" not in ended.err


def test_a_paused_topic_waits_while_others_go_and_is_resumed_in_order(rig: Rig) -> None:
    paused, other = rig.topic(prefix="paused"), rig.topic()
    daemon = rig.daemon()
    daemon.start()
    daemon.wait_for_event("owner")
    rig.insert_many([paused, other], 2_000, keys=20)
    rig.wait_until_settled()
    rig.sql.execute("SELECT outboxd.pause('paused-*', 'a test')")
    daemon.wait_for_event("topic_paused", topic=paused)

    rig.insert_many([paused, other], 2_000, keys=20)
    rig.wait_until_settled(but=1_000)
    assert rig.count("SELECT count(*) FROM outboxd.outbox WHERE published_at IS NULL AND topic = %s", paused) == 1_000

    rig.sql.execute("SELECT outboxd.resume('paused-*')")
    rig.wait_until_settled()
    assert daemon.stop().code == 0
    rig.check().assert_holds()


def test_a_pause_outlives_the_daemon(rig: Rig) -> None:
    topic = rig.topic(prefix="paused")
    rig.sql.execute("SELECT outboxd.pause('paused-*', 'a test')")
    rig.insert_many([topic], 100, keys=5)

    ended = rig.daemon().run("--until-empty")

    assert ended.code == 0
    assert "100 rows" in ended.err
    assert "paused" in ended.err
    rig.check().assert_holds(pending=100)


def test_a_topic_that_catches_up_leaves_room_to_what_is_new_of_others(rig: Rig) -> None:
    long, short = rig.topic(), rig.topic()
    rig.sql.execute("SELECT outboxd.pause(%s, 'a test')", (long,))
    rig.insert_many([long], 150_000, keys=2_000)
    daemon = rig.daemon()
    daemon.start()
    # Read behind all of them, so they were seen and dropped.
    rig.insert(short)
    rig.wait_until_settled(but=150_000)

    rig.sql.execute("SELECT outboxd.resume(%s)", (long,))
    daemon.wait_for_event("topic_resumed", topic=long)
    other = rig.insert(short)
    rig.wait_until("SELECT published_at IS NOT NULL FROM outboxd.outbox WHERE id = %s", other)

    assert rig.count("SELECT count(*) FROM outboxd.outbox WHERE topic = %s AND published_at IS NULL", long) > 10_000
    rig.wait_until_settled(timeout_seconds=60)
    assert daemon.stop().code == 0
    rig.check().assert_holds()
