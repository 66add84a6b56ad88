"""The log, read back: which row the record at a place is of. Partitions are assigned; no group is joined."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from confluent_kafka import OFFSET_END, Consumer, KafkaError, KafkaException, Message, TopicPartition

from outboxd.errors import AccessDeniedError, BrokerUnavailableError
from outboxd.kafka.client.client_config import silent
from outboxd.kafka.client.codes import NO_TOPIC, in_words
from outboxd.kafka.client.consumers import without_producers_own
from outboxd.kafka.cluster.partitions import count_partitions
from outboxd.policy.exchange.auditing import Bounds, Identity

ASK_SECONDS_MAX = 15.0
SILENCE_SECONDS_MAX = 30.0
"""A partition that shows nothing for so long is not readable."""
MESSAGES_AT_ONCE = 2_000
GAP_RECORDS_MAX = 2_000
"""Offsets nearer to each other than this are read in one run; a jump costs a round trip."""
_FROM_HAND_TO_MOUTH: Final = {
    "queued.min.messages": 1,
    "queued.max.messages.kbytes": 64,
    "fetch.message.max.bytes": 64 * 1024,
}
"""The client reads 64 MiB ahead else, of each consumer. A larger batch is given whole, one at a time (KIP-74)."""
_NOT_THERE = (*NO_TOPIC, KafkaError._UNKNOWN_PARTITION)
_FORBIDDEN = (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED)

Partition = tuple[str, int]


class LogRecord(NamedTuple):
    """What the audit needs of a record. `identity` is None for one that is not of this outbox."""

    topic: str
    partition: int
    offset: int
    key: str | None
    identity: Identity | None


class LogReader:
    """One consumer for one audit. `close` it."""

    def __init__(self, properties: Mapping[str, str], source: str, *, reads_ahead: bool = True) -> None:
        """`properties` are the user's, `source` is the outbox's name, as its records carry it. Who reads a record here
        and there does not read ahead, which takes memory.
        """
        own: dict[str, Any] = {
            # The client wants a name here; nothing is ever committed for it.
            "group.id": "outboxd-audit",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
        }
        kept = silent(without_producers_own(properties))
        if not reads_ahead:
            own |= _FROM_HAND_TO_MOUTH
        self._consumer = Consumer({**kept, **own})
        # This one tells where the log ends, the other how far it can be read.
        self._ends = Consumer({**kept, **own, "isolation.level": "read_uncommitted"})
        self._source = source.encode()

    def close(self) -> None:
        """Drop the connections."""
        self._consumer.close()
        self._ends.close()

    def bounds(self, partition: Partition) -> Bounds | None:
        """Return what the partition keeps; None when there is no such partition.

        Raises:
            BrokerUnavailableError: nobody answers for it.
            AccessDeniedError: the topic may not be read.
        """
        try:
            low, high = self._consumer.get_watermark_offsets(TopicPartition(*partition), timeout=ASK_SECONDS_MAX)
            _, log_end = self._ends.get_watermark_offsets(TopicPartition(*partition), timeout=ASK_SECONDS_MAX)
        except KafkaException as error:
            if error.args[0].code() not in _NOT_THERE:
                raise _explained(error, partition) from error
            if self._is_listed(partition):
                said = f"{partition[0]}-{partition[1]} has no leader; look at the brokers that keep it"
                raise BrokerUnavailableError(f"Kafka cannot be read: {said}") from error
            return None
        return Bounds(low, high, log_end)

    def _is_listed(self, partition: Partition) -> bool:
        """Say whether there is such a partition: of one that nobody leads the client, too, says that it is unknown."""
        topic, number = partition
        try:
            count = count_partitions(self._consumer, topic, ASK_SECONDS_MAX)
        except KafkaException as error:
            raise _explained(error, partition) from error
        return count is not None and number < count

    def partitions(self, topic: str) -> list[Partition]:
        """Return the topic's partitions; none when there is no such topic."""
        try:
            found = self._consumer.list_topics(topic, timeout=ASK_SECONDS_MAX).topics[topic]
        except KafkaException as error:
            raise _explained(error, (topic, -1)) from error
        return [(topic, number) for number in sorted(found.partitions)]

    def read(self, wanted: Mapping[Partition, Sequence[int]]) -> Iterator[LogRecord]:
        """Give the records at these offsets (ascending, by partition); an offset without a record gives nothing."""
        runs = {partition: _runs(offsets) for partition, offsets in wanted.items()}
        offsets = {partition: set(numbers) for partition, numbers in wanted.items()}
        while runs:
            now = {partition: waiting.pop(0) for partition, waiting in runs.items()}
            runs = {partition: waiting for partition, waiting in runs.items() if waiting}
            for record in self._read({partition: (first, last) for partition, (first, last) in now.items()}):
                if record.offset in offsets[record.topic, record.partition]:
                    yield record

    def scan(self, partitions: Sequence[Partition], since_ms: int) -> Iterator[LogRecord]:
        """Give all records from the first one with that timestamp or a later one (ms since 1970) to the end."""
        asked = [TopicPartition(*partition, max(0, since_ms)) for partition in partitions]
        try:
            starts = self._consumer.offsets_for_times(asked, timeout=ASK_SECONDS_MAX)
        except KafkaException as error:
            raise _explained(error, partitions[0]) from error
        spans: dict[Partition, tuple[int, int]] = {}
        for start in starts:
            bounds = self.bounds((start.topic, start.partition))
            if start.offset not in (OFFSET_END, -1) and bounds is not None and bounds.high > start.offset:
                spans[start.topic, start.partition] = (start.offset, bounds.high - 1)
        yield from self._read(spans)

    def _read(self, spans: Mapping[Partition, tuple[int, int]]) -> Iterator[LogRecord]:
        """Give the records of one span a partition, both ends included."""
        open_spans = dict(spans)
        self._consumer.assign([TopicPartition(*partition, first) for partition, (first, _) in spans.items()])
        heard_at = time.monotonic()
        try:
            while open_spans:
                messages = self._consumer.consume(MESSAGES_AT_ONCE, timeout=0.2)
                heard_at = time.monotonic() if messages else heard_at
                if time.monotonic() - heard_at > SILENCE_SECONDS_MAX:
                    silent = ", ".join(f"{topic}-{number}" for topic, number in open_spans)
                    raise BrokerUnavailableError(
                        f"nothing could be read of {silent} for {SILENCE_SECONDS_MAX:g} s; look at their leaders, and "
                        "for a transaction that is never ended"
                    )
                for message in messages:
                    yield from self._taken(message, open_spans)
        finally:
            self._consumer.unassign()

    def _taken(self, message: Message, open_spans: dict[Partition, tuple[int, int]]) -> Iterator[LogRecord]:
        partition = (str(message.topic()), int(message.partition() or 0))
        if partition not in open_spans:
            return
        last = open_spans[partition][1]
        error = message.error()
        if error is not None:
            if error.code() == KafkaError._PARTITION_EOF:
                # A replica that follows, or leads since a moment ago, says so before it knows all that is committed.
                if int(message.offset() or 0) > last:
                    del open_spans[partition]
            elif error.fatal() or error.code() in (*_NOT_THERE, *_FORBIDDEN):
                raise _explained(KafkaException(error), partition)
            return
        offset = int(message.offset() or 0)
        if offset >= last:
            del open_spans[partition]
        if offset <= last:
            key = message.key()
            shown = key.decode(errors="replace") if isinstance(key, bytes) else key
            yield LogRecord(*partition, offset, shown, self._identity(message))

    def _identity(self, message: Message) -> Identity | None:
        headers: dict[str, Any] = dict(message.headers() or ())
        if headers.get("outbox-source") != self._source:
            return None
        try:
            return Identity(int(headers["outbox-id"]), headers["outbox-event-id"].decode())
        except (KeyError, ValueError, AttributeError):
            # Somebody else writes headers of these names.
            return None


def _runs(offsets: Sequence[int]) -> list[tuple[int, int]]:
    runs: list[tuple[int, int]] = []
    for offset in offsets:
        if runs and offset - runs[-1][1] <= GAP_RECORDS_MAX:
            runs[-1] = (runs[-1][0], offset)
        else:
            runs.append((offset, offset))
    return runs


def _explained(error: KafkaException, partition: Partition) -> BrokerUnavailableError | AccessDeniedError:
    kafka_error: KafkaError = error.args[0]
    said = f"{partition[0]}: {in_words(kafka_error)}"
    if kafka_error.code() in _FORBIDDEN:
        return AccessDeniedError(
            f"Kafka does not let us read {said}; the audit needs READ on the topics and on the group outboxd-audit"
        )
    return BrokerUnavailableError(f"Kafka cannot be read: {said}; look at bootstrap.servers and at the brokers")
