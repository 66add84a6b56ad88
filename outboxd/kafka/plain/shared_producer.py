"""The shared producer: records of all keys go by it in full batches. It belongs to the relay's thread."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from outboxd.kafka.client.client_config import ANY_PARTITION
from outboxd.kafka.client.producer_maker import AnyProducer
from outboxd.kafka.cluster.partitions import PartitionQuestions
from outboxd.kafka.cluster.topic_limits import NO_LIMITS, KnownTopics, TopicLimits
from outboxd.kafka.inbox import Inbox, delivery_fault, refusal_fault
from outboxd.kafka.messages import MessageChecks
from outboxd.policy.exchange.messages import DeliveryFault, Report
from outboxd.policy.faults import own_fault
from outboxd.policy.rows.records import Record


class SharedProducer:
    """Holds one producer at a time, and why it failed."""

    def __init__(
        self,
        producer: AnyProducer,
        checks: MessageChecks,
        topics: KnownTopics,
        inbox: Inbox,
        *,
        partitions: PartitionQuestions,
        publish_alone: Callable[[Record], bool],
    ) -> None:
        """Send nothing yet.

        Args:
            producer: the first one; whoever replaces it sets another.
            checks: the records' headers, and what is wrong with them.
            topics: what brokers may refuse.
            inbox: where reports land.
            partitions: asks the cluster whether a partition is really lacking.
            publish_alone: sends a record in a batch of its own; False when there is no room.
        """
        self.producer = producer
        self.failure: DeliveryFault | None = None
        """The fatal error that ended it."""
        self._checks = checks
        self._topics = topics
        self._inbox = inbox
        self._partitions = partitions
        self._publish_alone = publish_alone

    def publish(self, records: Sequence[Record], start: int) -> int:
        """Give records to the producer from index `start` on; return the index of the first one that it did not
        take.
        """
        produce = self.producer.produce
        checks = self._checks
        source = checks.source_header
        last_topic, topic_fault = None, None
        limits, large_bytes = NO_LIMITS, 0
        index = start
        try:
            for index in range(start, len(records)):
                record = records[index]
                _, record_id, event_id, topic, key, payload, headers_text, partition, created_at_ms, size_bytes = record
                if topic != last_topic:
                    last_topic = topic
                    topic_fault = checks.topic_fault(topic)
                    limits = NO_LIMITS if topic_fault is not None else self._topics.of(topic)
                    large_bytes = limits.look_above_bytes
                if topic_fault is not None:
                    self._refuse(record, topic_fault)
                    continue
                if size_bytes > large_bytes or created_at_ms < 1 or partition is not None or key is limits.lacking_key:
                    if self._goes_apart(record, limits):
                        continue
                    created_at_ms = max(1, created_at_ms)
                headers: Any
                if headers_text == "{}":
                    headers = [("outbox-id", str(record_id)), ("outbox-event-id", event_id), source]
                else:
                    headers = checks.headers(record)
                    if isinstance(headers, DeliveryFault):
                        self._refuse(record, headers)
                        continue
                try:
                    produce(
                        topic,
                        payload,
                        key,
                        # As `partition_of` has it; a call would be dear here.
                        (ANY_PARTITION if key or key is None else checks.empty_key_partition)
                        if partition is None
                        else partition,
                        record,  # type: ignore[arg-type]  # a record is its own callback, see Inbox
                        None,
                        created_at_ms,
                        headers,
                    )
                except (KafkaException, TypeError, ValueError) as error:
                    self.refused(record, error)
        except BufferError:
            return index
        return len(records)

    def _goes_apart(self, record: Record, limits: TopicLimits) -> bool:
        """Take a closer look at a record: refuse it, or send it alone where the broker may; False: it goes with the
        others. Raises BufferError when the isolating producer is full.
        """
        fault = self._checks.fault_of_record(record)
        if fault is not None:
            self._refuse(record, fault)
            return True
        if not limits.may_refuse(record):
            return False
        if not self._publish_alone(record):
            raise BufferError
        return True

    def _refuse(self, record: Record, fault: DeliveryFault) -> None:
        self._inbox.put(Report(record, fault, record.partition, None, True))

    def refused(self, record: Record, error: KafkaException | TypeError | ValueError) -> None:
        """`produce()` raised: the record's outcome at once. The rest of the batch is none the worse."""
        if not isinstance(error, KafkaException):
            self._refuse(record, refusal_fault(error))
            return
        kafka_error: KafkaError = error.args[0]
        fault = delivery_fault(kafka_error, alone=True)
        if kafka_error.fatal() or kafka_error.code() == KafkaError._FATAL:
            self.failure = fault
        if not self._partitions.asks(self.producer, record, fault):
            self._refuse(record, fault)

    def serve(self, call: Callable[[float], object], timeout_seconds: float) -> KafkaException | None:
        """Serve the callbacks that are due by one of its own calls; return what is wrong with the cluster, if it is
        said.
        """
        try:
            call(timeout_seconds)
        except KafkaException as error:
            # `poll` raises what is fatal; anything else it raises is a cluster's trouble to be seen in the status.
            kafka_error: KafkaError = error.args[0]
            if not kafka_error.fatal():
                return error
            self.failure = delivery_fault(kafka_error, alone=True)
        except SystemError as error:
            # Where a fatal error comes while reports are served, the client raises it into a callback that is under
            # way: that report is lost, and its record one of unknown outcome.
            self.failure = DeliveryFault(
                own_fault("NEVER_REPORTED"), f"a report was lost as the producer failed: {error}"
            )
        return None
