"""The bare produce loop: what the same rows cost without outbox, database and outcomes."""

from __future__ import annotations

import itertools
import logging
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from confluent_kafka import KafkaError, Message, Producer

from outboxd.errors import BrokerUnavailableError
from outboxd.kafka.client.client_config import CLIENT_LOGGER, producer_config

PAYLOAD_BYTES: Final = 512
KEYS: Final = 1_000
IN_FLIGHT_ROWS_MAX: Final = 50_000
_ROWS_BETWEEN_POLLS: Final = 1_000
_POLL_SECONDS: Final = 0.01
_STALL_SECONDS: Final = 30.0


def quiet_clients() -> None:
    """Keep librdkafka's own lines off standard error in this process: what matters is raised."""
    CLIENT_LOGGER.addHandler(logging.NullHandler())
    CLIENT_LOGGER.propagate = False


Headers = list[tuple[str, str | bytes | None]]
Row = tuple[bytes, bytes, Headers]


@dataclass(frozen=True, slots=True)
class BareProduce:
    """What one run took: from the first row to the last report, and CPU time of its process."""

    rows: int
    seconds: float
    cpu_seconds: float

    @property
    def rows_per_second(self) -> float:
        """The rate."""
        return self.rows / self.seconds


def sample_rows(count: int) -> Iterator[Row]:
    """Rows as the relay meets them: key, payload, and the three headers that every record carries."""
    keys = [b"key-%d" % number for number in range(KEYS)]
    payloads = [(b"%d " % number * PAYLOAD_BYTES)[:PAYLOAD_BYTES] for number in range(min(count, 1_000))]
    for row_id in range(1, count + 1):
        headers: Headers = [
            ("outbox-id", b"%d" % row_id),
            ("outbox-event-id", str(uuid.UUID(int=row_id)).encode()),
            ("outbox-source", b"default"),
        ]
        yield keys[row_id % KEYS], payloads[row_id % len(payloads)], headers


def bare_produce(properties: Mapping[str, str], topic: str, rows: int, seconds_max: float) -> BareProduce:
    """Produce with one shared callback and the relay's client settings; rows are made before the clock starts.

    After `seconds_max` nothing more is produced: then fewer rows count.

    Raises:
        BrokerUnavailableError: a record failed, or no report came for 30 s.
    """
    config: dict[str, Any] = producer_config(
        properties, in_flight_rows_max=IN_FLIGHT_ROWS_MAX, in_flight_bytes_max=48 << 20
    )
    return produce_all(Producer(config, logger=CLIENT_LOGGER), topic, rows, seconds_max)


def produce_all(producer: Producer, topic: str, rows: int, seconds_max: float) -> BareProduce:
    """The loop itself, with a producer of the caller's making; otherwise as `bare_produce`."""
    prepared = list(sample_rows(rows))
    producer.list_topics(topic, timeout=_STALL_SECONDS)  # Connecting is not what is measured.
    reports = _Reports()
    cpu_began, began = time.process_time(), time.perf_counter()
    unsent, sent = iter(prepared), 0
    while (batch := list(itertools.islice(unsent, _ROWS_BETWEEN_POLLS))) and time.perf_counter() - began < seconds_max:
        for key, payload, headers in batch:
            # By position, as the relay does: keyword arguments would cost a quarter of the call.
            producer.produce(topic, payload, key, -1, reports, None, 0, headers)
        sent += len(batch)
        producer.poll(0)
        reports.drain(producer, until=sent - IN_FLIGHT_ROWS_MAX)
    reports.drain(producer, until=sent)
    return BareProduce(sent, time.perf_counter() - began, time.process_time() - cpu_began)


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
                raise BrokerUnavailableError(
                    f"Kafka acknowledged nothing for {_STALL_SECONDS:g} s; look at the brokers"
                )
        if self.first_error is not None:
            raise BrokerUnavailableError(f"Kafka refused a record of the bare loop: {self.first_error.str()}")
