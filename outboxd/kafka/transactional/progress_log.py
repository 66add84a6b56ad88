"""The progress topic: made where it is missing, and read to its end by whoever comes next."""

from __future__ import annotations

import struct
import time
import zlib
from collections.abc import Mapping

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from outboxd.errors import BrokerUnavailableError, OutboxdError
from outboxd.kafka.client.answers import answer_of
from outboxd.kafka.client.client_config import CLIENT_LOGGER, QUICK_CONNECTION
from outboxd.kafka.client.codes import FORBIDDEN, why_unread
from outboxd.kafka.client.consumers import is_groups_alone, without_producers_own
from outboxd.kafka.transactional.progress import UNSETTLED_MAX, IsWanted, ProgressRecord, decode

READ_SECONDS_MAX = 60.0
_ANSWER_WAIT_MS = 20
"""So long a broker waits for more before it says that the topic ends here."""
_FIRST_LOOK_BACK = 4 * UNSETTLED_MAX
TOPIC_CONFIG: Mapping[str, str] = {
    "cleanup.policy": "compact",
    "segment.bytes": str(32 << 20),
    "segment.ms": "3600000",
    "min.cleanable.dirty.ratio": "0.1",
    "max.message.bytes": "1048588",
}


class ProgressMissingError(OutboxdError):
    """The progress topic is not there."""


class ProgressUnreadableError(OutboxdError):
    """The progress topic holds what this version cannot read."""


def ensure_topic(properties: Mapping[str, str], topic: str, timeout_seconds: float = 30.0) -> None:
    """Make the progress topic where it is missing. Raises KafkaException where the cluster refuses, and
    BrokerUnavailableError where it did not answer in time.
    """
    # Kept alive until its futures are through.
    admin = AdminClient(dict(properties), logger=CLIENT_LOGGER)
    wanted = NewTopic(topic, num_partitions=1, config=dict(TOPIC_CONFIG))
    future = admin.create_topics([wanted], request_timeout=timeout_seconds)[topic]
    try:
        made = answer_of(future, timeout_seconds)
    except TimeoutError as late:
        raise BrokerUnavailableError(
            f"the progress topic {topic} was not made within {timeout_seconds:g} s; look at the brokers, or make it"
        ) from late
    if isinstance(made, KafkaException) and made.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
        raise KafkaException(made.args[0])


def read_above(
    properties: Mapping[str, str], topic: str, settled: int, lineage: str, timeout_seconds: float = READ_SECONDS_MAX
) -> list[ProgressRecord]:
    """Return the committed records of this lineage with numbers above `settled`, in the order of their numbers.

    To be called after `init_transactions`, which ends what the producer before had open: the end does not move then.

    Raises:
        BrokerUnavailableError: the topic could not be read to its end in time.
        ProgressMissingError: the topic is not there, or may not be seen.
        ProgressUnreadableError: another version wrote it.
    """
    consumer = progress_consumer(properties)
    try:
        error = consumer.list_topics(topic, timeout=timeout_seconds).topics[topic].error
        if error is not None and error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
            raise ProgressMissingError(
                f"the progress topic {topic} is not there, and transaction {settled} was settled: what came after it "
                "cannot be known, and rows might go twice. Create the topic again (one partition, compacted) to go on "
                "all the same"
            )
        if error is not None and error.code() in FORBIDDEN:
            raise BrokerUnavailableError(f"the progress topic {why_unread(topic, error)}")
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=timeout_seconds)
        look_back = _FIRST_LOOK_BACK

        def is_wanted(number: int, its_lineage: str) -> bool:
            # The rows of what is settled would take more memory than all else.
            return number > settled and its_lineage == lineage

        while True:
            start = max(low, high - look_back)
            records = _read(consumer, topic, (start, high), timeout_seconds, is_wanted)
            ours = [record for record in records if record.lineage == lineage]
            if start == low or (ours and ours[0].number <= settled + 1):
                return sorted((r for r in ours if is_wanted(r.number, r.lineage)), key=lambda record: record.number)
            look_back *= 8
    except KafkaException as said:
        raise BrokerUnavailableError(f"the progress topic {why_unread(topic, said.args[0])}") from said
    finally:
        consumer.close()


def progress_consumer(properties: Mapping[str, str]) -> Consumer:
    """Return a consumer that reads what was committed, and tells where the topic ends."""
    return Consumer(
        {
            "client.id": "outboxd-progress",
            **QUICK_CONNECTION,
            **without_producers_own(properties),
            # No group is ever joined; the client wants a name all the same.
            "group.id": "outboxd-progress",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": _ANSWER_WAIT_MS,
        },
        logger=CLIENT_LOGGER,
    )


def _read(
    consumer: Consumer, topic: str, span: tuple[int, int], timeout_seconds: float, is_wanted: IsWanted
) -> list[ProgressRecord]:
    consumer.assign([TopicPartition(topic, 0, span[0])])
    deadline = time.monotonic() + timeout_seconds
    records: list[ProgressRecord] = []
    while time.monotonic() < deadline:
        message = consumer.poll(0.5)
        if message is None:
            continue
        error = message.error()
        if error is None:
            if (value := message.value()) is not None:
                records.append(_decoded(topic, message.offset(), value, is_wanted))
        elif error.code() == KafkaError._PARTITION_EOF:
            # A replica that follows, or leads since a moment ago, says so before it knows all that is committed.
            if (message.offset() or 0) >= span[1]:
                return records
        elif error.fatal() or not (error.retriable() or is_groups_alone(error)):
            raise KafkaException(error)
    raise BrokerUnavailableError(f"the progress topic {topic} was not read to its end within {timeout_seconds:g} s")


def _decoded(topic: str, offset: int | None, value: bytes, is_wanted: IsWanted) -> ProgressRecord:
    try:
        return decode(value, is_wanted)
    except (ValueError, KeyError, TypeError, struct.error, zlib.error) as error:
        raise ProgressUnreadableError(
            f"{topic}-0@{offset} is no progress record that this outboxd can read ({error}); nothing is relayed, since "
            "rows might go twice. Run the outboxd that wrote it until it ends cleanly, then the other one"
        ) from error
