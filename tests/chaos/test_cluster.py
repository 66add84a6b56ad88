"""What ails a cluster: too few replicas, rights and passwords, a deleted topic, a topic changed under its rows."""

from __future__ import annotations

import re
from datetime import datetime

import pytest
from confluent_kafka.admin import AclOperation

from tests.chaos.conftest import MakeRig
from tests.chaos.lengths import CLUSTER, HEALED_SECONDS, RELAY, long_only
from tests.chaos.load import Load
from tests.support.checker import id_of
from tests.support.children import wait_for
from tests.support.daemon import Event
from tests.support.kafka import KafkaCluster
from tests.support.kafka_fixtures import fresh_name
from tests.support.rig import Rig

pytestmark = pytest.mark.timeout(300)


def time_of(event: Event) -> float:
    return datetime.fromisoformat(re.sub("Z$", "+00:00", event["timestamp"])).timestamp()


def assert_nothing_was_blamed(rig: Rig) -> None:
    assert rig.dead_letters() == {}
    assert rig.count("SELECT count(*) FROM outboxd.retry") == 0


@long_only
def test_too_few_replicas_hold_their_topic_only_and_nothing_is_counted(
    make_rig: MakeRig, kafka_three: KafkaCluster
) -> None:
    rig = make_rig(kafka_three)
    strict, lax = fresh_name("strict"), fresh_name("lax")
    # The strict topic wants all three: one broker that is away is enough.
    kafka_three.create_topic(strict, partitions=3, replication=3, config={"min.insync.replicas": "3"})
    kafka_three.create_topic(lax, partitions=3, replication=3, config={"min.insync.replicas": "1"})
    rig.topics += [strict, lax]
    daemon = rig.daemon(relay=RELAY, cluster=CLUSTER)
    daemon.start()
    daemon.wait_for_event("owner")
    with Load(rig, [strict, lax], writers=1) as load:
        load.wait_for_rows(200)
        kafka_three.kill(2)
        try:
            load.wait_for_rows(500)
            # What waits is visible either as a breaker or as a stall; the other topic goes on.
            rig.wait_until(
                "SELECT count(*) FILTER (WHERE topic = %s AND published_at IS NULL) > 100"
                " AND max(published_at) FILTER (WHERE topic = %s) > now() - interval '1 s' FROM outboxd.outbox",
                strict, lax, timeout_seconds=40,
            )  # fmt: skip
        finally:
            kafka_three.start_broker(2)
        load.wait_for_rows(100)
    rig.wait_until_settled()
    assert daemon.stop().code == 0
    assert_nothing_was_blamed(rig)
    rig.check().assert_holds()


def test_a_right_that_is_revoked_holds_the_topic_until_it_is_granted_again(
    make_rig: MakeRig, kafka_guarded: KafkaCluster
) -> None:
    rig = make_rig(kafka_guarded, kafka_guarded.client_config("relay"))
    denied, allowed = rig.topic(), rig.topic()
    for topic in (denied, allowed):
        kafka_guarded.grant("relay", topic)
        kafka_guarded.grant("relay", topic, AclOperation.DESCRIBE)
    daemon = rig.daemon(relay=RELAY, cluster=CLUSTER)
    daemon.start()
    daemon.wait_for_event("owner")
    with Load(rig, [denied, allowed], writers=1) as load:
        load.wait_for_rows(300)
        kafka_guarded.revoke("relay", denied)
        daemon.wait_for_event("breaker_opened", topic=denied)
        load.wait_for_rows(300)
        rig.wait_until(
            "SELECT max(published_at) > now() - interval '1 s' FROM outboxd.outbox WHERE topic = %s", allowed
        )
        kafka_guarded.grant("relay", denied)
        daemon.wait_for_event("breaker_closed", topic=denied, timeout_seconds=HEALED_SECONDS)
        load.wait_for_rows(100)
    rig.wait_until_settled()
    assert daemon.stop().code == 0
    assert_nothing_was_blamed(rig)
    rig.check().assert_holds()


def test_a_wrong_password_makes_rows_wait_until_it_is_right(make_rig: MakeRig, kafka_guarded: KafkaCluster) -> None:
    rig = make_rig(kafka_guarded, kafka_guarded.client_config("relay", "wrong-secret"))
    topic = rig.topic()
    kafka_guarded.grant("relay", topic)
    kafka_guarded.grant("relay", topic, AclOperation.DESCRIBE)
    rig.insert_many([topic], 500, keys=20)
    wrong = rig.daemon(relay={**RELAY, "shutdown_timeout": "1s"}, cluster=CLUSTER)
    wrong.start()
    wrong.wait_for_event("owner")
    # The client is refused, and refused again; its rows stay where they are.
    rig.wait_until("SELECT clock_timestamp() > acquired_at + interval '3 s' FROM outboxd.lease")
    assert rig.pending() == 500
    assert wrong.is_running
    ended = wrong.stop()
    assert "wrong-secret" not in ended.err

    right = rig.daemon(kafka={"sasl.password": "right"}, relay=RELAY, cluster=CLUSTER)
    assert right.run("--until-empty").code == 0
    assert_nothing_was_blamed(rig)
    rig.check().assert_holds()


