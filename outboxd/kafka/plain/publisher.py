"""The publisher: the relay's broker port on the plain idempotent producer.

One shared producer sends by the batch; a second one sends suspects of a batch-wide refusal one record a batch, see
`lone_producer.py`. Everything here runs on the relay's thread, callbacks included, since they are served by its
`poll`. Questions to the cluster go to threads of their own: whether a topic really lacks a partition, whose answer is
a report in the inbox like any other; what a topic refuses; and, after a failure, whether acknowledged records are
still there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException

from outboxd.kafka.client.client_config import (
    ANY_PARTITION,
    empty_key_partition,
    lone_config,
    producer_config,
    record_bytes_max,
)
from outboxd.kafka.client.cluster_failure import POLLED_WITHIN_SECONDS
from outboxd.kafka.client.former_producers import destroy, serve_last_reports
from outboxd.kafka.client.producer_maker import NO_PRODUCER, AnyProducer, ProducerMaker
from outboxd.kafka.cluster.acknowledged import AcknowledgedPlaces, OnLost
from outboxd.kafka.cluster.partitions import PartitionQuestions
from outboxd.kafka.cluster.topic_limits import NO_LIMITS, KnownTopics, TopicLimits
from outboxd.kafka.inbox import Inbox, delivery_fault, refusal_fault
from outboxd.kafka.messages import MessageChecks
from outboxd.kafka.plain.lone_producer import LoneProducer
from outboxd.kafka.plain.no_transactions import NoTransactions
from outboxd.policy.exchange.messages import DeliveryFault, Report, error_of
from outboxd.policy.faults import own_fault
from outboxd.policy.rows.records import Record
from outboxd.policy.topics.partitioners import Placement


class KafkaPublisher(NoTransactions):
    """Implements the relay's `Publisher`."""

    def __init__(
        self,
        properties: Mapping[str, str],
        *,
        source: str,
        in_flight_rows_max: int,
        in_flight_bytes_max: int,
        inbox: Inbox | None = None,
        on_lost: OnLost | None = None,
    ) -> None:
        """Make the shared producer; it connects by itself.

        Args:
            properties: the user's librdkafka properties.
            source: the outbox's name, for the header `outbox-source`.
            in_flight_rows_max: the relay's bound on what is in memory, in rows.
            in_flight_bytes_max: the same in bytes.
            inbox: where reports land; its `record_type` is what the store reads rows as.
            on_lost: is told, on another thread, of acknowledged records that are gone: topic, partition, and how many
                at least.
        """
        self.inbox = inbox or Inbox()
        self._properties = dict(properties)
        self._config = producer_config(
            properties, in_flight_rows_max=in_flight_rows_max, in_flight_bytes_max=in_flight_bytes_max
        )
        self._checks = MessageChecks(source, record_bytes_max(properties), empty_key_partition(properties))
        self.topics = KnownTopics(lambda: self._properties, record_bytes_max(properties))
        self.is_missing = self.topics.is_missing
        self._acknowledged = None if on_lost is None else AcknowledgedPlaces(lambda: self._properties, source, on_lost)
        self._failure: DeliveryFault | None = None
        self._maker = maker = ProducerMaker()
        self._lone = LoneProducer(
            lambda: maker.try_to_make(lone_config(self._properties)), self._checks, self.inbox, self._refused
        )
        self._partitions = PartitionQuestions(self.inbox.put, self.topics.most_partitions)
        self.questioned = self._partitions.open_ids
        self._producer: AnyProducer = maker.make(self._config)

    @property
    def cluster_error(self) -> str | None:
        """Return what people are told of the cluster's failure, None while it works. May be called on any thread."""
        return self._maker.failure.told

    def connection_trouble(self) -> str | None:
        """Return what was said lately of a connection that came to nothing."""
        return self._maker.failure.lately

    # Publish.

    def publish(self, records: Sequence[Record], start: int) -> int:
        """Give records to the producer from index `start` on; return the index of the first one that it did not
        take.
        """
        produce = self._producer.produce
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
                    limits = NO_LIMITS if topic_fault is not None else self.topics.of(topic)
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
                    self._refused(record, error)
        except BufferError:
            return index
        return len(records)

    def placement(self, topic: str) -> Placement | None:
        """Return how the topic's records are placed; None while that is not known."""
        return self.topics.placement(topic)

    def misplaced(self, topic: str) -> None:
        """The topic has other partitions than were foretold: find out anew."""
        self.topics.misplaced(topic)

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
        if not self.publish_alone(record):
            raise BufferError
        return True

    def _refuse(self, record: Record, fault: DeliveryFault) -> None:
        self.inbox.put(Report(record, fault, record.partition, None, True))

    def _refused(self, record: Record, error: KafkaException | TypeError | ValueError) -> None:
        """`produce()` raised: the record's outcome at once. The rest of the batch is none the worse."""
        if not isinstance(error, KafkaException):
            self._refuse(record, refusal_fault(error))
            return
        kafka_error: KafkaError = error.args[0]
        fault = delivery_fault(kafka_error, alone=True)
        if kafka_error.fatal() or kafka_error.code() == KafkaError._FATAL:
            self._failure = fault
        if not self._partitions.asks(self._producer, record, fault):
            self._refuse(record, fault)

    def publish_alone(self, record: Record) -> bool:
        """Send one record in a batch of its own. Return False when the producer's queue is full."""
        return self._lone.publish(record)

    # Report.

    def poll(self, timeout_seconds: float) -> None:
        """Serve delivery callbacks; return early when some were served."""
        self._serve(self._producer.poll, timeout_seconds)

    def flush(self, timeout_seconds: float) -> None:
        """Send what is queued at once, without lingering for more, and serve callbacks; return once nothing is in
        flight.

        While `rd_kafka_flush` runs, `linger.ms` is ignored, see rdkafka.h.
        """
        self._serve(self._producer.flush, timeout_seconds)

    def _serve(self, call: Callable[[float], object], timeout_seconds: float) -> None:
        if self._producer is NO_PRODUCER:
            self._producer = self._maker.try_to_make(self._config)
        try:
            self._lone.serve()
            call(timeout_seconds)
        except KafkaException as error:
            self._failed(error)
        except SystemError as error:
            # Where a fatal error comes while reports are served, the client raises it into a callback that is under
            # way: that report is lost, and its record one of unknown outcome.
            self._failure = DeliveryFault(
                own_fault("NEVER_REPORTED"), f"a report was lost as the producer failed: {error}"
            )

    def _failed(self, error: KafkaException) -> None:
        """`poll` raises what is fatal; anything else it raises is a cluster's trouble to be seen in the status."""
        kafka_error: KafkaError = error.args[0]
        if kafka_error.fatal():
            self._failure = delivery_fault(kafka_error, alone=True)
        else:
            self._maker.failure.note(kafka_error)

    def take_reports(self) -> list[Report]:
        """Return the reports that came since the last call, in order."""
        reports = self.inbox.take()
        if reports and self.cluster_error is not None and any(report[1] is None for report in reports):
            self._maker.failure.clear()
        if reports and self._acknowledged is not None:
            self._acknowledged.note(reports)
        if not any(map(error_of, reports)):
            return reports
        return self._partitions.ask_of(self._producer, reports)

    # Failure and end.

    def failure(self) -> DeliveryFault | None:
        """Return the fatal error that ended the producer, or None while it works."""
        return self._failure

    def rebuild(self) -> None:
        """Replace a failed producer, by a stand-in while none can be made; the old one's last reports are dropped."""
        self.purge()
        serve_last_reports(self._producer)
        former = [self._producer, *self._lone.drop()]
        if self._failure is not None and self._acknowledged is not None:
            # Whatever it was, it may have been the log that went back.
            self._acknowledged.suspect()
        self._failure = None
        self._checks.empty_key_partition = empty_key_partition(self._properties)
        self._producer = self._maker.try_to_make(self._config)
        self._partitions.forget()
        self.inbox.take()
        destroy(former)

    def purge(self) -> None:
        """Drop what was not sent yet, and stop waiting for what was."""
        self._producer.purge(in_queue=True, in_flight=True, blocking=False)
        self._lone.purge()

    def close(self) -> None:
        """End: whatever is still queued is dropped; its rows are pending."""
        self._partitions.forget()
        self.purge()
        serve_last_reports(self._producer)
        self._lone.drop()
        if self._acknowledged is not None:
            self._acknowledged.close()

    # For the daemon.

    def take_properties(
        self, properties: Mapping[str, str], *, in_flight_rows_max: int, in_flight_bytes_max: int
    ) -> None:
        """Build the next producer with these; SASL's name and password hold for new connections of this one too. May be
        called on any thread.
        """
        self._properties = dict(properties)
        self._config = producer_config(
            properties, in_flight_rows_max=in_flight_rows_max, in_flight_bytes_max=in_flight_bytes_max
        )
        name, password = (properties.get(f"sasl.{each}", "") for each in ("username", "password"))
        if name and password:
            self._producer.set_sasl_credentials(name, password)
            self._lone.take_credentials(name, password)

    def contact(self, timeout_seconds: float) -> str | None:
        """Return the cluster's id, if it has one. Raises KafkaException when no broker answers in time."""
        try:
            metadata = self._producer.list_topics(timeout=timeout_seconds)
        except KafkaException:
            self._maker.failure.unanswered(self._properties.get("bootstrap.servers", ""), POLLED_WITHIN_SECONDS)
            raise
        self._maker.failure.clear()
        self.topics.refresh(time.monotonic())
        cluster_id: str | None = metadata.cluster_id
        return cluster_id
