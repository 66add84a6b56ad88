"""The transactional publisher: the relay's broker port for exactly-once delivery.

Records gather while a transaction is under way on the worker thread; when it is through, the worker goes on with all
that gathered, while the relay takes the reports. So a transaction is small and quick when little comes, and grows to
its limits when much does. No other producer exists in this mode: a suspect goes one record a batch in a transaction
of the same `transactional.id`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from queue import SimpleQueue

from outboxd.kafka.client.client_config import empty_key_partition, record_bytes_max
from outboxd.kafka.cluster.acknowledged import AcknowledgedPlaces, OnLost
from outboxd.kafka.inbox import Inbox
from outboxd.kafka.messages import MessageChecks
from outboxd.kafka.transactional.handover import EndedBatch, Handover
from outboxd.kafka.transactional.no_chains import NoChains
from outboxd.kafka.transactional.progress import restated_max, rows_max
from outboxd.kafka.transactional.refusals import Refusals, key_of
from outboxd.kafka.transactional.shard_clients import ShardClients
from outboxd.kafka.transactional.transaction_client import TransactionClient
from outboxd.kafka.transactional.transaction_recovery import Recovery
from outboxd.kafka.transactional.transaction_worker import Jobs, told, work_off
from outboxd.kafka.transactional.transactions import Transactions
from outboxd.kafka.transactional.verdicts import sent_back
from outboxd.policy.exchange.messages import DeliveryFault, Event, ProgressRow, RecoverFailed, Report
from outboxd.policy.rows.records import Record
from outboxd.policy.rows.transaction_size import TransactionSize
from outboxd.stopwatch import Stopwatch

TRANSACTION_ROWS_MAX = 10_000
TRANSACTION_BYTES_MAX = 16 << 20
CLOSING_SECONDS = 3.0


class TransactionalPublisher(NoChains):
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
        self._clients = clients = self._make_clients(properties, source, schema)
        self._acknowledged = (
            None if on_lost is None else AcknowledgedPlaces(lambda: clients.properties, source, on_lost)
        )
        self._post = post
        record_bytes = record_bytes_max(properties)
        self._checks = MessageChecks(source, record_bytes, empty_key_partition(properties))
        self._restated_max = restated_max(record_bytes)
        rows = rows_max(record_bytes) - self._restated_max
        self._size = TransactionSize(min(TRANSACTION_ROWS_MAX, rows), TRANSACTION_BYTES_MAX)
        self._forget()
        self._start_worker()

    def _forget(self) -> None:
        self._taken: list[EndedBatch] = []
        self._committed: int | None = None
        self._restated: tuple[int, Sequence[ProgressRow]] = (0, ())

    def _start_worker(self) -> None:
        gone = threading.Event()
        self._jobs = self._make_jobs()
        self._watch = watch = Stopwatch()

        def is_wanted() -> bool:
            # Whatever waits asks this between two calls of the client, which have time limits of their own.
            watch.lap()
            return not gone.is_set()

        clients = self._clients
        self._client = client = TransactionClient(
            clients.make_producer,
            self._checks,
            topic=clients.topic,
            read_above=clients.read_above,
            is_wanted=is_wanted,
            timeout_seconds=clients.timeout_ms / 1000,
            monotonic=self._monotonic,
        )
        self._recovery = Recovery(client, clients, gone)
        self._transactions = Transactions(client)
        self._handover = Handover(
            self._transactions, self._jobs, gone, self._size, post=self._post, monotonic=self._monotonic
        )
        self._refusals = Refusals(self._handover.keys)
        self._begin(partial(work_off, self._jobs, client.serve, self._handover.fail, watch))

    # Clients, time, queue and thread: a simulation has its own.

    def _make_clients(self, properties: Mapping[str, str], source: str, schema: str) -> ShardClients:
        return ShardClients(properties, source=source, schema=schema, rows_max=TRANSACTION_ROWS_MAX)

    def _monotonic(self) -> float:
        return time.monotonic()

    def _make_jobs(self) -> Jobs:
        return SimpleQueue()

    def _begin(self, work: Callable[[], None]) -> None:
        self._worker = threading.Thread(target=work, name="transactions", daemon=True)
        self._worker.start()

    # Recovery.

    def name_after(self, database: str) -> None:
        """Take the database's own name for it, before the first recovery. May be called on any thread."""
        self._clients.name_after(database)
        self._client.topic = self._clients.topic

    def begin_recover(self, settled: int, lineage: str) -> None:
        """Fence the owner before, and post what it committed above `settled`: that is settled before anything goes."""
        handover, recovery = self._handover, self._recovery
        handover.await_recovery()

        def recover() -> None:
            try:
                recovered = recovery.recover(settled, lineage)
            except Exception as error:  # noqa: BLE001 - the relay begins again and says why, whatever it is
                handover.answer(RecoverFailed(told(error)))
            else:
                handover.answer(recovered)

        self._jobs.put(recover)

    # Publish.

    def publish(self, records: Sequence[Record], start: int) -> int:
        """Take records for the next transaction, from index `start` on; return the index of the first one not taken."""
        rows_free, bytes_free = self._handover.room()
        refusals = self._refusals
        stopped_keys = refusals.begin()
        accepted: list[Record] = []
        accepted_bytes = 0
        taken = start
        for record in records[start:]:
            if len(accepted) >= rows_free or accepted_bytes >= bytes_free:
                break
            taken += 1
            if stopped_keys and key_of(record) in stopped_keys:
                # Whether its key goes on, only the relay knows: what else would be refused waits for that, too.
                refusals.put_behind(record)
                continue
            fault = self._checks.fault_of(record)
            if fault is not None:
                refusals.add(record, fault, accepted)
            else:
                accepted.append(record)
                accepted_bytes += record[9]
        self._handover.add(accepted, accepted_bytes)
        return taken

    def placement(self, topic: str) -> None:
        """Tell nothing: one stuck partition stops its whole transaction, so that nobody asks where records go."""

    def is_missing(self, topic: str) -> bool:
        """Say no: such a record never waits, since it is refused before its transaction begins."""
        del topic
        return False

    def misplaced(self, topic: str) -> None:
        """Nothing was foretold."""

    def publish_alone(self, record: Record) -> bool:
        """Take one record for a batch of its own in the next transaction."""
        self._transactions.suspect(record.id)
        return self.publish([record], 0) == 1

    # Report.

    def questioned(self) -> set[int]:
        """Return nothing: a report of a transaction comes when all is known."""
        return set()

    def poll(self, timeout_seconds: float) -> None:
        """Wait for a transaction's end, no longer than this."""
        self._handover.await_ended(self._taken, timeout_seconds)

    def flush(self, timeout_seconds: float) -> None:
        """Wait for a transaction's end: its commit waits for nothing more anyway."""
        self.poll(timeout_seconds)

    def take_reports(self) -> list[Report]:
        """Return the reports that came since the last call; those of one transaction come together."""
        if not self._taken and not self._refusals.ready and self._handover.ended.empty():
            return []
        keys_before = self._handover.take_ended(self._taken) if self._refusals else set()
        taken, self._taken = self._taken, []
        reports = [report for ended in taken for report in ended.reports]
        if any(ended.number is not None for ended in taken):
            self._clients.failure.clear()
        if reports and self._acknowledged is not None:
            self._acknowledged.note(reports)
        for ended in taken:
            if ended.number is not None:
                self._committed = ended.number
                if ended.restated:
                    self._restated = (ended.number, ended.restated)
        failed_parts = sum(ended.has_failed for ended in taken)
        if failed_parts:
            # What gathered behind a failed record passes the relay's gates once more.
            reports += map(sent_back, self._handover.take_back(failed_parts))
        return reports + self._refusals.take(reports, keys_before)

    def committed(self) -> int | None:
        """Return the last transaction whose reports were taken since the last call, None when there is none."""
        committed, self._committed = self._committed, None
        return committed

    def restate(self, rows: Sequence[ProgressRow]) -> None:
        """These rows of transactions cannot be settled: state them in later progress records too."""
        # A part of them would be of no use.
        self._handover.restate(rows if len(rows) <= self._restated_max else ())

    def restated(self) -> tuple[int, Sequence[ProgressRow]]:
        """Return the last transaction, of those told, whose progress record states such rows, and these."""
        restated, self._restated = self._restated, (0, ())
        return restated

    def settled(self, number: int) -> None:
        """All transactions up to this one are settled."""
        self._handover.settled(number)

    # Failure and end.

    def stuck_seconds(self) -> float:
        """Return for how long the worker's job has not advanced; 0 while it has none. May be called on any thread."""
        return self._watch.seconds()

    def failure(self) -> DeliveryFault | None:
        """Return what ended the producer, or None while it works."""
        return self._handover.failure

    def rebuild(self) -> None:
        """Forget everything: a new worker waits for the recovery that must come first."""
        self.purge()
        # The worker's last job, since its producer has to be let go of in order.
        self._jobs.put(self._client.drop_producer)
        self._jobs.put(None)
        if self._handover.failure is not None and self._acknowledged is not None:
            # Whatever it was, it may have been the log that went back.
            self._acknowledged.suspect()
        self._forget()
        self._start_worker()

    def purge(self) -> None:
        """Drop what was not sent yet: the open transaction will never be committed."""
        self._handover.end()
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
        self._clients.take_properties(properties)
        self._checks.empty_key_partition = empty_key_partition(properties)

    def contact(self, timeout_seconds: float) -> str | None:
        """Return the cluster's id, if it has one, asked by a client that takes part in no transaction."""
        return self._clients.contact(timeout_seconds)

    @property
    def cluster_error(self) -> str | None:
        """Return what people are told of the cluster's failure, None while it works. May be called on any thread."""
        return self._clients.failure.told

    def connection_trouble(self) -> str | None:
        """Return what was said lately of a connection that came to nothing."""
        return self._clients.failure.lately
