"""Another Kafka cluster at the addresses of the one before, as after the disks were wiped: all goes on there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.children import wait_for
from tests.support.daemon import DaemonProcess
from tests.support.kafka import KafkaCluster
from tests.support.kafka_fixtures import started
from tests.support.postgres_fixtures import Database
from tests.support.rows import Connection, value

TOPIC = "orders"
ROWS = 300
WAIT_SECONDS = 60.0


@pytest.fixture
def cluster() -> Iterator[KafkaCluster]:
    yield from started(lambda: KafkaCluster(brokers=1))


def insert(sql: Connection) -> None:
    sql.execute(
        "INSERT INTO outboxd.outbox (topic, key, payload) SELECT %s, 'key-' || i %% 10, ''::bytea"
        " FROM generate_series(1, %s) AS i",
        (TOPIC, ROWS),
    )


def wait_until_settled(sql: Connection) -> None:
    wait_for(
        lambda: value(sql, "SELECT count(*) FROM outboxd.outbox WHERE published_at IS NULL") == 0,
        timeout_seconds=WAIT_SECONDS,
        what="all rows are published",
    )


def test_that_another_cluster_answers_is_told_and_rows_go_there_by_a_new_producer(
    cluster: KafkaCluster, database: Database, tmp_path: Path
) -> None:
    cluster.create_topic(TOPIC)
    daemon = DaemonProcess(
        tmp_path, {"database": {"url": database.url}, "kafka": {"bootstrap.servers": cluster.bootstrap}}
    )
    with database.connect() as sql:
        try:
            daemon.start()
            insert(sql)
            wait_until_settled(sql)
            cluster.kill(0)
            insert(sql)
            cluster.become_another()
            cluster.create_topic(TOPIC)
            told = daemon.wait_for_event("kafka_cluster_changed", timeout_seconds=WAIT_SECONDS)
            assert told["former"] != told["cluster"]
            daemon.wait_for_event("producer_renewed", reason="another Kafka cluster answers")
            wait_until_settled(sql)
            insert(sql)
            wait_until_settled(sql)
            assert daemon.stop().code == 0
        finally:
            daemon.kill()
    assert len(cluster.consume(TOPIC)) >= 2 * ROWS
