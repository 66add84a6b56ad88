"""Rows of few keys go together: in order and once, whatever becomes of one of them or of the brokers."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.chained import Chained
from tests.support.children import wait_for
from tests.support.kafka_fixtures import fresh_name
from tests.support.rig import Rig

IN_FLIGHT_MAX = 50_000


@pytest.mark.parametrize("keys", [1, 7])
def test_backlogs_of_few_keys_are_delivered_once_and_in_order(rig: Rig, keys: int) -> None:
    topic = rig.topic(partitions=3)
    rig.insert_many([topic], 3_000, keys=keys)
    chained = Chained(rig)
    chained.daemon.start()
    rig.wait_until_settled()
    assert chained.rows() > 2_000
    assert chained.daemon.events("chains_ended") == []
    rig.check().assert_holds()


def of_one_bad_row(rig: Rig, chained: Chained, topic: str, **bad: Any) -> int:
    """Two hot keys whose rows go together, and one bad row among those of one: relay all and return that row's id."""
    chained.go(topic, 300, keys=2)
    with rig.sql.transaction():
        rig.insert_many([topic], 300, keys=2)
        row_id = rig.insert(topic, "key-0", **bad)
        rig.insert_many([topic], 300, keys=2)

    def is_dead() -> bool:
        # What is refused for its time alone dies only where others of its topic get through meanwhile.
        rig.insert(topic, "key-1")
        return row_id in rig.dead_letters()

    wait_for(is_dead, timeout_seconds=30, what="the bad row is dead", poll_seconds=0.05)
    rig.wait_until_settled()
    return row_id


def test_a_row_that_the_broker_refuses_amid_a_hot_key_dies_alone_and_nothing_comes_twice(rig: Rig) -> None:
    topic = rig.topic(partitions=1, config={"message.timestamp.before.max.ms": "86400000"})
    chained = Chained(rig)
    row_id = of_one_bad_row(rig, chained, topic, created_at="2020-01-01 00:00:00+00")
    daemon = chained.daemon
    assert {found: letter["error_code"] for found, letter in rig.dead_letters().items()} == {
        row_id: "INVALID_TIMESTAMP"
    }
    told = daemon.events("chains_ended", topic=topic, error_code="INVALID_TIMESTAMP")
    assert told, daemon.log_text
    assert {event["unknown_rows"] for event in told} == {0}
    # A bad row is no trouble of the cluster's, nor of the client's.
    assert daemon.events("kafka_failed") == []
    assert "FATAL" not in daemon.log_text
    assert "producer_rebuilt" not in daemon.log_text
    rig.check().assert_holds(dead=1)


def test_a_row_that_the_client_refuses_amid_a_hot_key_dies_and_ends_nothing(rig: Rig) -> None:
    topic = rig.topic(partitions=1)
    chained = Chained(rig)
    row_id = of_one_bad_row(rig, chained, topic, headers='{"number": 1}')
    assert set(rig.dead_letters()) == {row_id}
    assert chained.daemon.events("chains_ended") == []
    rig.check().assert_holds(dead=1)


def test_a_bad_row_of_a_hot_key_that_holds_its_key_keeps_what_stands_behind_it(rig: Rig) -> None:
    topic = rig.topic(partitions=1, config={"message.timestamp.before.max.ms": "86400000"})
    rig.insert_many([topic], 100, keys=2)
    rig.insert(topic, "key-0", created_at="2020-01-01 00:00:00+00")
    rig.insert_many([topic], 200, keys=2)
    daemon = rig.daemon([{"topic": topic, "on_dead_letter": "hold-key"}])
    ended = daemon.run("--until-empty", timeout_seconds=60)
    assert ended.code == 0, ended.err
    rig.check().assert_holds(dead=1, pending=100)


def test_where_the_daemon_is_killed_while_rows_go_together_the_next_one_goes_on_in_order(rig: Rig) -> None:
    topic = rig.topic(partitions=2)
    first = Chained(rig, cluster={"lease_ttl": "2s"})
    first.go(topic, 20_000, keys=3)
    first.daemon.kill()
    assert rig.pending() > 0, "it was done before it was killed, which proves nothing"
    ended = rig.daemon(cluster={"lease_ttl": "2s"}).run("--until-empty", timeout_seconds=90)
    assert ended.code == 0, ended.err
    rig.check().assert_holds(duplicates_max=IN_FLIGHT_MAX)


def test_a_stop_while_rows_go_together_settles_them_and_none_comes_twice(rig: Rig) -> None:
    topic = rig.topic(partitions=2)
    first = Chained(rig)
    first.go(topic, 40_000, keys=3)
    first.daemon.stop()
    assert rig.pending() > 0, "it was done before it was stopped, which proves nothing"
    ended = rig.daemon().run("--until-empty", timeout_seconds=60)
    assert ended.code == 0, ended.err
    rig.check().assert_holds()


def test_where_a_leader_dies_while_rows_go_together_nothing_is_lost_and_the_order_holds(three: Rig) -> None:
    topic = fresh_name("chains")
    three.kafka.create_topic(topic, partitions=3, replication=3)
    three.topics.append(topic)
    chained = Chained(three)
    chained.go(topic, 20_000, keys=5)
    victim = three.kafka.leaders(topic)[0]
    three.kafka.kill(victim)
    try:
        three.insert_many([topic], 1_000, keys=5)
        three.wait_until_settled(timeout_seconds=90)
    finally:
        three.kafka.start_broker(victim)
    chained.daemon.stop()
    three.check().assert_holds(duplicates_max=IN_FLIGHT_MAX)
