"""A topic that is deleted and created again, whose leaders had moved before: librdkafka ignores what it hears of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from confluent_kafka.admin import NewTopic

from outboxd.kafka.client.kept_admin import KeptAdmin
from outboxd.kafka.cluster.topic_sights import sights_of
from outboxd.policy.topics.remade_topics import TopicSight
from tests.support.checker import id_of
from tests.support.children import wait_for
from tests.support.kafka import KafkaCluster
from tests.support.kafka_fixtures import fresh_name
from tests.support.rig import Rig

pytestmark = pytest.mark.timeout(300)

LED_BY_EACH = ((0, 1, 2), (1, 2, 0), (2, 0, 1))
MENDED_SECONDS = 100.0


@pytest.fixture
def rig(three: Rig) -> Rig:
    return three


def create(kafka: KafkaCluster, topic: str, replicas: Sequence[Sequence[int]] = LED_BY_EACH) -> None:
    """Create the topic with these replicas of each partition; the first one leads it."""
    made = NewTopic(topic, num_partitions=len(replicas), replica_assignment=[list(each) for each in replicas])
    kafka.admin.create_topics([made], operation_timeout=20)[topic].result(20)
    wait_for(lambda: len(kafka.leaders(topic)) == len(replicas), timeout_seconds=20, what="all have leaders")
    kafka.end_offsets(topic)


@pytest.mark.parametrize("delivery", ["at-least-once", "exactly-once"])
def test_rows_for_a_topic_that_was_made_again_after_its_leaders_moved_are_delivered_by_a_new_producer(
    rig: Rig, delivery: str
) -> None:
    topic = fresh_name()
    create(rig.kafka, topic)
    daemon = rig.daemon(relay={"delivery": delivery})
    daemon.start()
    rig.insert_many([topic], rows=60, keys=30)
    rig.wait_until_settled()
    # Another broker leads what this one led, in a later epoch; the client learns of it.
    rig.kafka.restart(0)
    wait_for(lambda: len(rig.kafka.leaders(topic)) == 3, timeout_seconds=20, what="all have leaders")
    leaders = rig.kafka.leaders(topic)
    rig.insert_many([topic], rows=60, keys=30)
    rig.wait_until_settled()

    rig.kafka.delete_topic(topic)
    # Each partition is led by another broker than before.
    create(rig.kafka, topic, [[(leaders[number] + step) % 3 for step in (1, 2, 3)] for number in range(3)])
    rows = [rig.insert(topic, f"key-{number}") for number in range(60)]
    rig.wait_until_settled(timeout_seconds=MENDED_SECONDS)
    if delivery == "at-least-once":
        daemon.wait_for_event("topic_remade", topic=topic)
    assert {id_of(record) for record in rig.kafka.consume(topic)} == set(rows)
    assert daemon.stop().code == 0


def test_the_cluster_tells_another_id_of_a_topic_that_is_made_again_and_whether_each_partition_has_a_leader(
    kafka_three: KafkaCluster,
) -> None:
    # Kept while it has answers: what it knew of the topic before must not hide the difference.
    topic, admin = fresh_name(), KeptAdmin(lambda: properties, "test")
    properties = {"bootstrap.servers": kafka_three.bootstrap}

    def sights() -> dict[str, TopicSight | None]:
        try:
            return sights_of(admin.client(), [topic, "missing"])
        except TimeoutError:
            # It may have been that broker which it would ask.
            admin.drop()
            return {}

    def wait_until_told(expected: TopicSight | None) -> None:
        # A broker may lag behind the others, or be one that has just died.
        wait_for(
            lambda: sights() == {topic: expected, "missing": None},
            timeout_seconds=40,
            what=f"{topic} is seen as {expected}",
        )

    create(kafka_three, topic, replicas=((0,), (2,)))
    seen: dict[str, TopicSight | None] = {}

    def is_seen() -> bool:
        seen.update(sights())
        return seen.get(topic) is not None

    # The broker that is asked may not know of it yet, nor the one that would be asked after it.
    wait_for(is_seen, timeout_seconds=40, what=f"{topic} is seen")
    first = seen[topic]
    assert first is not None
    assert (first.is_led, first.partitions) == (True, 2)
    kafka_three.kill(2)
    wait_until_told(replace(first, is_led=False))
    kafka_three.start_broker(2)
    wait_until_told(first)
    kafka_three.delete_topic(topic)
    wait_until_told(None)
    create(kafka_three, topic)
    second = sights()[topic]
    assert second is not None
    assert second.id != first.id
    wait_until_told(second)
