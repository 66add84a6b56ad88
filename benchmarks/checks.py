"""What every measured run is checked for: each row once, in the order of its key."""

from __future__ import annotations

import time
from collections.abc import Container

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from benchmarks.stand import PARTITIONS, Stand

READ_SECONDS_MAX = 300.0
_READ_AT_ONCE = 5_000


def check_topic(stand: Stand, topic: str, rows: int, *, not_among: Container[bytes | None] = ()) -> None:
    """Read the topic to its end.

    Raises AssertionError unless it holds so many rows, each once, in the order of its key if it has one, and none of
    the keys in `not_among`.
    """
    last: dict[bytes | None, int] = {}
    seen: set[int] = set()
    consumer = _consumer(stand.kafka.bootstrap, topic)
    unread, deadline = set(range(PARTITIONS)), time.monotonic() + READ_SECONDS_MAX
    try:
        while unread:
            assert time.monotonic() < deadline, f"{len(seen)} of {rows} rows read within {READ_SECONDS_MAX:g} s"
            for message in consumer.consume(_READ_AT_ONCE, timeout=1.0):
                error = message.error()
                if error is None:
                    row_id, key = int(dict(message.headers() or ())["outbox-id"] or b"0"), message.key()
                    assert key not in not_among, f"row {row_id} of the held key {key!r} was delivered"
                    assert row_id not in seen, f"row {row_id} came twice"
                    # What has no key has no order.
                    assert key is None or row_id > last.get(key, 0), f"row {row_id} came after {last[key]}"
                    seen.add(row_id)
                    last[key] = row_id
                elif error.code() == KafkaError._PARTITION_EOF:
                    unread.discard(message.partition())
                else:
                    raise KafkaException(error)
    finally:
        consumer.close()
    assert len(seen) == rows, f"{len(seen)} rows instead of {rows}"


def _consumer(bootstrap: str, topic: str) -> Consumer:
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "benchmarks",
            "auto.offset.reset": "error",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "isolation.level": "read_committed",
        }
    )
    consumer.assign([TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)])
    return consumer
