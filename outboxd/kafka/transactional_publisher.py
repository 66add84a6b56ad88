"""The transactional publisher: the relay's broker port for exactly-once delivery.

Records gather while a transaction is under way on the worker thread; when it is through, all that gathered is the next one. So a
transaction is small and quick when little comes, and grows to its limits when much does. No other producer exists in this mode: a
suspect goes alone as a one-record transaction of the same `transactional.id`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from outboxd.errors import OutboxdError
from outboxd.kafka.client_config import DEFAULTS, record_bytes_max
from outboxd.kafka.inbox import Inbox
from outboxd.kafka.messages import MessageChecks
from outboxd.kafka.progress import UNSETTLED_MAX, ensure_topic, read_above
from outboxd.kafka.transactions import Transactions, TransactionsEndedError
from outboxd.policy.messages import DeliveryFault, Event, Recovered, RecoverFailed, Report
from outboxd.policy.records import Record

TRANSACTION_ROWS_MAX = 10_000
TRANSACTION_BYTES_MAX = 16 << 20
TRANSACTION_TIMEOUT_MS = 30_000


class TransactionalPublisher:
    """Implements the relay's `Publisher` with one transaction at a time."""

    def __init__(
        self,
        properties: Mapping[str, str],
        post: Callable[[Event], None],
        *,
        source: str,
        transactional_id: str,
        topic: str,
    ) -> None:
        """Make nothing that speaks to a broker yet: only an owner may, by `begin_recover`.

        Args:
            properties: the user's librdkafka properties.
            post: leaves `Recovered` or `RecoverFailed` in the relay's mailbox.
            source: the outbox's name.
            transactional_id: the shard's.
            topic: the progress topic.
        """
        self.inbox = Inbox()
        self.cluster_error: str | None = None
        self._properties = dict(properties)
        self._post = post
        self._transactional_id = transactional_id
        self._topic = topic
        self._checks = MessageChecks(source, record_bytes_max(properties))
        self._buffer: list[Record] = []
        self._buffer_bytes = 0
        self._reports: SimpleQueue[tuple[int | None, list[Report]]] = SimpleQueue()
        self._taken: list[tuple[int | None, list[Report]]] = []
        self._committed: int | None = None
        self._unsettled: set[int] = set()
        self._busy = False
        self._failure: DeliveryFault | None = None
        self._start_worker()

    def _start_worker(self) -> None:
        self._ended = threading.Event()
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._transactions = Transactions(
            self._make_producer,
            self._checks,
            self.inbox,
            topic=self._topic,
            is_wanted=lambda ended=self._ended: not ended.is_set(),  # type: ignore[misc]  # bound to this worker's life
        )
        threading.Thread(target=_work, args=(self._jobs,), name="transactions", daemon=True).start()

    def _make_producer(self) -> Producer:
        # `message.timeout.ms` follows the transaction's own time-out here: an expired record aborts its transaction whole.
        config: dict[str, Any] = {
            **DEFAULTS,
            "transaction.timeout.ms": TRANSACTION_TIMEOUT_MS,
            "queue.buffering.max.messages": 4 * TRANSACTION_ROWS_MAX,
            **self._properties,
            "enable.idempotence": True,
            "acks": "all",
            "transactional.id": self._transactional_id,
            "error_cb": self._on_error,
        }
        return Producer(config)

    def _on_error(self, error: KafkaError) -> None:
        self.cluster_error = f"{error.name()}: {error.str()}"

    # Recovery.

    def begin_recover(self, settled: int, lineage: str) -> None:
        """Fence whoever was before, and post what it committed above `settled`: nothing is relayed before it is settled."""
        self._busy = True
        transactions, ended = self._transactions, self._ended

        def recover() -> None:
            try:
                ensure_topic(self._properties, self._topic)
                transactions.fence()
                records = read_above(self._properties, self._topic, settled, lineage)
            except (KafkaException, OutboxdError) as error:
                if not ended.is_set():
                    self._post(RecoverFailed(str(error)))
                return
            number = records[-1].number if records else settled
            transactions.begin(lineage, number)
            if not ended.is_set():
                self._busy = False
                self._post(Recovered(number, [row for record in records for row in record.rows]))

        self._jobs.put(recover)

    # Publish.

    def publish(self, records: Sequence[Record], start: int) -> int:
        """Take records for the next transaction, from index `start` on; return the index of the first one not taken."""
        index = start
        for index in range(start, len(records)):
            if len(self._buffer) >= TRANSACTION_ROWS_MAX or self._buffer_bytes >= TRANSACTION_BYTES_MAX:
                self._hand_over()
                return index
            record = records[index]
            fault = self._checks.fault_of(record)
            if fault is not None:
                self._reports.put((None, [Report(record, fault, record.partition, None, True)]))
                continue
            self._buffer.append(record)
            self._buffer_bytes += record[9]
        self._hand_over()
        return len(records)

    def publish_alone(self, record: Record) -> bool:
        """Send one record as a transaction of its own, when none is under way."""
        if self._busy or self._buffer:
            return False
        self._buffer, self._buffer_bytes = [record], record.size_bytes
        self._hand_over()
        return True

    def _hand_over(self) -> None:
        if self._busy or not self._buffer or len(self._unsettled) >= UNSETTLED_MAX:
            return
        batch, self._buffer, self._buffer_bytes = self._buffer, [], 0
        self._busy = True
        transactions, reports, ended = self._transactions, self._reports, self._ended

        def job() -> None:
            try:
                done = transactions.deliver(batch)
            except TransactionsEndedError as failed:
                if not ended.is_set():
                    self._failure = failed.fault
                return
            reports.put((transactions.number, done))

        self._jobs.put(job)

    # Report.

    def poll(self, timeout_seconds: float) -> None:
        """Wait for a transaction's end, no longer than this; then let the next one begin."""
        if self._busy and not self._taken and timeout_seconds > 0:
            with suppress(Empty):
                self._taken.append(self._reports.get(timeout=timeout_seconds))
        while not self._reports.empty():
            self._taken.append(self._reports.get())
        if any(number is not None for number, _ in self._taken):
            self._busy = False
            self._hand_over()

    def take_reports(self) -> list[Report]:
        """Return the reports that came since the last call; those of one transaction come together."""
        taken, self._taken = self._taken, []
        for number, _ in taken:
            if number is not None:
                self._committed = number
                self._unsettled.add(number)
        return [report for _, reports in taken for report in reports]

    def committed(self) -> int | None:
        """Return the last transaction whose reports were taken since the last call, None when there is none."""
        committed, self._committed = self._committed, None
        return committed

    def settled(self, number: int) -> None:
        """All transactions up to this one are settled."""
        self._unsettled = {unsettled for unsettled in self._unsettled if unsettled > number}
        self._hand_over()

    # Failure and end.

    def failure(self) -> DeliveryFault | None:
        """Return what ended the producer, or None while it works."""
        return self._failure

    def rebuild(self) -> None:
        """Forget everything: a new worker waits for the recovery that must come first."""
        self._ended.set()
        self._transactions.purge()
        self._jobs.put(None)
        self._buffer, self._buffer_bytes, self._taken = [], 0, []
        self._reports = SimpleQueue()
        self._committed, self._unsettled = None, set()
        self._failure = None
        self._busy = True
        self.inbox.take()
        self._start_worker()

    def purge(self) -> None:
        """Drop what was not sent yet: the open transaction will never be committed."""
        self._ended.set()
        self._transactions.purge()

    def close(self) -> None:
        """End the worker; an open transaction is left to be aborted by the successor's recovery."""
        self.purge()
        self._jobs.put(None)

    def take_properties(
        self, properties: Mapping[str, str], *, in_flight_rows_max: int, in_flight_bytes_max: int
    ) -> None:
        """Build the next producer with these; it has limits of its own. May be called on any thread."""
        del in_flight_rows_max, in_flight_bytes_max
        self._properties = dict(properties)

    def contact(self, timeout_seconds: float) -> list[tuple[int, str]]:
        """Return the brokers as (id, address), asked by a client that takes part in no transaction."""
        from confluent_kafka.admin import AdminClient

        metadata = AdminClient(dict(self._properties)).list_topics(timeout=timeout_seconds)
        return [(broker.id, f"{broker.host}:{broker.port}") for broker in metadata.brokers.values()]


def _work(jobs: SimpleQueue[Callable[[], None] | None]) -> None:
    while (job := jobs.get()) is not None:
        job()
