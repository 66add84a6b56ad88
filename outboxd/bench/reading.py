"""The consumer of a benchmark: how old each row is on arrival, and whether all came once and in the order of keys."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Mapping
from typing import Any, Final

from confluent_kafka import Consumer, TopicPartition

from outboxd.errors import BugError, UnavailableError
from outboxd.kafka.client.client_config import CLIENT_LOGGER
from outboxd.kafka.client.consumers import without_producers_own

STAMP: Final = struct.Struct(">d")
"""The moment before a row's INSERT, in seconds since the epoch, at the beginning of its payload."""
SILENCE_SECONDS_MAX: Final = 30.0
READ_AT_ONCE: Final = 5_000


def _consumer(properties: Mapping[str, str], topic: str, partitions: int) -> Consumer:
    own: dict[str, Any] = {
        # No group is ever joined; the client wants a name all the same.
        "group.id": "outboxd-bench",
        "enable.auto.commit": False,
        "auto.offset.reset": "earliest",
        "isolation.level": "read_committed",
        "fetch.queue.backoff.ms": 0,
    }
    consumer = Consumer(
        {"client.id": "outboxd-bench", **without_producers_own(properties), **own}, logger=CLIENT_LOGGER
    )
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(partitions)])
    return consumer


def check_topic(properties: Mapping[str, str], topic: str, partitions: int, rows: int) -> None:
    """Read the topic back.

    Raises:
        BugError: a row came twice, or after a later one of its key, or not at all.
    """
    last: dict[bytes | None, int] = {}
    seen: set[int] = set()
    consumer = _consumer(properties, topic, partitions)
    heard = time.monotonic()
    try:
        while len(seen) < rows and time.monotonic() - heard < SILENCE_SECONDS_MAX:
            for message in consumer.consume(READ_AT_ONCE, timeout=1.0):
                if message.error() is not None:
                    continue
                heard = time.monotonic()
                row_id = int(dict(message.headers() or ())["outbox-id"] or b"0")
                key = message.key()
                if row_id in seen or row_id < last.get(key, 0):
                    raise BugError(f"row {row_id} came twice, or after row {last.get(key)} of its key")
                seen.add(row_id)
                last[key] = row_id
    finally:
        consumer.close()
    if len(seen) != rows:
        raise BugError(f"{len(seen):,} rows are in the topic instead of {rows:,}")


class Reader(threading.Thread):
    """Notes how old each row is when it arrives."""

    def __init__(self, properties: Mapping[str, str], topic: str, partitions: int) -> None:
        """Reads the topic from its beginning, from `start` to `stop`."""
        super().__init__(name="bench-reader", daemon=True)
        self.seconds: list[float] = []
        self._stopping = threading.Event()
        self._consumer = _consumer(properties, topic, partitions)

    def run(self) -> None:
        """Read until stopped."""
        while not self._stopping.is_set():
            message = self._consumer.poll(0.2)
            if message is not None and message.error() is None:
                value = message.value() or bytes(STAMP.size)
                self.seconds.append(time.time() - STAMP.unpack(value[: STAMP.size])[0])
        self._consumer.close()

    def wait(self, rows: int) -> None:
        """Wait until so many rows came.

        Raises:
            UnavailableError: they did not within half a minute.
        """
        deadline = time.monotonic() + SILENCE_SECONDS_MAX
        while len(self.seconds) < rows:
            if time.monotonic() > deadline:
                raise UnavailableError(
                    f"{len(self.seconds):,} of {rows:,} rows came within {SILENCE_SECONDS_MAX:g} s; may this user read "
                    "the topics outboxd-bench-*?"
                )
            time.sleep(0.01)

    def stop(self) -> None:
        """End the thread."""
        self._stopping.set()
        self.join(10)
