"""The bare produce loop: what the same rows cost without outbox, database and outcomes.

Benchmarks give their rates as a ratio to it, taken in the same run: absolute rates say more about the machine.

    python benchmarks/bare_produce.py BOOTSTRAP --topic TOPIC --rows 200000
"""

from __future__ import annotations

import argparse
import itertools
import time
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from confluent_kafka import KafkaError, KafkaException, Message, Producer

PAYLOAD_BYTES = 512
KEYS = 1_000
IN_FLIGHT_ROWS_MAX = 50_000
_ROWS_BETWEEN_POLLS = 1_000
_POLL_SECONDS = 0.01
_STALL_SECONDS = 30.0

Headers = list[tuple[str, str | bytes | None]]
Row = tuple[int, bytes, bytes, Headers]


@dataclass(frozen=True, slots=True)
class BareProduce:
    """What one run took: wall-clock time from the first row to the last report, and CPU time of the whole process."""

    rows: int
    elapsed_seconds: float
    cpu_seconds: float

    @property
    def rows_per_second(self) -> float:
        return self.rows / self.elapsed_seconds

    @property
    def cpu_microseconds_per_row(self) -> float:
        return self.cpu_seconds / self.rows * 1e6


def sample_rows(count: int, *, keys: int = KEYS, payload_bytes: int = PAYLOAD_BYTES) -> Iterator[Row]:
    """Yield rows as the relay meets them: id, key, payload, and the three headers that every record carries."""
    key_names = [b"key-%d" % number for number in range(keys)]
    payloads = [(b"%d " % number * payload_bytes)[:payload_bytes] for number in range(min(count, 1_000))]
    for row_id in range(1, count + 1):
        headers: Headers = [
            ("outbox-id", b"%d" % row_id),
            ("outbox-event-id", str(uuid.UUID(int=row_id)).encode()),
            ("outbox-source", b"default"),
        ]
        yield row_id, key_names[row_id % keys], payloads[row_id % len(payloads)], headers


def bare_produce(bootstrap: str, topic: str, rows: Iterable[Row], *, linger_ms: float | None = None) -> BareProduce:
    """Produce `rows` with one shared callback and drain by `poll()`; `linger_ms` None leaves librdkafka's default.

    The rows are made before the clock starts. Raises KafkaException for the first record that failed, or when no
    report comes for 30 s.
    """
    prepared = list(rows)
    producer = Producer(_producer_config(bootstrap, linger_ms))
    producer.list_topics(topic, timeout=_STALL_SECONDS)  # Connecting is not what is measured.
    reports = _Reports()
    cpu_start, start = time.process_time(), time.perf_counter()
    unsent = iter(prepared)
    sent = 0
    while batch := list(itertools.islice(unsent, _ROWS_BETWEEN_POLLS)):
        for _, key, payload, headers in batch:
            # By position, as the relay does: keyword arguments would cost a quarter of the call.
            producer.produce(topic, payload, key, -1, reports, None, 0, headers)
        sent += len(batch)
        producer.poll(0)
        reports.drain(producer, until=sent - IN_FLIGHT_ROWS_MAX)
    reports.drain(producer, until=sent)
    elapsed_seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    if reports.first_error is not None:
        raise KafkaException(reports.first_error)
    return BareProduce(sent, elapsed_seconds, cpu_seconds)


class _Reports:
    """The one callback of all records: keeps the first error and where each record went, as a relay must."""

    def __init__(self) -> None:
        self.places: list[tuple[int | None, int | None]] = []
        self.first_error: KafkaError | None = None

    def __call__(self, error: KafkaError | None, message: Message) -> None:
        if error is not None and self.first_error is None:
            self.first_error = error
        self.places.append((message.partition(), message.offset()))

    def drain(self, producer: Producer, *, until: int) -> None:
        """Poll until that many reports have come in."""
        heard = time.monotonic()
        while len(self.places) < until:
            if producer.poll(_POLL_SECONDS):
                heard = time.monotonic()
            elif time.monotonic() - heard > _STALL_SECONDS:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT, f"no report for {_STALL_SECONDS:g} s"))


def _producer_config(bootstrap: str, linger_ms: float | None) -> dict[str, str | int | float | bool]:
    config: dict[str, str | int | float | bool] = {
        "bootstrap.servers": bootstrap,
        "acks": "all",
        "enable.idempotence": True,
        "message.timeout.ms": 0,
        "queue.buffering.max.messages": 2 * IN_FLIGHT_ROWS_MAX,
    }
    return config if linger_ms is None else config | {"linger.ms": linger_ms}


def main() -> None:
    """Print rows per second and CPU per row, against a broker that is already there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bootstrap")
    parser.add_argument("--topic", required=True)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--linger-ms", type=float, default=None, help="default: librdkafka's own")
    options = parser.parse_args()
    took = bare_produce(options.bootstrap, options.topic, sample_rows(options.rows), linger_ms=options.linger_ms)
    print(
        f"{took.rows} rows in {took.elapsed_seconds:.2f} s: {took.rows_per_second:,.0f} rows/s, "
        f"{took.cpu_microseconds_per_row:.2f} µs CPU a row"
    )


if __name__ == "__main__":
    main()
