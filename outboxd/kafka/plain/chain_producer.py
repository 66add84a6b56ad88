"""The chain producer: records of one key go by it together, and what fails stops all that stand behind.

The client ends an idempotent producer with `enable.gapless.guarantee` once a batch fails for good, before the next one
of its partition is sent, as only one request is under way at a time: else a broker that knows no sequence of it yet
would take the second batch where it refused the first (`rd_kafka_idemp_set_fatal_error` in rdkafka_request.c). So what
was delivered of a chain is its beginning. Only a partition or topic that vanishes fails records without that; all that
the client has for it fail then, and it takes no more of them.

working ──a record fails, or the client──▶ ending: nothing more is taken, and what brokers have is waited for
   ▲                                          │ all is in, or it took too long
   └──────────────── ended, by the relay ◀────┘

Like all of the publisher it belongs to the relay's thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from confluent_kafka import KafkaException

from outboxd.kafka.client.producer_maker import NO_PRODUCER, AnyProducer
from outboxd.kafka.client.spare_producer import SpareProducer
from outboxd.kafka.cluster.topic_limits import KnownTopics, TopicLimits
from outboxd.kafka.inbox import Inbox, delivery_fault
from outboxd.kafka.messages import MessageChecks
from outboxd.policy.exchange.messages import ChainFailure, DeliveryFault, Report
from outboxd.policy.faults import Fault, own_fault
from outboxd.policy.rows.records import Record

ENDING_SECONDS: Final = 1.0
"""So long what brokers have is waited for: what they say of it is no duplicate later."""
READY_SECONDS: Final = 0.2
"""So long after it was made it takes nothing. What a client is given before it has a connection waits for half a second
(measured), as it asks again where topics are by that time; what comes a tenth of a second later goes at once.
"""


class ChainProducer(SpareProducer):
    """A spare producer that ends where something fails."""

    def __init__(
        self, make_producer: Callable[[], AnyProducer], checks: MessageChecks, topics: KnownTopics, inbox: Inbox
    ) -> None:
        """Make nothing yet; the first chain does.

        Args:
            make_producer: makes a producer that keeps what it is given without gaps, or returns the stand-in.
            checks: the records' headers, and what is wrong with them.
            topics: what brokers may refuse.
            inbox: where reports land; those of failures as `chain_failures`.
        """
        super().__init__(make_producer)
        self._checks = checks
        self._topics = topics
        self._inbox = inbox
        self._failure: ChainFailure | None = None
        self._ending_until = 0.0
        self._ready_from = 0.0

    @property
    def in_flight(self) -> bool:
        """Whether it owes reports."""
        return self.present is not None and len(self.present) > 0

    def publish(self, records: Sequence[Record]) -> int:
        """Give it records of one key, of which nothing is with any producer; return how many of the first ones it took.

        It takes none that looks as if it might be refused, and none behind one; nor any while it connects.
        """
        if self._failure is not None or not self._is_ready() or self._checks.topic_fault(records[0].topic) is not None:
            return 0
        produce, checks = self.needed().produce, self._checks
        limits = self._topics.of(records[0].topic)
        taken = 0
        try:
            for record in records:
                headers: Any = checks.headers(record)
                if self._may_be_refused(record, limits) or isinstance(headers, DeliveryFault):
                    break
                produce(
                    record.topic,
                    record.payload,
                    record.key,
                    checks.partition_of(record),
                    record.in_chain,  # type: ignore[attr-defined]  # of the inbox's own records
                    None,
                    max(1, record.created_at_ms),
                    headers,
                )
                taken += 1
        except BufferError:
            pass
        except (KafkaException, TypeError, ValueError) as error:
            # Where it is the record's own fault, it is refused as it goes by itself, which it does next.
            self._note_fatal(error)
        return taken

    def _is_ready(self) -> bool:
        """Say whether it has been there for long enough; make it where it is not there."""
        now = time.monotonic()
        if self.present is None or self.present is NO_PRODUCER:
            self._ready_from = now + READY_SECONDS
            self.needed()
        return now >= self._ready_from

    def _may_be_refused(self, record: Record, limits: TopicLimits) -> bool:
        is_usual = (
            record.size_bytes <= limits.look_above_bytes and record.created_at_ms > 0 and record.partition is None
        )
        if is_usual:
            return record.key is limits.lacking_key
        return self._checks.fault_of_record(record) is not None or limits.may_refuse(record)

    def serve(self, timeout_seconds: float) -> KafkaException | None:
        """Serve the callbacks that are due, waiting so long for some; return what is wrong with the cluster, if it is
        said.
        """
        producer = self.present
        if producer is None:
            return None
        trouble = None
        try:
            producer.poll(timeout_seconds)
        except KafkaException as error:
            trouble = None if self._note_fatal(error) else error
        except SystemError as error:
            # As where it happens to the shared producer: that report is lost.
            self._note(ChainFailure(None, DeliveryFault(own_fault("NEVER_REPORTED"), str(error))))
        if self._failure is None or self._failure.topic is None:
            self._note_reported()
        if self._failure is not None:
            # Each time, since a batch that a broker did not answer comes back to the queue.
            producer.purge(in_queue=True, in_flight=False, blocking=False)
        return trouble

    def _note_reported(self) -> None:
        """Note what failed a record first. What was only given back since the client ended says nothing of its topic,
        and may be reported before: by the thread of another broker.
        """
        failed = [report for report in self._inbox.chain_failures if report.error is not None]
        for report in failed:
            if report.error is not None and not _is_given_back(report.error.fault):
                self._note(ChainFailure(report.record.topic, report.error))
                return
        if self._failure is None and failed and failed[0].error is not None:
            self._note(ChainFailure(None, failed[0].error))

    def _note_fatal(self, error: Exception) -> bool:
        is_fatal = isinstance(error, KafkaException) and error.args[0].fatal()
        if is_fatal:
            self._note(ChainFailure(None, delivery_fault(error.args[0], alone=False)))
        return is_fatal

    def _note(self, failure: ChainFailure) -> None:
        if self._failure is None:
            self._ending_until = time.monotonic() + ENDING_SECONDS
        # What failed a record says more than that the client ended by it.
        if self._failure is None or self._failure.topic is None:
            self._failure = failure

    def failure(self) -> ChainFailure | None:
        """Return why it ended, once all is in that brokers still say; None while it works, or waits for that."""
        if self._failure is None or (self.in_flight and time.monotonic() < self._ending_until):
            return None
        return self._failure

    def drop(self) -> list[AnyProducer]:
        """Let go of the producer, as any spare one, and forget what failed."""
        former, _ = self.end(was_cut_off=True)
        return former

    def end(self, *, was_cut_off: bool) -> tuple[list[AnyProducer], set[int]]:
        """The same; return the ids of those that failed and are certainly in no log, too. `was_cut_off`: some
        connection failed lately.
        """
        former = super().drop()
        self._failure = None
        failed, self._inbox.chain_failures[:] = self._inbox.chain_failures[:], []
        return former, _unwritten(failed, was_cut_off=was_cut_off)


def _is_given_back(fault: Fault) -> bool:
    """Say whether the client gave the record back since it was told to, or since it ended."""
    return fault.name in ("_PURGE_QUEUE", "_PURGE_INFLIGHT")


def _unwritten(failed: Sequence[Report], *, was_cut_off: bool) -> set[int]:
    """Return the ids of those that a broker refused for what they hold, and of those that were never sent.

    The client does not say whether what it gives back from its queue was sent before, lost its connection, and came
    back unanswered. What stands behind a refused batch of its partition was not, as one batch at a time is sent.
    """
    faults = [(report, report.error.fault) for report in failed if report.error is not None]
    refused = {_place(report) for report, fault in faults if fault.batch_wide}
    return {
        report.record.id
        for report, fault in faults
        if fault.batch_wide or (fault.name == "_PURGE_QUEUE" and (not was_cut_off or _place(report) in refused))
    }


def _place(report: Report) -> tuple[str, int | None]:
    return report.record.topic, report.partition
