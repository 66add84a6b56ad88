"""Transactions: one batch of records at a time, all or nothing, each with its progress record.

    deliver ──all acknowledged──▶ progress record ──▶ commit ──▶ delivered
       │ a record failed                                │ the answer never came: the same call again
       ▼                                                ▼ fenced or fatal
    abort, a new producer                            TransactionsEndedError: the owner resolves it by the progress topic
       │ one record: it is to blame           several with a batch-wide verdict: halved, and each half tried alone
       ▼                                                                                        in its turn
    its error

Within a transaction the keys are pipelined: order holds, since all of it becomes visible or none. When a record of a key is to
blame, later ones of its key are sent back, since only the relay knows whether the key goes on. After an abort that a poison record
caused, the next transaction on the same producer failed (measured), so a new one is taken.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from outboxd.errors import OutboxdError
from outboxd.kafka.inbox import Inbox, delivery_fault
from outboxd.kafka.messages import MessageChecks
from outboxd.kafka.partitions import PARTITION_CODES, partition_fault
from outboxd.kafka.progress import ProgressRecord, encode, progress_key
from outboxd.policy.faults import FaultClass, fault_of, own_fault
from outboxd.policy.messages import DeliveryFault, ProgressRow, Report
from outboxd.policy.records import Arm, Record

CALL_SECONDS = 10.0
CALLS_SECONDS_MAX = 60.0
POLL_SECONDS = 0.05

OTHERS_SECONDS = 0.2
CAUSELESS_ABORTS_MAX = 5


class TransactionsEndedError(OutboxdError):
    """The transactional producer cannot go on; what it had open is resolved by its successor's recovery."""

    def __init__(self, fault: DeliveryFault) -> None:
        super().__init__(f"{fault.fault.name}: {fault.text}")
        self.fault = fault


class _AbortedError(Exception):
    """The transaction was aborted; `faults` are the records' own errors by their ids, purges left out."""

    def __init__(self, faults: Mapping[int, DeliveryFault]) -> None:
        super().__init__("aborted")
        self.faults = faults


