"""Three brokers: what they acknowledged outlives a leader, unless they elect one that lacks it, which is told."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaException

from outboxd.kafka.checks.transaction_checks import inspect_transactions
from outboxd.policy.exchange.findings import Weight
from tests.integration.test_audit import shell_of
from tests.integration.test_kafka_harness import Client
from tests.support.checker import id_of
from tests.support.children import wait_for
from tests.support.kafka import KafkaCluster
from tests.support.kafka_fixtures import fresh_name
from tests.support.rig import Rig
from tests.support.rows import value

LOSSY = {"unclean.leader.election.enable": "true", "min.insync.replicas": "1"}


def test_three_brokers_keep_what_they_acknowledged_when_a_leader_dies(kafka_three: KafkaCluster) -> None:
    name = kafka_three.create_topic(fresh_name(), partitions=3, replication=3)
    client = Client({"bootstrap.servers": kafka_three.bootstrap})
    assert client.send(name, count=300) == [0] * 300
    victim = kafka_three.leaders(name)[0]
    kafka_three.kill(victim)
    try:
        assert client.send(name, count=300) == [0] * 300
        assert kafka_three.leaders(name)[0] != victim
        assert len(kafka_three.consume(name)) == 600
    finally:
        kafka_three.start_broker(victim)


def lost_rows(rig: Rig, topic: str) -> list[int]:
    """Rows that are marked as published and whose records are nowhere, as a consumer sees it."""
    there = {id_of(record) for record in rig.kafka.consume(topic)}
    published: list[int] = value(
        rig.sql, "SELECT coalesce(array_agg(id ORDER BY id), '{}') FROM outboxd.outbox WHERE published_at IS NOT NULL"
    )
    return [row_id for row_id in published if row_id not in there]


def in_sync(rig: Rig, topic: str) -> set[int]:
    try:
        return set(rig.kafka.admin.list_topics(topic, timeout=3).topics[topic].partitions[0].isrs)
    except KafkaException:
        # The client asks the broker that died, perhaps, and takes another one next.
        return set()


def elect_an_outdated_leader(rig: Rig, topic: str) -> int:
    """Rows are acknowledged by one broker alone, which dies; the one that lacks them leads. Returns the dead one."""
    kafka = rig.kafka
    leader = kafka.leaders(topic)[0]
    found = kafka.admin.list_topics(topic, timeout=10).topics[topic].partitions[0]
    (follower,) = set(found.replicas) - {leader}
    kafka.kill(follower)
    wait_for(lambda: in_sync(rig, topic) == {leader}, timeout_seconds=40, what="the follower is out of sync")
    # Keys that no other row has, so that none of them has newer records later; one of them has.
    rig.sql.execute(
        "INSERT INTO outboxd.outbox (topic, key, payload)"
        " SELECT %s, 'lost-' || i, convert_to(i::text, 'UTF8') FROM generate_series(1, 300) AS i",
        (topic,),
    )
    rig.wait_until_settled()
    kafka.kill(leader)
    kafka.start_broker(follower)
    wait_for(lambda: kafka.leaders(topic).get(0) == follower, timeout_seconds=30, what="the outdated replica leads")
    return leader


def test_an_unclean_election_raises_the_alarm_and_the_audit_names_and_mends_exactly_the_lost_rows(
    three: Rig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rig, topic = three, fresh_name("lossy")
    rig.kafka.create_topic(topic, partitions=1, replication=2, config=LOSSY)
    shell = shell_of(rig, monkeypatch, capsys)
    daemon = rig.daemon()
    daemon.start()
    rig.insert_many([topic], 300, keys=50)
    rig.wait_until_settled()
    assert shell.ok("audit", "--json").document["fine"] == 300

    dead = elect_an_outdated_leader(rig, topic)
    try:
        # The daemon goes on: its next record shows that the log went back. One key of a lost row gets a newer record.
        newer = rig.insert(topic, "lost-7", b"newer")
        rig.insert_many([topic], 50, keys=10)
        alarm = daemon.wait_for_event("acknowledged_records_lost", topic=topic, timeout_seconds=60)
        rig.wait_until_settled()
        assert daemon.stop().code == 0

        expected = lost_rows(rig, topic)
        assert len(expected) == 300
        assert alarm["partition"] == 0
        # A lower bound: what was written anew by then may be what was there before.
        assert 300 - 51 <= alarm["count"] <= 300

        found = shell("audit", "--json")
        assert found.code == 69
        assert found.document["fine"] + found.document["elsewhere"] == 351
        assert [row["id"] for row in found.document["lost_rows"]] == expected
        (overtaken,) = [row for row in found.document["lost_rows"] if row["newer_id"] is not None]
        assert (overtaken["key"], overtaken["newer_id"]) == ("lost-7", newer)

        marks = rig.sql.execute("SELECT * FROM outboxd.outbox ORDER BY id").fetchall()
        sent = shell("audit", "--republish", "--json")
        assert (sent.code, sent.document["republished"], sent.document["refused"]) == (64, 299, 1)
        assert lost_rows(rig, topic) == [overtaken["id"]]
        again = [id_of(record) for record in rig.kafka.consume(topic)][-299:]
        assert again == sorted(again)

        forced = shell.ok("audit", "--republish", "--force", "--json")
        assert forced.document["republished"] == 1
        assert lost_rows(rig, topic) == []
        after = shell.ok("audit", "--json").document
        assert (after["lost"], after["elsewhere"] >= 300) == (0, True)
        assert rig.sql.execute("SELECT * FROM outboxd.outbox ORDER BY id").fetchall() == marks
    finally:
        rig.kafka.start_broker(dead)


def test_check_warns_of_a_progress_topic_that_may_lose_what_was_acknowledged(kafka_three: KafkaCluster) -> None:
    topic = fresh_name("outboxd-progress")
    config = {
        "cleanup.policy": "delete",
        "retention.ms": "-1",
        "min.insync.replicas": "1",
        "unclean.leader.election.enable": "true",
    }
    kafka_three.create_topic(topic, partitions=1, replication=3, config=config)
    found = inspect_transactions({"bootstrap.servers": kafka_three.bootstrap}, "outboxd-checked", topic)
    assert [(each.weight, each.message) for each in found][1:] == [
        (Weight.WARNING, f"{topic} is not compacted: it grows without a limit"),
        (Weight.WARNING, f"{topic}: min.insync.replicas is 1 of 3: acknowledged records can be lost with one broker"),
        (Weight.WARNING, f"{topic}: unclean leader election is on: acknowledged records can be lost"),
    ]
