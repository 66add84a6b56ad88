"""The isolating producer: suspects of a batch-wide refusal go by it one record a batch, each to a verdict of its own.

It is made when it is first needed, since most daemons never need it. Like all of the publisher it belongs to the
relay's thread.
"""

from __future__ import annotations

from collections.abc import Callable

from confluent_kafka import KafkaError, KafkaException, Message

from outboxd.kafka.client.former_producers import serve_last_reports
from outboxd.kafka.client.producer_maker import NO_PRODUCER, AnyProducer
from outboxd.kafka.inbox import Inbox, delivery_fault
from outboxd.kafka.messages import MessageChecks
from outboxd.policy.exchange.messages import DeliveryFault, Report
from outboxd.policy.rows.records import Record

Refused = Callable[[Record, KafkaException | TypeError | ValueError], None]


class LoneProducer:
    """Holds one producer at a time, or none yet."""

    def __init__(
        self, make_producer: Callable[[], AnyProducer], checks: MessageChecks, inbox: Inbox, refused: Refused
    ) -> None:
        """Make nothing yet; the first record does.

        Args:
            make_producer: makes a producer of one record a batch, or returns the stand-in.
            checks: the records' headers.
            inbox: where reports land, marked as those of records that went alone.
            refused: is told of a record that `produce()` raised for; the record is through with that.
        """
        self._make_producer = make_producer
        self._checks = checks
        self._inbox = inbox
        self._refused = refused
        self._producer: AnyProducer | None = None
        self._in_flight = 0

    def publish(self, record: Record) -> bool:
        """Send one record in a batch of its own. Return False when the producer's queue is full."""
        if self._producer is None or self._producer is NO_PRODUCER:
            self._producer = self._make_producer()
        headers = self._checks.headers(record)
        if isinstance(headers, DeliveryFault):
            self._inbox.put(Report(record, headers, record.partition, None, True))
            return True

        def report(error: KafkaError | None, message: Message) -> None:
            self._in_flight -= 1
            fault = None if error is None else delivery_fault(error, alone=True)
            self._inbox.put(
                Report(record, fault, message.partition(), message.offset() if error is None else None, True)
            )

        partition = self._checks.partition_of(record)
        try:
            self._producer.produce(
                record.topic,
                record.payload,
                record.key,
                partition,
                on_delivery=report,
                timestamp=max(1, record.created_at_ms),
                headers=headers,
            )
        except BufferError:
            return False
        except (KafkaException, TypeError, ValueError) as error:
            self._refused(record, error)
            return True
        self._in_flight += 1
        return True

    def serve(self) -> None:
        """Serve the callbacks that are due, without waiting. Raises KafkaException as the client's own `poll` does."""
        if self._in_flight and self._producer is not None:
            self._producer.poll(0)

    def purge(self) -> None:
        """Drop what was not sent yet, and stop waiting for what was."""
        if self._producer is not None:
            self._producer.purge(in_queue=True, in_flight=True, blocking=False)

    def drop(self) -> list[AnyProducer]:
        """Let go of the producer, so that the next record makes another; return it for its end, if there was one. Its
        last reports are in the inbox then.
        """
        former = [] if self._producer is None else [self._producer]
        for producer in former:
            serve_last_reports(producer)
        self._producer, self._in_flight = None, 0
        return former

    def take_credentials(self, name: str, password: str) -> None:
        """Name and password of SASL hold from the next connection on. May be called on any thread."""
        producer = self._producer
        if producer is not None:
            producer.set_sasl_credentials(name, password)