class Transactions:
    """Runs transactions one after the other, on the thread of whoever calls."""

    def __init__(
        self,
        make_producer: Callable[[], Producer],
        checks: MessageChecks,
        inbox: Inbox,
        *,
        topic: str,
        is_wanted: Callable[[], bool],
    ) -> None:
        """Make nothing yet; `begin` does.

        Args:
            make_producer: makes a producer with the shard's `transactional.id`.
            checks: the records' checks and headers.
            inbox: where the records' callbacks land; nobody else takes from it.
            topic: the progress topic.
            is_wanted: False when the owner wants no more: waiting ends then.
        """
        self._make_producer = make_producer
        self._checks = checks
        self._inbox = inbox
        self._topic = topic
        self._is_wanted = is_wanted
        self._producer: Producer | None = None
        self._lineage = ""
        self.number = 0

    def begin(self, lineage: str, number: int) -> None:
        """Go on after the transaction `number`, the last one that was committed; `fence` was called before."""
        self._lineage, self.number = lineage, number

    def fence(self) -> None:
        """Fence every producer before this one, so that the progress topic moves no more."""
        self._renew()

    def _renew(self) -> None:
        self._producer = self._make_producer()
        self._call(lambda seconds: self._current.init_transactions(seconds))

    @property
    def _current(self) -> Producer:
        if self._producer is None:
            raise AssertionError("begin() comes first")
        return self._producer

    def purge(self) -> None:
        """Drop what is queued: the transaction under way will be aborted or fenced."""
        if self._producer is not None:
            self._producer.purge(in_queue=True, in_flight=True, blocking=False)

    # Delivering.

    def deliver(self, records: Sequence[Record]) -> list[Report]:
        """Deliver records in as many transactions as their faults make necessary; return a report for each.

        Raises:
            TransactionsEndedError: the producer is fenced or failed; outcomes are unknown.
        """
        for _ in range(CAUSELESS_ABORTS_MAX):
            try:
                return self._one_transaction(records)
            except _AbortedError as aborted:
                self._renew()
                if aborted.faults:
                    return self._without_faults(records, aborted.faults)
        raise TransactionsEndedError(
            DeliveryFault(own_fault("NEVER_REPORTED"), "transactions were aborted again and again without a cause")
        )

    def _without_faults(self, records: Sequence[Record], faults: Mapping[int, DeliveryFault]) -> list[Report]:
        """Deliver what can be, after records had errors of their own: `faults` by record id."""
        blamed = {
            record_id: fault
            for record_id, fault in faults.items()
            if not (fault.fault.batch_wide and fault.fault.fault_class is FaultClass.ROW_PERMANENT)
        }
        # Without one to blame, a batch-wide verdict is halved until it meets one record: a batch is not a culprit.
        return self._report_blamed(records, blamed) if blamed else self._halves(records)

    def _report_blamed(self, records: Sequence[Record], blamed: Mapping[int, DeliveryFault]) -> list[Report]:
        """Report the blamed ones, send later ones of their keys back, and deliver the rest."""
        reports: list[Report] = []
        keys: set[tuple[str, str]] = set()
        rest: list[Record] = []
        for record in records:
            fault = blamed.get(record.id)
            if fault is not None:
                reports.append(Report(record, self._examined(record, fault), record.partition, None, True))
                if record.key is not None:
                    keys.add((record.topic, record.key))
            elif record.key is not None and (record.topic, record.key) in keys:
                reports.append(_sent_back(record))
            else:
                rest.append(record)
        return (self.deliver(rest) if rest else []) + reports

    def _halves(self, records: Sequence[Record]) -> list[Report]:
        middle = len(records) // 2
        first = self.deliver(records[:middle])
        failed = {(r.record.topic, r.record.key) for r in first if r.error is not None and r.record.key is not None}
        later = [record for record in records[middle:] if (record.topic, record.key) not in failed]
        back = [_sent_back(record) for record in records[middle:] if (record.topic, record.key) in failed]
        return first + (self.deliver(later) if later else []) + back

    def _examined(self, record: Record, fault: DeliveryFault) -> DeliveryFault:
        """A partition that fresh metadata does not list is the record's fault, else the topic's."""
        if record.partition is None or fault.fault.code not in PARTITION_CODES:
            return fault
        return partition_fault(self._current, record) or fault

    # One transaction.

    def _one_transaction(self, records: Sequence[Record]) -> list[Report]:
        producer = self._current
        self._inbox.take()
        self._call(lambda _: producer.begin_transaction())
        self._produce(producer, records)
        reports = self._await_reports(producer, len(records))
        rows = [
            ProgressRow(record.id, partition or 0, offset or 0, record.arm == Arm.REPLAY)
            for record, _, partition, offset, _ in reports
        ]
        number = self.number + 1
        try:
            value = encode(ProgressRecord(number, self._lineage, rows))
            producer.produce(self._topic, value, progress_key(number), partition=0)
            self._call(lambda seconds: producer.commit_transaction(seconds))
        except _MustAbortError as error:
            self._abort(producer)
            raise _AbortedError({}) from error
        self.number = number
        return reports

    def _produce(self, producer: Producer, records: Sequence[Record]) -> None:
        produce, headers_of = producer.produce, self._checks.headers
        for record in records:
            headers: Any = headers_of(record)
            partition = -1 if record[7] is None else record[7]
            created_at_ms = max(1, record[8])
            while True:
                try:
                    produce(
                        record[3],
                        record[5],
                        record[4],
                        partition,
                        record,  # type: ignore[arg-type]  # a record is its own callback, see Inbox
                        None,
                        created_at_ms,
                        headers,
                    )
                    break
                except BufferError:
                    self._poll(producer)
                except KafkaException as error:
                    self._inbox.put(Report(record, delivery_fault(error.args[0], alone=True), None, None, True))
                    break

    def _await_reports(self, producer: Producer, count: int) -> list[Report]:
        """Return the reports once all are in; abort at the first failure, and tell the records' own errors from purges."""
        reports: list[Report] = []
        failed_at: float | None = None
        while len(reports) < count:
            came = self._inbox.take()
            reports += came
            if failed_at is None and any(report[1] is not None for report in came):
                failed_at = time.monotonic()
            # The rest of a refused batch comes with it; waiting a little tells who else is suspect.
            if failed_at is not None and time.monotonic() - failed_at > OTHERS_SECONDS:
                break
            if len(reports) < count:
                self._poll(producer)
        faults = {report.record.id: report.error for report in reports if report.error is not None}
        if not faults:
            return reports
        self._abort(producer)
        own = {
            record_id: fault if count > 1 else _alone(fault)
            for record_id, fault in faults.items()
            if fault.fault.fault_class is not FaultClass.PRODUCER
        }
        raise _AbortedError(own)

    def _poll(self, producer: Producer) -> None:
        if not self._is_wanted():
            raise TransactionsEndedError(DeliveryFault(own_fault("NEVER_REPORTED"), "ownership ended"))
        try:
            producer.poll(POLL_SECONDS)
        except KafkaException as error:
            raise TransactionsEndedError(delivery_fault(error.args[0], alone=True)) from error

    def _abort(self, producer: Producer) -> None:
        try:
            self._call(lambda seconds: producer.abort_transaction(seconds))
        except _MustAbortError:
            # It could not even be aborted: the next producer's init does it.
            return

    def _call(self, call: Callable[[float], object]) -> None:
        """Make one transactional call to its end: a call that timed out, or may be repeated, is made again."""
        deadline = time.monotonic() + CALLS_SECONDS_MAX
        while True:
            try:
                call(CALL_SECONDS)
                return
            except KafkaException as failed:
                error: KafkaError = failed.args[0]
                if error.txn_requires_abort():
                    raise _MustAbortError(str(error)) from failed
                is_over = not self._is_wanted() or time.monotonic() >= deadline
                if error.fatal() or not error.retriable() or is_over:
                    raise TransactionsEndedError(delivery_fault(error, alone=True)) from failed


class _MustAbortError(Exception):
    """The library wants the transaction aborted."""


def _alone(fault: DeliveryFault) -> DeliveryFault:
    """The record was the only one of its transaction: a verdict on the batch is one on the record."""
    return DeliveryFault(fault_of(fault.fault.code, fault.fault.name, fault.text, alone=True), fault.text)


def _sent_back(record: Record) -> Report:
    fault = DeliveryFault(own_fault("SENT_BACK"), "an earlier row of its key failed in the same transaction")
    return Report(record, fault, None, None, True)
