"""The latency: from just before INSERT and COMMIT to the consumer, at a steady rate, one row a transaction."""

from __future__ import annotations

import statistics
import struct
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from confluent_kafka import Consumer, TopicPartition

from benchmarks.stand import PAYLOAD_BYTES, SCHEMA, Stand
from benchmarks.usage import cpu_seconds
from tests.support.children import wait_for
from tests.support.kafka_fixtures import fresh_name

PARTITIONS = 6
_STAMP = struct.Struct(">d")


@dataclass(frozen=True)
class Latency:
    """One measured run; times in milliseconds."""

    name: str
    rows: int
    rows_per_second: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    daemon_cores: float

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def latency(stand: Stand, name: str, relay: Mapping[str, object], *, rows_per_second: float, seconds: float) -> Latency:
    """Write at this rate for so long and measure each row. The first second is warm-up and is not counted."""
    topic = stand.kafka.create_topic(fresh_name("latency"), partitions=PARTITIONS)
    with stand.connect() as connection:
        connection.execute(f"TRUNCATE {SCHEMA}.outbox, {SCHEMA}.progress")
    daemon = stand.daemon(relay, name=topic)
    daemon.start()
    try:
        daemon.wait_for_event("owner")
        reader = _Reader(stand.kafka.bootstrap, topic)
        reader.start()
        _write(stand, topic, rows_per_second, 1.0)
        cpu_before, began = cpu_seconds(daemon.pid), time.perf_counter()
        written = _write(stand, topic, rows_per_second, seconds)
        took = time.perf_counter() - began
        cores = (cpu_seconds(daemon.pid) - cpu_before) / took
        total = written + round(rows_per_second)
        wait_for(lambda: len(reader.seconds) >= total, timeout_seconds=30, what="all rows at the consumer")
        reader.stop()
    finally:
        daemon.stop()
    measured = sorted(value * 1000 for value in reader.seconds[round(rows_per_second) :])
    cuts = statistics.quantiles(measured, n=100)
    return Latency(name, written, written / took, statistics.median(measured), cuts[89], cuts[98], measured[-1], cores)


def _write(stand: Stand, topic: str, rows_per_second: float, seconds: float) -> int:
    """Insert rows at a steady pace, each with the moment just before its INSERT in front of its payload."""
    rows = round(rows_per_second * seconds)
    filler = b"x" * (PAYLOAD_BYTES - _STAMP.size)
    statement = f"INSERT INTO {SCHEMA}.outbox (topic, key, payload) VALUES (%s, %s, %s)"
    with stand.connect() as connection, connection.cursor() as cursor:
        began = time.perf_counter()
        for number in range(rows):
            due = began + number / rows_per_second
            while (rest := due - time.perf_counter()) > 0:
                time.sleep(rest)
            cursor.execute(statement, (topic, f"key-{number % 1000}", _STAMP.pack(time.time()) + filler))
    return rows


class _Reader(threading.Thread):
    """A consumer that notes how old each row is when it arrives."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        super().__init__(name="reader", daemon=True)
        self.seconds: list[float] = []
        self._stopping = threading.Event()
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap,
                "group.id": topic,
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "fetch.wait.max.ms": 500,
                "fetch.queue.backoff.ms": 0,
            }
        )
        self._consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])

    def run(self) -> None:
        while not self._stopping.is_set():
            message = self._consumer.poll(0.2)
            if message is not None and message.error() is None:
                value = message.value()
                self.seconds.append(time.time() - _STAMP.unpack((value or b"")[: _STAMP.size])[0])
        self._consumer.close()

    def stop(self) -> None:
        self._stopping.set()
        self.join(10)
