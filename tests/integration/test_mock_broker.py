"""The in-process brokers do what tests and the demo rely on."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from outboxd.kafka.embedded import EmbeddedBroker
from tests.support.children import wait_for
from tests.support.mock_broker import MockCluster

TIMEOUT_SECONDS = 10.0


class Reports:
    """A producer with its delivery reports."""

    def __init__(self, bootstrap: str, **config: str | int) -> None:
        quiet: dict[str, str | int] = {"bootstrap.servers": bootstrap, "enable.idempotence": True, "log_level": 0}
        self.producer = Producer(quiet | config)
        self.codes: list[int] = []

    def __call__(self, error: KafkaError | None, message: Message) -> None:
        self.codes.append(0 if error is None else error.code())

    def send(self, topic: str, count: int = 1) -> list[int]:
        """Produce, wait for the reports, and return their codes."""
        self.codes.clear()
        for number in range(count):
            self.producer.produce(topic, b"value", b"key-%d" % number, on_delivery=self)
        return self.await_count(count)

    def await_count(self, count: int) -> list[int]:
        """Poll until there are `count` reports; return their codes, however many came in time."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while len(self.codes) < count and time.monotonic() < deadline:
            self.producer.poll(0.05)
        return list(self.codes)


def test_embedded_broker_serves_another_process_and_is_gone_after_close() -> None:
    write_and_read = """
import sys
from confluent_kafka import Consumer, Producer
bootstrap = sys.argv[1]
producer = Producer({"bootstrap.servers": bootstrap, "enable.idempotence": True})
for number in range(100):
    producer.produce("topic", b"%d" % number, key=b"key", headers=[("outbox-id", b"%d" % number)])
assert producer.flush(10) == 0
consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "g", "auto.offset.reset": "earliest"})
consumer.subscribe(["topic"])
records = []
while len(records) < 100:
    records += consumer.consume(100, timeout=0.5)
assert [record.value() for record in records] == [b"%d" % number for number in range(100)]
assert records[7].headers() == [("outbox-id", b"7")]
consumer.close()
"""
    with EmbeddedBroker() as broker:
        done = subprocess.run(
            [sys.executable, "-c", write_and_read, broker.bootstrap],
            check=False,
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert done.returncode == 0, done.stderr
        host, port = broker.bootstrap.split(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), timeout=1)


@pytest.mark.parametrize(
    "code",
    [
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.INVALID_RECORD,
        KafkaError.INVALID_TIMESTAMP,
        KafkaError.POLICY_VIOLATION,
    ],
)
def test_a_pushed_produce_error_reaches_the_report_and_only_once(code: int) -> None:
    with MockCluster() as mock:
        mock.create_topic("topic", partitions=1)
        reports = Reports(mock.bootstrap)
        mock.push_produce_errors([code])
        assert reports.send("topic") == [code]
        assert reports.send("topic") == [0]


def test_a_denied_topic_is_reported_once_and_then_refused_by_produce() -> None:
    with MockCluster() as mock:
        mock.create_topic("topic", partitions=1)
        reports = Reports(mock.bootstrap)
        mock.push_produce_errors([KafkaError.TOPIC_AUTHORIZATION_FAILED])
        assert reports.send("topic") == [KafkaError.TOPIC_AUTHORIZATION_FAILED]
        with pytest.raises(KafkaException) as refused:
            reports.send("topic")
        assert refused.value.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED


def test_a_retriable_produce_error_is_retried_by_the_client() -> None:
    with MockCluster() as mock:
        mock.create_topic("topic", partitions=1)
        mock.push_produce_errors([KafkaError.NOT_ENOUGH_REPLICAS, KafkaError.REQUEST_TIMED_OUT])
        assert Reports(mock.bootstrap).send("topic", count=5) == [0] * 5


def test_an_unknown_topic_is_reported_when_the_topic_has_an_error() -> None:
    with MockCluster() as mock:
        mock.create_topic("topic", partitions=1)
        mock.topic_error("topic", KafkaError.UNKNOWN_TOPIC_OR_PART)
        reports = Reports(mock.bootstrap, **{"topic.metadata.propagation.max.ms": 100})
        assert reports.send("topic") == [KafkaError.UNKNOWN_TOPIC_OR_PART]
        with pytest.raises(KafkaException) as refused:
            reports.send("topic")
        assert refused.value.args[0].code() == KafkaError._UNKNOWN_TOPIC


def test_records_wait_while_the_broker_is_down_and_arrive_when_it_is_up() -> None:
    with MockCluster() as mock:
        mock.create_topic("topic", partitions=1)
        reports = Reports(mock.bootstrap, **{"message.timeout.ms": 0, "reconnect.backoff.max.ms": 100})
        mock.set_down()
        reports.producer.produce("topic", b"value", on_delivery=reports)
        reports.producer.poll(0.3)
        assert reports.codes == []
        mock.set_up()
        assert reports.await_count(1) == [0]


def test_the_round_trip_takes_as_long_as_asked() -> None:
    with MockCluster() as mock:
        mock.create_topic("topic", partitions=1)
        reports = Reports(mock.bootstrap)
        assert reports.send("topic") == [0]
        mock.rtt(300)
        before = time.monotonic()
        assert reports.send("topic") == [0]
        assert time.monotonic() - before >= 0.3


def test_faults_can_be_switched_while_another_thread_produces() -> None:
    with MockCluster() as mock:
        mock.create_topic("topic", partitions=4)
        reports = Reports(mock.bootstrap, **{"message.timeout.ms": 0})
        stopped = threading.Event()
        codes: list[int] = []

        def produce() -> None:
            while not stopped.is_set():
                codes.extend(reports.send("topic", count=20))

        thread = threading.Thread(target=produce)
        thread.start()
        try:
            _seen(codes, lambda: 0 in codes)
            mock.push_produce_errors([KafkaError.MSG_SIZE_TOO_LARGE])
            _seen(codes, lambda: KafkaError.MSG_SIZE_TOO_LARGE in codes)
            healed_from = len(codes)
            _seen(codes, lambda: 0 in codes[healed_from:])
        finally:
            stopped.set()
            thread.join(TIMEOUT_SECONDS)
        assert not thread.is_alive()


def _seen(codes: list[int], condition: Callable[[], bool]) -> None:
    wait_for(condition, timeout_seconds=TIMEOUT_SECONDS, what=f"the reports change; so far {set(codes)}")
