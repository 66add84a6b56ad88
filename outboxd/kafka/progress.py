"""Progress records: what each Kafka transaction delivered, written inside it, for whoever comes after.

The number of the transaction, and of every row its id, partition and offset. A successor that fenced the producer before it reads
every record above the last settled transaction, to the end of the topic: what is there was committed, what is not never will be. A
maximum id or the last record alone would not do: rows commit out of id order, and several transactions may be unsettled.

The topic is compacted. Records are keyed by the number modulo `KEYS`, far above the bound of unsettled transactions, so that
compaction only removes what was settled long ago. `lineage` names the database and table: records of another life of the same
names are none of ours.
"""

from __future__ import annotations

import re
import struct
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import orjson
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from outboxd.errors import BrokerUnavailableError
from outboxd.policy.messages import ProgressRow

KEYS = 256
UNSETTLED_MAX = 32
"""At most so many transactions are committed and not settled."""
READ_SECONDS_MAX = 60.0
_FIRST_LOOK_BACK = 4 * UNSETTLED_MAX
_NAME_CHARS_MAX = 200
_ROW = struct.Struct(">qiq?")
_ILLEGAL = re.compile(r"[^a-zA-Z0-9._-]")
TOPIC_CONFIG: Mapping[str, str] = {
    "cleanup.policy": "compact",
    "segment.bytes": str(32 << 20),
    "segment.ms": "3600000",
    "min.cleanable.dirty.ratio": "0.1",
    "max.message.bytes": "1048588",
}


@dataclass(frozen=True, slots=True)
class ProgressRecord:
    """One transaction's record."""

    number: int
    lineage: str
    rows: Sequence[ProgressRow]


def transactional_id(database: str, schema: str, outbox: str, shard: int = 0) -> str:
    """Return the producer's `transactional.id`, the same after every restart."""
    return f"outboxd-{database}-{schema}-{outbox}-{shard}"


def progress_topic(database: str, schema: str, outbox: str) -> str:
    """Return the progress topic's name; names that Kafka would refuse get a hash instead of what is illegal in them."""
    plain = f"{database}-{schema}-{outbox}"
    legal = _ILLEGAL.sub("_", plain)[:_NAME_CHARS_MAX]
    if legal != plain:
        legal += "-" + sha256(plain.encode()).hexdigest()[:8]
    return f"outboxd-progress-{legal}"


def progress_key(number: int) -> bytes:
    """Return the key under which the transaction's record stands."""
    return b"%d" % (number % KEYS)


def encode(record: ProgressRecord) -> bytes:
    """Return the record's value: a JSON head, a newline, and the rows, packed and compressed."""
    head = orjson.dumps({"v": 1, "number": record.number, "lineage": record.lineage, "rows": len(record.rows)})
    body = b"".join([_ROW.pack(row.outbox_id, row.partition, row.offset, row.is_replay) for row in record.rows])
    return head + b"\n" + zlib.compress(body, 1)


def decode(value: bytes) -> ProgressRecord:
    """Return what `encode` was given. Raises ValueError for what it cannot have written."""
    head_text, _, packed = value.partition(b"\n")
    head = orjson.loads(head_text)
    if head.get("v") != 1:
        raise ValueError(f"a progress record of version {head.get('v')!r}; this outboxd knows version 1")
    rows = [ProgressRow(*entry) for entry in _ROW.iter_unpack(zlib.decompress(packed))]
    if len(rows) != head["rows"]:
        raise ValueError(f"a progress record with {len(rows)} rows instead of {head['rows']}")
    return ProgressRecord(head["number"], head["lineage"], rows)


def ensure_topic(properties: Mapping[str, str], topic: str, timeout_seconds: float = 30.0) -> None:
    """Make the progress topic where it is missing. Raises KafkaException when the cluster refuses."""
    # Kept alive until its futures are through.
    admin = AdminClient(dict(properties))
    wanted = NewTopic(topic, num_partitions=1, config=dict(TOPIC_CONFIG))
    future = admin.create_topics([wanted], request_timeout=timeout_seconds)[topic]
    try:
        future.result(timeout_seconds)
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise


def read_above(
    properties: Mapping[str, str], topic: str, settled: int, lineage: str, timeout_seconds: float = READ_SECONDS_MAX
) -> list[ProgressRecord]:
    """Return the committed records of this lineage with numbers above `settled`, in the order of their numbers.

    To be called after `init_transactions`, which ends what the producer before had open: so the log's end does not move.

    Raises:
        BrokerUnavailableError: the topic could not be read to its end in time.
    """
    config: dict[str, Any] = {
        key: value
        for key, value in properties.items()
        if not key.startswith(("queue.", "linger", "batch.", "message."))
    }
    consumer = Consumer(
        {
            **config,
            "group.id": "outboxd-progress",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
        }
    )
    try:
        place = TopicPartition(topic, 0)
        low, high = consumer.get_watermark_offsets(place, timeout=timeout_seconds)
        look_back = _FIRST_LOOK_BACK
        while True:
            start = max(low, high - look_back)
            records = _read(consumer, topic, start, timeout_seconds)
            ours = [record for record in records if record.lineage == lineage]
            if start == low or (ours and ours[0].number <= settled + 1):
                return sorted((r for r in ours if r.number > settled), key=lambda record: record.number)
            look_back *= 8
    except KafkaException as error:
        raise BrokerUnavailableError(f"the progress topic {topic} cannot be read: {error.args[0]}") from error
    finally:
        consumer.close()


def _read(consumer: Consumer, topic: str, start: int, timeout_seconds: float) -> list[ProgressRecord]:
    consumer.assign([TopicPartition(topic, 0, start)])
    deadline = time.monotonic() + timeout_seconds
    records: list[ProgressRecord] = []
    while time.monotonic() < deadline:
        message = consumer.poll(0.5)
        if message is None:
            continue
        error = message.error()
        if error is None:
            value = message.value()
            if value is not None:
                records.append(decode(value))
        elif error.code() == KafkaError._PARTITION_EOF:
            return records
        elif error.fatal() or not error.retriable():
            raise KafkaException(error)
    raise BrokerUnavailableError(f"the progress topic {topic} was not read to its end within {timeout_seconds:g} s")
