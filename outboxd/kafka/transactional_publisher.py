"""The transactional publisher: the relay's broker port for exactly-once delivery.

Records gather while a transaction is under way on the worker thread; when it is through, the worker goes on with all
that gathered, while the relay takes the reports. So a transaction is small and quick when little comes, and grows to
its limits when much does. No other producer exists in this mode: a suspect goes one record a batch in a transaction
of the same `transactional.id`.

When a record fails, the worker waits for the relay, and all that gathered behind it goes back: the relay may hold the
key or the topic by then.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue

from confluent_kafka import KafkaError, Producer
from confluent_kafka.admin import AdminClient

from outboxd.kafka.acknowledged import AcknowledgedPlaces, OnLost
from outboxd.kafka.client_config import CLIENT_LOGGER, DEFAULTS, record_bytes_max, transactional_config
from outboxd.kafka.inbox import Inbox, clearer_failure
from outboxd.kafka.messages import MessageChecks
from outboxd.kafka.progress import (
    UNSETTLED_MAX,
    ProgressMissingError,
    ProgressRecord,
    ensure_topic,
    progress_topic,
    read_above,
    rows_max,
    transactional_id,
)
from outboxd.kafka.transaction_client import TransactionClient
from outboxd.kafka.transaction_worker import Jobs, told, work_off
from outboxd.kafka.transactional_producer import TRANSACTION_TIMEOUT_MS, TransactionsEndedError
from outboxd.kafka.transactions import Transactions
from outboxd.kafka.verdicts import Way, sent_back
from outboxd.policy.messages import DeliveryFault, Event, Recovered, RecoverFailed, Report, TransactionEnded, error_of
from outboxd.policy.records import Record
from outboxd.policy.transaction_size import TransactionSize
from outboxd.stopwatch import Stopwatch

TRANSACTION_ROWS_MAX = 10_000
TRANSACTION_BYTES_MAX = 16 << 20
NEW_TOPIC_SECONDS = 5.0
NEW_TOPIC_PAUSE_SECONDS = 0.1
CLOSING_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class _Ended:
    """A batch is through. `number` is its last transaction, None where nothing of it was committed."""

    reports: list[Report]
    number: int | None
    has_failed: bool


class TransactionalPublisher:
    """Implements the relay's `Publisher` with one transaction at a time."""

    def __init__(
        self,
        properties: Mapping[str, str],
        post: Callable[[Event], None],
        *,
        source: str,
        schema: str,
        on_lost: OnLost | None = None,
    ) -> None:
        """Make nothing that speaks to a broker yet: only an owner may, by `begin_recover`.

        Args:
            properties: the user's librdkafka properties.
            post: leaves `Recovered`, `RecoverFailed` or `TransactionEnded` in the relay's mailbox.
            source: the outbox's name.
            schema: that of outboxd's tables; with the database's name, see `name_after`, it makes the names in Kafka.
            on_lost: is told, on another thread, of acknowledged records that are gone: topic, partition, and how many
                at least.
        """
        self.inbox = Inbox()
        self._acknowledged = None if on_lost is None else AcknowledgedPlaces(lambda: self._properties, source, on_lost)
        self.cluster_error: str | None = None
        self._properties = dict(properties)
        self._post = post
        self._outbox, self._schema = source, schema
        self._transactional_id = ""
        self._topic = ""
        record_bytes = record_bytes_max(properties)
        self._checks = MessageChecks(source, record_bytes)
        self._size = TransactionSize(min(TRANSACTION_ROWS_MAX, rows_max(record_bytes)), TRANSACTION_BYTES_MAX)
        # Between a worker's word to the relay and the end of its life: nobody hears of a worker that is gone, and what
        # gathers, `_busy` and `_unsettled` are both threads'.
        self._lock = threading.Lock()
        self._admin: AdminClient | None = None
        self._forget()
        self._start_worker()

    def _forget(self) -> None:
        self._buffer: list[Record] = []
        self._buffer_bytes = 0
        self._refusals: list[Report] = []
        self._ended_batches: SimpleQueue[_Ended] = SimpleQueue()
        self._taken: list[_Ended] = []
        self._committed: int | None = None
        self._unsettled: set[int] = set()
        self._busy = True
        self._failure: DeliveryFault | None = None

    def _start_worker(self) -> None:
        self._gone = gone = threading.Event()
        self._jobs = self._make_jobs()
        self._watch = watch = Stopwatch()

        def is_wanted() -> bool:
            # Whatever waits asks this between two calls of the client, which have time limits of their own.
            watch.lap()
            return not gone.is_set()

        self._client = client = TransactionClient(
            self._make_producer,
            self._checks,
            topic=self._topic,
            read_above=self._read_above,
            is_wanted=is_wanted,
            timeout_seconds=self._timeout_ms / 1000,
            monotonic=self._monotonic,
        )
        self._transactions = Transactions(client)
        self._begin(partial(work_off, self._jobs, client.serve, self._fails_of(gone), watch))

    # Time, queue and thread: a simulation has its own.

    def _monotonic(self) -> float:
        return time.monotonic()

    def _make_jobs(self) -> Jobs:
        return SimpleQueue()

    def _begin(self, work: Callable[[], None]) -> None:
        self._worker = threading.Thread(target=work, name="transactions", daemon=True)
        self._worker.start()

    # The worker's words to the relay.

    def _fails_of(self, gone: threading.Event) -> Callable[[DeliveryFault], None]:
        def fail(fault: DeliveryFault) -> None:
            with self._lock:
                if not gone.is_set():
                    self._failure = fault
                    self._post(TransactionEnded())

        return fail

    def _answer(self, gone: threading.Event, event: Event) -> None:
        with self._lock:
            if not gone.is_set():
                self._busy = isinstance(event, RecoverFailed)
                self._post(event)

    def name_after(self, database: str) -> None:
        """Take the database's own name for it, before the first recovery. May be called on any thread.

        A configured name may be a pooler's: two daemons on two ways to one database have to fence each other.
        """
        self._transactional_id = transactional_id(database, self._schema, self._outbox)
        self._topic = self._client.topic = progress_topic(database, self._schema, self._outbox)

    # Clients.

    @property
    def _timeout_ms(self) -> int:
        return int(self._properties.get("transaction.timeout.ms", TRANSACTION_TIMEOUT_MS))

    def _make_producer(self, way: Way) -> Producer:
        config = transactional_config(
            self._properties,
            transactional_id=self._transactional_id,
            timeout_ms=self._timeout_ms,
            rows_max=TRANSACTION_ROWS_MAX,
            is_lone=way is Way.LONE,
        )
        return Producer({**config, "error_cb": self._on_error}, logger=CLIENT_LOGGER)

    def _on_error(self, error: KafkaError) -> None:
        self.cluster_error = clearer_failure(self.cluster_error, error)

    def _read_above(self, number: int, lineage: str) -> Sequence[ProgressRecord]:
        return read_above(self._properties, self._topic, number, lineage)

    # Recovery.

    def begin_recover(self, settled: int, lineage: str) -> None:
        """Fence the owner before, and post what it committed above `settled`: that is settled before anything goes."""
        self._busy = True
        client, gone = self._client, self._gone

        def recover() -> None:
            try:
                recovered = self._recover(client, gone, settled, lineage)
            except Exception as error:  # noqa: BLE001 - the relay begins again and says why, whatever it is
                self._answer(gone, RecoverFailed(told(error)))
            else:
                self._answer(gone, recovered)

        self._jobs.put(recover)

    def _recover(self, client: TransactionClient, gone: threading.Event, settled: int, lineage: str) -> Recovered:
        client.fence()
        try:
            records = self._read_above(settled, lineage)
        except ProgressMissingError:
            if settled:
                raise
            ensure_topic(self._properties, self._topic)
            records = self._read_new(gone, settled, lineage)
        number = records[-1].number if records else settled
        client.begin(lineage, number)
        return Recovered(number, [row for record in records for row in record.rows])

    def _read_new(self, gone: threading.Event, settled: int, lineage: str) -> Sequence[ProgressRecord]:
        """Read a topic that was just made: not every broker may know it yet."""
        deadline = time.monotonic() + NEW_TOPIC_SECONDS
        while True:
            try:
                return self._read_above(settled, lineage)
            except ProgressMissingError:
                if gone.wait(NEW_TOPIC_PAUSE_SECONDS) or time.monotonic() > deadline:
                    raise

    # Publish.

    def publish(self, records: Sequence[Record], start: int) -> int:
        """Take records for the next transaction, from index `start` on; return the index of the first one not taken."""
        # The worker may take what gathered meanwhile: there is never less room than is seen here.
        rows_free = self._size.rows - len(self._buffer)
        bytes_free = self._size.size_bytes - self._buffer_bytes
        refused_keys: set[tuple[str, str | None]] = set()
        accepted: list[Record] = []
        accepted_bytes = 0
        taken = start
        for record in records[start:]:
            if len(accepted) >= rows_free or accepted_bytes >= bytes_free:
                break
            taken += 1
            fault = self._checks.fault_of(record)
            if fault is not None:
                self._refusals.append(Report(record, fault, record.partition, None, True))
                refused_keys.add((record.topic, record.key))
            elif refused_keys and record.key is not None and (record.topic, record.key) in refused_keys:
                # Whether its key goes on, only the relay knows.
                self._refusals.append(sent_back(record))
            else:
                accepted.append(record)
                accepted_bytes += record[9]
        with self._lock:
            self._buffer += accepted
            self._buffer_bytes += accepted_bytes
        self._hand_over()
        return taken

    def publish_alone(self, record: Record) -> bool:
        """Take one record for a batch of its own in the next transaction."""
        self._transactions.suspect(record.id)
        return self.publish([record], 0) == 1

    def _hand_over(self) -> None:
        """Give the worker what gathered, where it waits for that."""
        with self._lock:
            if not self._busy:
                self._go_on()

    def _go_on(self) -> None:
        """Make all that gathered the worker's next job, on either thread, under the lock."""
        self._busy = bool(self._buffer) and len(self._unsettled) < UNSETTLED_MAX
        if self._busy:
            batch, self._buffer, self._buffer_bytes = self._buffer, [], 0
            self._jobs.put(partial(self._deliver, batch, self._transactions, self._gone))

    def _deliver(self, batch: Sequence[Record], transactions: Transactions, gone: threading.Event) -> None:
        """The worker's job: deliver the batch; then go on with what gathered meanwhile, unless a record failed."""
        began_at, former = self._monotonic(), transactions.client.number
        try:
            reports = transactions.deliver(batch)
        except TransactionsEndedError as failed:
            self._fails_of(gone)(failed.fault)
            return
        number = transactions.client.number if transactions.client.number > former else None
        ended = _Ended(reports, number, has_failed=any(map(error_of, reports)))
        with self._lock:
            if gone.is_set():
                return
            self._size.took(self._monotonic() - began_at)
            if number is not None:
                self._unsettled.add(number)
            self._ended_batches.put(ended)
            if not ended.has_failed:
                self._go_on()
        self._post(TransactionEnded())

    # Report.

    def poll(self, timeout_seconds: float) -> None:
        """Wait for a transaction's end, no longer than this."""
        if self._busy and not self._taken and timeout_seconds > 0:
            with suppress(Empty):
                self._taken.append(self._ended_batches.get(timeout=timeout_seconds))
        while not self._ended_batches.empty():
            self._taken.append(self._ended_batches.get())

    def flush(self, timeout_seconds: float) -> None:
        """Wait for a transaction's end: its commit waits for nothing more anyway."""
        self.poll(timeout_seconds)

    def take_reports(self) -> list[Report]:
        """Return the reports that came since the last call; those of one transaction come together."""
        if not self._taken and not self._refusals:
            return []
        taken, self._taken = self._taken, []
        refusals, self._refusals = self._refusals, []
        reports = [report for ended in taken for report in ended.reports]
        if reports and self._acknowledged is not None:
            self._acknowledged.note(reports)
        for ended in taken:
            if ended.number is not None:
                self._committed = ended.number
        if any(ended.has_failed for ended in taken):
            # What gathered behind a failed record passes the relay's gates once more.
            with self._lock:
                self._busy = False
                gathered, self._buffer, self._buffer_bytes = self._buffer, [], 0
            reports += map(sent_back, gathered)
        return reports + refusals

    def committed(self) -> int | None:
        """Return the last transaction whose reports were taken since the last call, None when there is none."""
        committed, self._committed = self._committed, None
        return committed

    def settled(self, number: int) -> None:
        """All transactions up to this one are settled."""
        with self._lock:
            self._unsettled = {unsettled for unsettled in self._unsettled if unsettled > number}
        self._hand_over()

    # Failure and end.

    def stuck_seconds(self) -> float:
        """Return for how long the worker's job has not advanced; 0 while it has none. May be called on any thread."""
        return self._watch.seconds()

    def failure(self) -> DeliveryFault | None:
        """Return what ended the producer, or None while it works."""
        return self._failure

    def rebuild(self) -> None:
        """Forget everything: a new worker waits for the recovery that must come first."""
        self.purge()
        self._jobs.put(None)
        if self._failure is not None and self._acknowledged is not None:
            # Whatever it was, it may have been the log that went back.
            self._acknowledged.suspect()
        self._forget()
        self._start_worker()

    def purge(self) -> None:
        """Drop what was not sent yet: the open transaction will never be committed."""
        with self._lock:
            self._gone.set()
        self._client.purge()

    def close(self) -> None:
        """End the worker. An open transaction is aborted, so that readers need not wait for its time-out."""
        self.purge()
        self._jobs.put(None)
        if self._acknowledged is not None:
            self._acknowledged.close()
        self._worker.join(CLOSING_SECONDS)

    def take_properties(
        self, properties: Mapping[str, str], *, in_flight_rows_max: int, in_flight_bytes_max: int
    ) -> None:
        """Build the next producer with these; it has limits of its own. May be called on any thread."""
        del in_flight_rows_max, in_flight_bytes_max
        self._properties = dict(properties)
        self._admin = None

    def contact(self, timeout_seconds: float) -> list[tuple[int, str]]:
        """Return the brokers as (id, address), asked by a client that takes part in no transaction."""
        admin = self._admin or AdminClient(
            {**DEFAULTS, **self._properties, "client.id": "outboxd-contact"}, logger=CLIENT_LOGGER
        )
        self._admin = admin
        metadata = admin.list_topics(timeout=timeout_seconds)
        self.cluster_error = None
        return [(broker.id, f"{broker.host}:{broker.port}") for broker in metadata.brokers.values()]
