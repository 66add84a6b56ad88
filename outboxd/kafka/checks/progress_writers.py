"""Who wrote the progress topic last.

The database's name stands in the `transactional.id` and in the topic's, and two servers may have databases of one name.
Daemons of both would take the identity from each other.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import UTC, datetime
from typing import Final, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from outboxd.kafka.client.client_config import silent
from outboxd.kafka.transactional.progress import decode
from outboxd.kafka.transactional.progress_log import progress_consumer
from outboxd.policy.exchange.findings import Finding, Weight

READ_SECONDS_MAX: Final = 10.0
LOOK_BACK: Final = 200
"""So many offsets from the end on is the last record: besides them there are the marks of transactions alone."""


class Writer(NamedTuple):
    """Which database and table the last record is of, and when it was written, in ms since 1970."""

    lineage: str
    at_ms: int


def foreign_writer(properties: Mapping[str, str], topic: str, lineage: str, area: str) -> Iterator[Finding]:
    """Return a warning where a daemon on another database wrote the progress topic last. `lineage` is our own."""
    writer = last_writer(properties, topic)
    if writer is None or _database_of(writer.lineage) == _database_of(lineage):
        return
    at = datetime.fromtimestamp(writer.at_ms / 1000, UTC).isoformat(sep=" ", timespec="seconds")
    yield Finding(
        area,
        Weight.WARNING,
        f"{topic} was written last at {at} for another database of the same name: while a daemon relays that one, both "
        "take the transactional.id from each other",
        "where that is not this database before it was moved or restored, give one of the two another outbox.name or "
        "database.schema",
    )


def last_writer(properties: Mapping[str, str], topic: str) -> Writer | None:
    """Return what the last committed record tells; None where there is none, or it cannot be read now."""
    with closing(progress_consumer(silent(properties))) as consumer:
        try:
            low, high = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=READ_SECONDS_MAX)
            return _last(consumer, TopicPartition(topic, 0, max(low, high - LOOK_BACK)), high)
        except KafkaException:
            # What is wrong with the topic others say.
            return None


def _last(consumer: Consumer, start: TopicPartition, high: int) -> Writer | None:
    consumer.assign([start])
    deadline = time.monotonic() + READ_SECONDS_MAX
    last: Writer | None = None
    while time.monotonic() < deadline:
        message = consumer.poll(0.5)
        if message is None:
            continue
        error = message.error()
        if error is not None:
            if error.code() == KafkaError._PARTITION_EOF and (message.offset() or 0) >= high:
                return last
            continue
        if (value := message.value()) is not None:
            last = Writer(_lineage_of(value), message.timestamp()[1])
    return None


def _lineage_of(value: bytes) -> str:
    try:
        return decode(value, lambda *_: False).lineage
    except (ValueError, KeyError, TypeError):
        return ""


def _database_of(lineage: str) -> list[str]:
    """The server and the database, without the table: another one takes its place where it is swapped or rewritten."""
    return lineage.split("-")[:2]
