"""The latency: from just before INSERT and COMMIT to the consumer, at a steady rate, one row a transaction.

The writer is a process of its own, so that the consumer's clock is not read late because of it.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from confluent_kafka import Consumer, KafkaException, TopicPartition

from benchmarks.checks import check_topic
from benchmarks.database import empty, pending_rows
from benchmarks.stand import PARTITIONS, Section, Stand
from benchmarks.usage import cpu_seconds
from benchmarks.writing import STAMP, Writing, ended_rate, start_writing
from tests.support.children import wait_for
from tests.support.daemon import DaemonProcess

WARM_SECONDS = 2.0
PERCENTILES = (50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9)
_CONNECTION_ROWS_PER_SECOND = 500.0
"""How many commits a second one connection of the writer is asked for: each waits for the disk."""


@dataclass(frozen=True)
class Latency:
    """One measured run; times in milliseconds. `ms_by_percentile` is the distribution."""

    name: str
    rows: int
    rows_per_second: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    max_ms: float
    daemon_cores: float
    ms_by_percentile: Mapping[str, float]

    def as_dict(self) -> dict[str, object]:
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"{self.rows_per_second:,.0f} rows/s, p50 {self.p50_ms:.1f} ms, p90 {self.p90_ms:.1f},"
            f" p99 {self.p99_ms:.1f}, max {self.max_ms:.1f}; {self.daemon_cores:.1%} of a core"
        )


def latency(stand: Stand, name: str, relay: Section, *, rows_per_second: float, seconds: float) -> Latency:
    """Write at this rate for so long and measure each row."""
    with stand.topic("latency") as topic, stand.connect() as connection:
        empty(connection)
        with stand.owner(relay, name=topic) as daemon:
            found, total = measure(stand, daemon, topic, name, rows_per_second=rows_per_second, seconds=seconds)
        assert pending_rows(connection) == 0, "rows are left"
        check_topic(stand, topic, total)
    return found


def measure(
    stand: Stand, daemon: DaemonProcess, topic: str, name: str, *, rows_per_second: float, seconds: float
) -> tuple[Latency, int]:
    """Measure with a daemon that runs already, through an empty topic; return how many rows went in all, too.

    What is written in the first two seconds warms all up and is not counted. The same writer goes on: after a rest the
    daemon would poll more rarely, and the first rows of a steady rate would be those that wait for that.
    """
    warm_rows, rows = round(rows_per_second * WARM_SECONDS), round(rows_per_second * seconds)
    connections = max(1, round(rows_per_second / _CONNECTION_ROWS_PER_SECOND))
    reader = _Reader(stand.kafka.bootstrap, topic)
    reader.start()
    try:
        writer = start_writing(stand, Writing(topic, warm_rows + rows, rows_per_second, connections))
        reader.wait(warm_rows)
        cpu_before, began = cpu_seconds(daemon.pid), time.perf_counter()
        reached = ended_rate(writer, warm_rows + rows, rows_per_second)
        cores = (cpu_seconds(daemon.pid) - cpu_before) / (time.perf_counter() - began)
        reader.wait(warm_rows + rows)
    finally:
        reader.stop()
    measured = sorted(value * 1000 for value in reader.seconds[warm_rows:])
    by_percentile = {f"{percent:g}": round(_percentile(measured, percent), 3) for percent in PERCENTILES}
    found = Latency(
        name,
        rows,
        reached,
        statistics.median(measured),
        by_percentile["90"],
        by_percentile["99"],
        measured[-1],
        cores,
        by_percentile,
    )
    return found, warm_rows + rows


def _percentile(ordered: Sequence[float], percent: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


class _Reader(threading.Thread):
    """A consumer that notes how old each row is when it arrives."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        super().__init__(name="reader", daemon=True)
        self.seconds: list[float] = []
        self._stopping = threading.Event()
        self._failure: KafkaException | None = None
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
            if message is None:
                continue
            error = message.error()
            if error is not None:
                self._failure = KafkaException(error)
                break
            self.seconds.append(time.time() - STAMP.unpack((message.value() or b"")[: STAMP.size])[0])
        self._consumer.close()

    def wait(self, rows: int) -> None:
        """Wait until so many rows have come."""

        def have_come() -> bool:
            if self._failure is not None:
                raise self._failure
            return len(self.seconds) >= rows

        wait_for(have_come, timeout_seconds=30, what=f"{rows} rows at the consumer")

    def stop(self) -> None:
        self._stopping.set()
        self.join(10)
