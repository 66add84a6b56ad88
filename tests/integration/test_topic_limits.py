"""What the cluster tells of a topic keeps a poison row out of the batches of others, before any broker refuses it."""

from __future__ import annotations

import time

from outboxd.kafka.cluster.topic_limits import ANY_KEY, MISSING_SECONDS, REFRESH_SECONDS, KnownTopics
from outboxd.kafka.plain.publisher import KafkaPublisher
from outboxd.policy.exchange.messages import Report
from outboxd.policy.rows.records import Record
from outboxd.policy.topics.partitioners import DEFAULT_PARTITIONER, Placement
from tests.support.children import wait_for
from tests.support.kafka import KafkaCluster
from tests.support.kafka_fixtures import MakeTopic


def record(publisher: KafkaPublisher, record_id: int, topic: str, key: str | None, payload: bytes) -> Record:
    event_id = f"00000000-0000-0000-0000-{record_id:012}"
    size_bytes = len(payload) + len(topic) + len(key or "") + 2
    kind = publisher.inbox.record_type
    return kind(6, record_id, event_id, topic, key, payload, "{}", None, 1_700_000_000_000, size_bytes)


def known(kafka: KafkaCluster, topic: str, **properties: str) -> KnownTopics:
    """The limits of one topic, once the cluster has told them."""
    topics = KnownTopics(lambda: {"bootstrap.servers": kafka.bootstrap, **properties}, 1_000_000)
    first = topics.of(topic)
    wait_for(lambda: topics.of(topic) != first and not topics.is_asking, timeout_seconds=20, what="an answer")
    return topics


def test_the_cluster_tells_a_topics_size_limit_and_its_compaction(kafka: KafkaCluster, topic: MakeTopic) -> None:
    name = topic(1, {"max.message.bytes": "5000", "cleanup.policy": "compact,delete"})
    limits = known(kafka, name).of(name)
    assert (limits.batch_bytes_max, limits.lacking_key) == (5000, None)
    plain = topic(1)
    assert known(kafka, plain).of(plain).lacking_key is ANY_KEY
    # Compressed, a record is smaller than anybody can tell before.
    assert known(kafka, name, **{"compression.type": "lz4"}).of(name).batch_bytes_max is None


def test_rows_that_a_topic_refuses_never_share_a_batch_once_its_limits_are_known(
    kafka: KafkaCluster, topic: MakeTopic
) -> None:
    small, compacted = topic(1, {"max.message.bytes": "5000"}), topic(1, {"cleanup.policy": "compact"})
    publisher = KafkaPublisher(
        # A long linger puts all of a topic into one batch, where one refusal fails all.
        {"bootstrap.servers": kafka.bootstrap, "linger.ms": "200"},
        source="default",
        in_flight_rows_max=1_000,
        in_flight_bytes_max=10_000_000,
    )
    try:
        for name in (small, compacted):
            publisher.topics.of(name)
        wait_for(lambda: not publisher.topics.is_asking, timeout_seconds=20, what="the cluster's answer")
        batch = [record(publisher, number, small, f"k{number}", b"x" * 100) for number in range(20)]
        batch.insert(10, record(publisher, 100, small, "poison", b"x" * 5_000))
        batch += [record(publisher, 200 + number, compacted, f"k{number}", b"x") for number in range(20)]
        batch.insert(30, record(publisher, 300, compacted, None, b"x"))
        assert publisher.publish(batch, 0) == len(batch)

        reports: list[Report] = []

        def all_in() -> bool:
            publisher.poll(0.05)
            reports.extend(publisher.take_reports())
            return len(reports) == len(batch)

        wait_for(all_in, timeout_seconds=30, what="all reports")
    finally:
        publisher.close()
    failed = {report.record.id: report.error.fault.name for report in reports if report.error is not None}
    assert failed == {100: "MSG_SIZE_TOO_LARGE", 300: "INVALID_RECORD"}
    assert all(report.alone for report in reports if report.error is not None)


def test_without_an_answer_rows_go_as_before(kafka: KafkaCluster, topic: MakeTopic) -> None:
    """A user who may not describe topics, or a topic that is not there: nothing is known, nothing breaks."""
    topics = KnownTopics(lambda: {"bootstrap.servers": kafka.bootstrap}, 1_000_000)
    before = topics.of("no-such-topic")
    wait_for(lambda: not topics.is_asking, timeout_seconds=20, what="a refusal")
    after = topics.of("no-such-topic")
    assert (after.batch_bytes_max, after.lacking_key, after.look_above_bytes) == (
        None,
        ANY_KEY,
        before.look_above_bytes,
    )


def test_questions_for_a_topic_do_not_have_brokers_make_it_that_make_what_is_written_to_and_tell_once_it_is_there() -> (
    None
):
    with KafkaCluster(options={"auto.create.topics.enable": "true"}) as cluster:
        topics = KnownTopics(lambda: {"bootstrap.servers": cluster.bootstrap}, 1_000_000)
        topics.of("gone")
        wait_for(lambda: topics.is_missing("gone") and not topics.is_asking, timeout_seconds=20, what="an answer")
        for _ in range(3):
            topics.refresh(time.monotonic() + MISSING_SECONDS)
            wait_for(lambda: not topics.is_asking, timeout_seconds=20, what="an answer")
        assert "gone" not in cluster.admin.list_topics(timeout=10).topics

        cluster.create_topic("gone", partitions=2)
        topics.refresh(time.monotonic())
        assert topics.is_missing("gone"), "it was asked for a moment ago"
        topics.refresh(time.monotonic() + MISSING_SECONDS)
        wait_for(lambda: not topics.is_asking, timeout_seconds=20, what="an answer")
        assert not topics.is_missing("gone")
        assert topics.placement("gone") == Placement(DEFAULT_PARTITIONER, 2)


def test_asking_for_a_topic_that_was_deleted_makes_none_where_brokers_make_topics_by_themselves() -> None:
    with KafkaCluster(options={"auto.create.topics.enable": "true"}) as kafka:
        topics = known(kafka, kafka.create_topic("deleted", 2))
        assert topics.placement("deleted") == Placement(DEFAULT_PARTITIONER, 2)
        kafka.delete_topic("deleted")

        topics.refresh(time.monotonic() + REFRESH_SECONDS)
        wait_for(
            lambda: topics.placement("deleted") is None and not topics.is_asking, timeout_seconds=20, what="an answer"
        )

        # Whatever was to be made before this one would be there by now.
        kafka.create_topic("made-since")
        assert "deleted" not in kafka.admin.list_topics(timeout=5).topics
