"""Reads a broker's topics back from their beginning to their end."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from outboxd.errors import BrokerUnavailableError

READ_SECONDS_MAX = 30.0
_CONSUME_ROWS = 500


@dataclass(frozen=True, slots=True)
class ReadRecord:
    """One record of the log; the ids are what outboxd's headers say."""

    topic: str
    partition: int
    offset: int
    key: str | None
    payload: bytes | None
    outbox_id: int | None
    event_id: str | None


#: From (bootstrap servers, topics) to the records in the order of each partition.
ReadLog = Callable[[str, Sequence[str]], list[ReadRecord]]


def read_log(bootstrap: str, topics: Sequence[str]) -> list[ReadRecord]:
    """All records of these topics, partition by partition in the order of the log.

    Raises:
        BrokerUnavailableError: the end was not reached in time.
    """
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "outboxd-demo-check",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "log_level": 0,
        }
    )
    try:
        return _read(consumer, topics)
    except KafkaException as error:
        raise BrokerUnavailableError(f"the broker cannot be read back: {error.args[0]}") from error
    finally:
        consumer.close()


def _read(consumer: Consumer, topics: Sequence[str]) -> list[ReadRecord]:
    listed = consumer.list_topics(timeout=READ_SECONDS_MAX).topics
    unread = {(topic, partition) for topic in topics if topic in listed for partition in listed[topic].partitions}
    consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for topic, partition in sorted(unread)])
    records: list[ReadRecord] = []
    deadline = time.monotonic() + READ_SECONDS_MAX
    while unread:
        if time.monotonic() > deadline:
            raise BrokerUnavailableError(f"the broker was not read to its end within {READ_SECONDS_MAX:.0f} s")
        for message in consumer.consume(_CONSUME_ROWS, timeout=0.2):
            error = message.error()
            if error is None:
                records.append(_record(message))
            elif error.code() == KafkaError._PARTITION_EOF:
                unread.discard((message.topic() or "", message.partition() or 0))
            else:
                raise KafkaException(error)
    return sorted(records, key=lambda record: (record.topic, record.partition, record.offset))


def _record(message: object) -> ReadRecord:
    from confluent_kafka import Message

    assert isinstance(message, Message)  # noqa: S101 - what consume() returns
    headers = dict(message.headers() or [])
    outbox_id, event_id, key = headers.get("outbox-id"), headers.get("outbox-event-id"), message.key()
    return ReadRecord(
        message.topic() or "",
        message.partition() or 0,
        message.offset() or 0,
        key.decode() if isinstance(key, bytes) else key,
        message.value() if isinstance(message.value(), bytes) else None,
        None if outbox_id is None else int(outbox_id),
        event_id.decode() if isinstance(event_id, bytes) else event_id,
    )