@pytest.mark.timeout(200)
def test_a_topic_deleted_under_load_holds_its_rows_until_it_is_there_again(rig: Rig) -> None:
    deleted, other = rig.topic(), rig.topic()
    daemon = rig.daemon(
        relay=RELAY,
        cluster=CLUSTER,
        kafka={"topic.metadata.propagation.max.ms": "1000", "topic.metadata.refresh.interval.ms": "1000"},
    )
    daemon.start()
    daemon.wait_for_event("owner")
    with Load(rig, [deleted, other], writers=1) as load:
        load.wait_for_rows(300)
        gone_at = rig.sql.execute("SELECT clock_timestamp()").fetchone()
        rig.kafka.delete_topic(deleted)
        daemon.wait_for_event("breaker_opened", topic=deleted, timeout_seconds=60)
        load.wait_for_rows(300)
        rig.wait_until("SELECT max(published_at) > now() - interval '1 s' FROM outboxd.outbox WHERE topic = %s", other)
        rig.kafka.create_topic(deleted)
        daemon.wait_for_event("breaker_closed", topic=deleted, timeout_seconds=HEALED_SECONDS + 5)
        load.wait_for_rows(100)
    rig.wait_until_settled()
    assert daemon.stop().code == 0
    assert_nothing_was_blamed(rig)
    # What was acknowledged before the topic went, went with it; that alone may be missing.
    verdict = rig.check(ignore_places_of=[deleted])
    assert gone_at is not None
    lost_later = rig.count(
        "SELECT count(*) FROM outboxd.outbox WHERE id = ANY(%s) AND published_at > %s::timestamptz + interval '2 s'",
        verdict.lost, gone_at[0],
    )  # fmt: skip
    assert lost_later == 0
    verdict.lost = []
    verdict.assert_holds()


def test_the_storm_guard_holds_a_topic_switched_to_compaction_and_all_its_rows_go_once_it_is_mended(rig: Rig) -> None:
    topic = rig.topic(partitions=1, prefix="storm")
    daemon = rig.daemon(relay=RELAY, cluster=CLUSTER, log={"format": "json", "level": "debug"})
    daemon.start()
    daemon.wait_for_event("owner")
    with Load(rig, [topic], writers=1, keyless=True) as load:
        load.wait_for_rows(200)
        rig.kafka.alter_topic_config(topic, {"cleanup.policy": "compact"})
        daemon.wait_for_event("storm_guard", topic=topic)
        load.wait_for_rows(200)
    rig.wait_until("SELECT count(*) = 1 FROM outboxd.control")
    dead = rig.count("SELECT count(*) FROM outboxd.dead_letter")
    assert dead < 20
    # Too early: a row at a time tries the topic, and none of them dies.
    rig.sql.execute("SELECT outboxd.resume(%s)", (topic,))
    resumed_at = time_of(daemon.wait_for_event("breaker_opened", topic=topic))
    wait_for(
        lambda: time_of(daemon.events("row_failed")[-1]) > resumed_at + 1.5, timeout_seconds=20, what="probes fail"
    )
    assert {letter["error_code"] for letter in rig.dead_letters().values()} <= {"INVALID_RECORD"}
    rig.kafka.alter_topic_config(topic, {"cleanup.policy": "delete"})
    rig.wait_until_settled(timeout_seconds=30)
    assert rig.count("SELECT count(*) FROM outboxd.dead_letter") == dead
    assert len(daemon.events("storm_guard")) == 1
    rig.sql.execute("SELECT outboxd.replay(id, true) FROM outboxd.dead_letter ORDER BY id")
    rig.wait_until("SELECT count(*) = 0 FROM outboxd.dead_letter WHERE status <> 'replayed'")
    assert daemon.stop().code == 0
    rig.check().assert_holds()
    assert len({id_of(record) for record in rig.kafka.consume(topic)}) == rig.count(
        "SELECT count(*) FROM public.written"
    )


@long_only
def test_an_unreachable_cluster_is_no_reason_to_end(make_rig: MakeRig, kafka: KafkaCluster) -> None:
    rig = make_rig(kafka, {"bootstrap.servers": "127.0.0.1:1"})
    topic = rig.topic()
    rig.insert_many([topic], 100, keys=10)
    daemon = rig.daemon(relay={**RELAY, "shutdown_timeout": "1s"}, cluster=CLUSTER)
    daemon.start()
    daemon.wait_for_event("owner")
    rig.wait_until("SELECT clock_timestamp() > acquired_at + interval '3 s' FROM outboxd.lease")
    assert daemon.is_running
    assert rig.pending() == 100
    assert daemon.stop().code == 0
    assert_nothing_was_blamed(rig)
