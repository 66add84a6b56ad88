"""A transactional client: one transaction at a time, from its begin to its commit or abort.

    begin ──produce──▶ all acknowledged ──progress record──▶ commit ──▶ delivered
                            │ records failed                  │ the answer never came: the same call again
                            ▼                                 ▼ fenced or fatal
                     abort: AbortedError               TransactionsEndedError

A new producer fences all others, a rightful successor's too, when this process was frozen in between. So nothing
goes by it before the progress topic shows that nobody committed meanwhile: what was to be sent might be there
already.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from outboxd.kafka.client.client_config import TRANSACTION_TIMEOUT_MS
from outboxd.kafka.client.former_producers import destroy, serve_last_reports
from outboxd.kafka.cluster.partitions import MostPartitions, is_doubtful, partition_fault
from outboxd.kafka.inbox import delivery_fault, refusal_fault
from outboxd.kafka.messages import MessageChecks
from outboxd.kafka.transactional.aborts import AbortedError, progress_refusal, topics_refusal
from outboxd.kafka.transactional.progress import ProgressBody, ProgressRecord, decode, progress_key
from outboxd.kafka.transactional.transactional_producer import (
    POLL_SECONDS,
    MustAbortError,
    TransactionalProducer,
    TransactionsEndedError,
    given_up,
)
from outboxd.kafka.transactional.verdicts import Attempt, Faults, Way
from outboxd.policy.exchange.messages import DeliveryFault, ProgressRow, Report, error_of
from outboxd.policy.faults import FaultClass, fault_of, own_fault
from outboxd.policy.rows.records import Record

REPORTS_SECONDS_MAX = 12.0
PROBE_SECONDS_MAX = 3.0
"""A topic that failed before gets a transaction of its own, and less patience: all others wait meanwhile."""
ANSWER_SECONDS = 2.0
REPORTS_SLICE_SECONDS = 0.005
"""What was reported so far is noted at first so often, then ever less."""
OTHERS_SECONDS = 0.05
"""The rest of a refused batch comes with its first record: so long tells who else is suspect."""

MakeProducer = Callable[[Way], Producer]
ReadAbove = Callable[[int, str], Sequence[ProgressRecord]]


class TransactionClient:
    """Holds one producer at a time. All but `purge` is called on one thread."""

    def __init__(
        self,
        make_producer: MakeProducer,
        checks: MessageChecks,
        *,
        topic: str,
        read_above: ReadAbove,
        is_wanted: Callable[[], bool],
        timeout_seconds: float = TRANSACTION_TIMEOUT_MS / 1000,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make nothing yet; `fence` does.

        Args:
            make_producer: makes a producer with the shard's `transactional.id`.
            checks: the records' checks and headers.
            topic: the progress topic.
            read_above: reads the committed progress records above a number, of one lineage.
            is_wanted: False when the owner wants no more: waiting ends then.
            timeout_seconds: the producers' `transaction.timeout.ms`, in seconds.
            monotonic: the clock that all waiting is measured by.
        """
        self._make_producer = make_producer
        self._checks = checks
        self.topic = topic
        self._read_above = read_above
        self.is_wanted = is_wanted
        self._timeout_seconds = timeout_seconds
        self._monotonic = monotonic
        self._most_partitions = MostPartitions()
        self._producer: TransactionalProducer | None = None
        self._way = Way.SHARED
        self._lineage = ""
        self._attempt: bytes | None = None
        """The last progress record that was to be committed."""
        self.number = 0
        """The last transaction that was committed."""

    # Producers.

    def fence(self) -> None:
        """Fence every producer before this one, so that the progress topic moves no more."""
        self._take_producer(Way.SHARED)

    def begin(self, lineage: str, number: int) -> None:
        """Go on after the transaction `number`, the last one that was committed; `fence` was called before."""
        self._lineage, self.number = lineage, number

    def _take_producer(self, way: Way) -> None:
        self.drop_producer()
        if not self.is_wanted():
            raise given_up()
        self._way = way
        # It is there for `purge` while it fences.
        producer = self._producer = TransactionalProducer(
            self._make_producer(way),
            is_wanted=self.is_wanted,
            timeout_seconds=self._timeout_seconds,
            monotonic=self._monotonic,
        )
        producer.fence()

    def drop_producer(self) -> None:
        """Let go of the producer; the next transaction takes a new one."""
        if self._producer is not None:
            former, self._producer = [self._producer], None
            serve_last_reports(former[0].client)
            # Nobody looks into its inbox any more, which its type of record keeps until cycles are looked for.
            former[0].inbox.take()
            destroy(former)

    def _producer_for(self, way: Way) -> TransactionalProducer:
        if self._producer is None or self._way is not way:
            self._take_producer(way)
            newer = self._read_above(self.number, self._lineage)
            if newer:
                raise TransactionsEndedError(self._overtaken(newer))
        if self._producer is None:
            raise AssertionError("a producer was just taken")
        return self._producer

    def _overtaken(self, newer: Sequence[ProgressRecord]) -> DeliveryFault:
        """Say who committed these: another producer, or this one, though its client had that aborted."""
        number = newer[-1].number
        if self._attempt is not None and newer == [decode(self._attempt)]:
            return DeliveryFault(
                own_fault("NEVER_REPORTED"), f"transaction {number} went through, and was to be aborted"
            )
        text = f"another producer committed transaction {number} after {self.number}"
        return DeliveryFault(fault_of(KafkaError._FENCED), text)

    def serve(self) -> None:
        """Let the idle producer tell its news. Raises TransactionsEndedError when it was fenced meanwhile."""
        if self._producer is not None:
            self._producer.serve()

    def purge(self) -> None:
        """Drop what is queued: the transaction under way will be aborted or fenced. May be called on any thread."""
        producer = self._producer
        if producer is not None:
            producer.purge()

    def abandon(self) -> None:
        """Nobody wants more: spare the readers the wait for the time-out of what is open."""
        if self._producer is not None:
            self._producer.abandon()

    # What it knows of topics.

    def topic_fault(self, topic: str) -> DeliveryFault | None:
        """Return why the topic cannot be written to; None where it can, or where nobody knows."""
        try:
            found = self._producer_for(self._way).client.list_topics(topic, timeout=ANSWER_SECONDS).topics.get(topic)
        except KafkaException:
            return None
        if found is not None:
            self._most_partitions.note(topic, len(found.partitions))
        if found is None or found.error is None:
            return None
        # The name alone is looked up: the topic's own verdict, not one on a record.
        fault = fault_of(found.error.code(), found.error.name(), found.error.str())
        return delivery_fault(found.error, alone=True) if fault.fault_class is FaultClass.TOPIC else None

    def examined(self, record: Record, fault: DeliveryFault) -> DeliveryFault:
        """A partition that fresh metadata does not list, and never did, is the record's fault, else the topic's."""
        if not is_doubtful(record, fault):
            return fault
        return partition_fault(self._producer_for(self._way).client, record, self._most_partitions) or fault

    # One transaction.

    def transact(self, part: Attempt, restated: Sequence[ProgressRow]) -> list[Report]:
        """Deliver these records in one transaction, with its progress record, which states these rows of earlier ones
        too; return their reports.

        Raises:
            AbortedError: nothing of it is visible; its `faults` say which records are to blame, if any.
            TransactionsEndedError: the producer is fenced or failed; the outcome is unknown.
        """
        producer = self._producer_for(part.way)
        producer.begin()
        self._produce(producer, part.records)
        body = ProgressBody()
        reports = self._await_reports(producer, part, body)
        body.add_restated(restated)
        number = self.number + 1
        value = self._attempt = body.value(number, self._lineage)
        try:
            producer.client.produce(self.topic, value, progress_key(number), partition=0)
            producer.commit()
        except MustAbortError as error:
            producer.abort()
            refusal = progress_refusal(self.topic, error.error)
            raise AbortedError({}, spoilt_by=error.error, refusal=refusal) from error
        except KafkaException as error:
            raise producer.ended(error.args[0]) from error
        self.number = number
        return reports

    def _produce(self, producer: TransactionalProducer, records: Iterable[Record]) -> None:
        produce, headers_of, partition_of = producer.client.produce, self._checks.headers, self._checks.partition_of
        # A copy that reports to this producer's inbox and to no other.
        as_reporting = partial(tuple.__new__, producer.inbox.record_type)
        for record in records:
            headers: Any = headers_of(record)
            partition = partition_of(record)
            created_at_ms = max(1, record[8])
            while True:
                try:
                    produce(
                        record[3],
                        record[5],
                        record[4],
                        partition,
                        as_reporting(record),  # type: ignore[arg-type]  # a record is its own callback, see Inbox
                        None,
                        created_at_ms,
                        headers,
                    )
                    break
                except BufferError:
                    producer.flush()
                    if producer.inbox.has_failures:
                        # The transaction is to be aborted, and a client in that state sends nothing more.
                        return
                except KafkaException as error:
                    _refused(producer, record, error.args[0])
                    break
                except (TypeError, ValueError) as error:
                    producer.inbox.put(Report(record, refusal_fault(error), None, None, True))
                    break

    def _await_reports(self, producer: TransactionalProducer, part: Attempt, body: ProgressBody) -> list[Report]:
        """Return the reports once all are in, and `body` with them. Else abort, and tell the records' own errors from
        mere purges.
        """
        reports: list[Report] = []
        count = len(part.records)
        until = self._monotonic() + (PROBE_SECONDS_MAX if part.is_probe else REPORTS_SECONDS_MAX)
        has_failed = False
        slice_seconds = REPORTS_SLICE_SECONDS
        while len(reports) < count:
            came = producer.inbox.take()
            reports += came
            now = self._monotonic()
            if not has_failed and any(map(error_of, came)):
                has_failed, until = True, min(until, now + OTHERS_SECONDS)
            if not has_failed:
                # While the brokers are at the others.
                body.add(came)
            if now >= until:
                break
            if len(reports) < count:
                producer.flush(slice_seconds)
                slice_seconds = min(2 * slice_seconds, POLL_SECONDS)
        faults: Faults = {report.record.id: report.error for report in reports if report.error is not None}
        if not faults and len(reports) == count:
            return reports
        passed = frozenset(report.record.id for report in reports if report.error is None)
        if not faults:
            faults = self._unanswered(producer, part.records, passed)
        own = {each: fault for each, fault in faults.items() if fault.fault.fault_class is not FaultClass.PRODUCER}
        spoilt_by = None if own else producer.why_spoilt()
        producer.abort()
        raise AbortedError(own, passed, spoilt_by=spoilt_by, refusal=topics_refusal(spoilt_by))

    def _unanswered(self, producer: TransactionalProducer, records: Sequence[Record], passed: frozenset[int]) -> Faults:
        """No verdict came in time: the topics' fault where brokers answer at all, else nobody's."""
        try:
            producer.client.list_topics(self.topic, timeout=ANSWER_SECONDS)
        except KafkaException as error:
            raise producer.ended(error.args[0]) from error
        text = "no broker confirmed the record in time"
        fault = DeliveryFault(fault_of(KafkaError._MSG_TIMED_OUT, "_MSG_TIMED_OUT"), text)
        return {record.id: fault for record in records if record.id not in passed}


def _refused(producer: TransactionalProducer, record: Record, error: KafkaError) -> None:
    if error.fatal():
        raise producer.ended(error)
    producer.inbox.put(Report(record, delivery_fault(error, alone=True), None, None, True))
