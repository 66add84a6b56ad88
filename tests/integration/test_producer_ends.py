"""A producer that ends again and again, for a right that is missing: it is replaced later each time, and says why."""

from __future__ import annotations

from datetime import datetime
from itertools import pairwise
from pathlib import Path

from confluent_kafka import KafkaError

from tests.support.children import wait_for
from tests.support.daemon import DaemonProcess
from tests.support.mock_broker import MockCluster
from tests.support.postgres_fixtures import Database
from tests.support.rows import value

INIT_PRODUCER_ID_REQUEST = 22
PENDING = "SELECT count(*) FROM outboxd.outbox WHERE published_at IS NULL"


def test_producers_that_end_in_a_row_are_replaced_later_each_time(database: Database, tmp_path: Path) -> None:
    with database.connect() as sql, MockCluster() as mock:
        mock.create_topic("orders")
        mock.push_errors(INIT_PRODUCER_ID_REQUEST, [KafkaError.CLUSTER_AUTHORIZATION_FAILED] * 5)
        sql.execute("INSERT INTO outboxd.outbox (topic, key, payload) VALUES ('orders', 'k', 'x')")
        sections = {"database": {"url": database.url}, "kafka": {"bootstrap.servers": mock.bootstrap}}
        daemon = DaemonProcess(tmp_path, sections)
        try:
            daemon.start()
            wait_for(lambda: value(sql, PENDING) == 0, timeout_seconds=90, what="the row is published")
            rebuilt = daemon.events("producer_rebuilt")
            daemon.stop()
        finally:
            daemon.kill()
    at = [datetime.fromisoformat(str(event["timestamp"])) for event in rebuilt]
    # The first at once; with what the client itself takes for its question.
    seconds = [(later - former).total_seconds() for former, later in pairwise(at)]
    assert len(seconds) == 4
    assert all(each >= least for each, least in zip(seconds, (0.25, 0.5, 1.0, 2.0), strict=True)), seconds
    assert {event["error_code"] for event in rebuilt} == {"CLUSTER_AUTHORIZATION_FAILED"}
    assert all("Grant it IDEMPOTENT_WRITE" in str(event["cause"]) for event in rebuilt)
