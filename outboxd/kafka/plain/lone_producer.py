"""The isolating producer: suspects of a batch-wide refusal go by it one record a batch, each to a verdict of its own.

Like all of the publisher it belongs to the relay's thread.
"""

from __future__ import annotations

from collections.abc import Callable

from confluent_kafka import KafkaError, KafkaException, Message

from outboxd.kafka.client.producer_maker import AnyProducer
from outboxd.kafka.client.spare_producer import SpareProducer
from outboxd.kafka.inbox import Inbox, delivery_fault
from outboxd.kafka.messages import MessageChecks
from outboxd.policy.exchange.messages import DeliveryFault, Report
from outboxd.policy.rows.records import Record

Refused = Callable[[Record, KafkaException | TypeError | ValueError], None]


class LoneProducer(SpareProducer):
    """A spare producer of one record a batch."""

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
        super().__init__(make_producer)
        self._checks = checks
        self._inbox = inbox
        self._refused = refused
        self._in_flight = 0

    def publish(self, record: Record) -> bool:
        """Send one record in a batch of its own. Return False when the producer's queue is full."""
        producer = self.needed()
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
            producer.produce(
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
        if self._in_flight and self.present is not None:
            self.present.poll(0)

    def drop(self) -> list[AnyProducer]:
        """Let go of the producer, as any spare one."""
        former = super().drop()
        self._in_flight = 0
        return former
