"""A partition that nobody leads is there: the client calls it unknown, and nothing may be taken for lost by that."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from confluent_kafka import Producer

from outboxd.errors import BrokerUnavailableError
from outboxd.kafka.cluster.log_reader import LogReader
from outboxd.kafka.transactional.progress_log import read_above
from tests.support.children import wait_for
from tests.support.mock_broker import MockCluster

TOPIC = "orders"
NOBODY = -1


@pytest.fixture
def mock() -> Iterator[MockCluster]:
    """A broker with a topic of one partition, and a record in it."""
    with MockCluster() as cluster:
        cluster.create_topic(TOPIC, partitions=1)
        producer = Producer({"bootstrap.servers": cluster.bootstrap, "log_level": 0})
        producer.produce(TOPIC, b"x")
        assert producer.flush(10) == 0
        yield cluster


@pytest.fixture
def reader(mock: MockCluster) -> Iterator[LogReader]:
    reading = LogReader({"bootstrap.servers": mock.bootstrap}, "default")
    yield reading
    reading.close()


def test_the_log_of_a_partition_without_a_leader_is_unread_and_not_gone(mock: MockCluster, reader: LogReader) -> None:
    mock.set_leader(TOPIC, 0, NOBODY)
    with pytest.raises(BrokerUnavailableError, match="orders-0 has no leader; look at the brokers"):
        reader.bounds((TOPIC, 0))
    mock.set_leader(TOPIC, 0, 1)

    def has_end() -> bool:
        try:
            bounds = reader.bounds((TOPIC, 0))
        except BrokerUnavailableError:
            return False
        return bounds is not None and bounds.high == 1

    wait_for(has_end, timeout_seconds=20, what="the elected leader answers")


@pytest.mark.parametrize("partition", [(TOPIC, 1), ("no-such-topic", 0)])
def test_a_partition_that_is_not_listed_is_gone(reader: LogReader, partition: tuple[str, int]) -> None:
    assert reader.bounds(partition) is None


def test_a_progress_topic_without_a_leader_is_told_as_such(mock: MockCluster) -> None:
    mock.set_leader(TOPIC, 0, NOBODY)
    with pytest.raises(BrokerUnavailableError, match="cannot be read: its partition has no leader"):
        read_above({"bootstrap.servers": mock.bootstrap}, TOPIC, 0, "lineage")
