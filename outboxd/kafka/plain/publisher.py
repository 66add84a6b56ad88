"""The publisher: the relay's broker port on the plain idempotent producer.

One shared producer sends by the batch; a second one sends suspects of a batch-wide refusal one record a batch, see
`lone_producer.py`; a third one many records of one key together, see `chain_producer.py`. Everything here runs on the
relay's thread, callbacks included, since they are served by its `poll`. Questions to the cluster go to threads of their
own: whether a topic really lacks a partition, whose answer is a report in the inbox like any other; what a topic
refuses; and, after a failure, whether acknowledged records are still there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

from confluent_kafka import KafkaException

from outboxd.kafka.client.client_config import (
    chain_config,
    empty_key_partition,
    lone_config,
    producer_config,
    record_bytes_max,
)
from outboxd.kafka.client.cluster_failure import POLLED_WITHIN_SECONDS
from outboxd.kafka.client.former_producers import destroy, serve_last_reports
from outboxd.kafka.client.producer_maker import NO_PRODUCER, ProducerMaker
from outboxd.kafka.cluster.acknowledged import AcknowledgedPlaces, OnLost
from outboxd.kafka.cluster.partitions import PartitionQuestions
from outboxd.kafka.cluster.topic_limits import KnownTopics
from outboxd.kafka.inbox import Inbox
from outboxd.kafka.messages import MessageChecks
from outboxd.kafka.plain.chain_producer import ChainProducer
from outboxd.kafka.plain.lone_producer import LoneProducer
from outboxd.kafka.plain.no_transactions import NoTransactions
from outboxd.kafka.plain.shared_producer import SharedProducer
from outboxd.policy.exchange.messages import ChainFailure, DeliveryFault, Report, error_of
from outboxd.policy.rows.records import Record
from outboxd.policy.topics.partitioners import Placement

TURN_SECONDS: Final = 0.001
"""While two producers have something neither is waited for longer at a time."""


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
        self._maker = maker = ProducerMaker()
        self._partitions = PartitionQuestions(self.inbox.put, self.topics.most_partitions)
        self.questioned = self._partitions.open_ids
        self._shared = shared = SharedProducer(
            maker.make(self._config),
            self._checks,
            self.topics,
            self.inbox,
            partitions=self._partitions,
            publish_alone=self.publish_alone,
        )
        self._lone = LoneProducer(
            lambda: maker.try_to_make(lone_config(self._properties)), self._checks, self.inbox, shared.refused
        )
        self._chains = ChainProducer(
            lambda: maker.try_to_make(chain_config(self._config)), self._checks, self.topics, self.inbox
        )

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
        return self._shared.publish(records, start)

    def publish_chain(self, records: Sequence[Record]) -> int:
        """Give records of one key to a producer that stops where one fails; return how many it took."""
        return self._chains.publish(records)

    def chain_failure(self) -> ChainFailure | None:
        """Return why chains stopped, once no more of their reports are worth a wait."""
        return self._chains.failure()

    def end_chains(self) -> Collection[int]:
        """Stop all chains where they are; return the ids of those that are certainly in no log."""
        self._suspect_log()
        former, unwritten = self._chains.end(was_cut_off=self._maker.failure.lately is not None)
        destroy(former)
        return unwritten

    def _suspect_log(self) -> None:
        if self._acknowledged is not None:
            # Whatever it was, it may have been the log that went back.
            self._acknowledged.suspect()

    def placement(self, topic: str) -> Placement | None:
        """Return how the topic's records are placed; None while that is not known."""
        return self.topics.placement(topic)

    def misplaced(self, topic: str) -> None:
        """The topic has other partitions than were foretold: find out anew."""
        self.topics.misplaced(topic)

    def publish_alone(self, record: Record) -> bool:
        """Send one record in a batch of its own. Return False when the producer's queue is full."""
        return self._lone.publish(record)

    # Report.

    def poll(self, timeout_seconds: float) -> None:
        """Serve delivery callbacks; return early when some were served."""
        self._serve(self._shared.producer.poll, timeout_seconds)

    def flush(self, timeout_seconds: float) -> None:
        """Send what is queued at once, without lingering for more, and serve callbacks; return once nothing is in
        flight.

        While `rd_kafka_flush` runs, `linger.ms` is ignored, see rdkafka.h.
        """
        self._serve(self._shared.producer.flush, timeout_seconds)

    def _serve(self, call: Callable[[float], object], timeout_seconds: float) -> None:
        shared, chains = self._shared, self._chains
        if shared.producer is NO_PRODUCER:
            shared.producer = self._maker.try_to_make(self._config)
        if chains.in_flight:
            # What both have is waited for at the one that has the rest, or in short turns.
            waits = not len(shared.producer)
            self._note(chains.serve(timeout_seconds if waits else 0.0))
            timeout_seconds = 0.0 if waits else min(timeout_seconds, TURN_SECONDS)
        self._note(shared.serve(lambda _: self._lone.serve(), 0.0) or shared.serve(call, timeout_seconds))

    def _note(self, trouble: KafkaException | None) -> None:
        if trouble is not None:
            self._maker.failure.note(trouble.args[0])

    def take_reports(self) -> list[Report]:
        """Return the reports that came since the last call, in order."""
        reports, chained = self.inbox.take(), self.inbox.take_chained()
        if self._acknowledged is not None:
            self._acknowledged.note(reports)
            self._acknowledged.note(chained, are_chained=True)
        reports += chained
        if reports and self.cluster_error is not None and any(report[1] is None for report in reports):
            self._maker.failure.clear()
        if not any(map(error_of, reports)):
            return reports
        return self._partitions.ask_of(self._shared.producer, reports)

    # Failure and end.

    def failure(self) -> DeliveryFault | None:
        """Return the fatal error that ended the producer, or None while it works."""
        return self._shared.failure

    def rebuild(self) -> None:
        """Replace a failed producer, by a stand-in while none can be made; the old one's last reports are dropped."""
        self.purge()
        shared = self._shared
        serve_last_reports(shared.producer)
        former = [shared.producer, *self._lone.drop(), *self._chains.drop()]
        if shared.failure is not None:
            self._suspect_log()
        shared.failure = None
        self._checks.empty_key_partition = empty_key_partition(self._properties)
        shared.producer = self._maker.try_to_make(self._config)
        self._partitions.forget()
        self.inbox.take()
        self.inbox.take_chained()
        destroy(former)

    def purge(self) -> None:
        """Drop what was not sent yet, and stop waiting for what was."""
        self._shared.producer.purge(in_queue=True, in_flight=True, blocking=False)
        self._lone.purge()
        self._chains.purge()

    def close(self) -> None:
        """End: whatever is still queued is dropped; its rows are pending."""
        self._partitions.forget()
        self.purge()
        serve_last_reports(self._shared.producer)
        self._lone.drop()
        self._chains.drop()
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
            self._shared.producer.set_sasl_credentials(name, password)
            self._chains.take_credentials(name, password)
            self._lone.take_credentials(name, password)

    def contact(self, timeout_seconds: float) -> str | None:
        """Return the cluster's id, if it has one. Raises KafkaException when no broker answers in time."""
        try:
            metadata = self._shared.producer.list_topics(timeout=timeout_seconds)
        except KafkaException:
            self._maker.failure.unanswered(self._properties.get("bootstrap.servers", ""), POLLED_WITHIN_SECONDS)
            raise
        self._maker.failure.clear()
        self.topics.refresh(time.monotonic())
        cluster_id: str | None = metadata.cluster_id
        return cluster_id
