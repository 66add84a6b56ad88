"""Lone transactions: a process apart sends suspects of a crash, in a transaction with its progress record.

The process takes the shard's `transactional.id`, so it fences the daemon that started it, which knows and waits; and
what it commits is found by the daemon's next recovery. A process that died after a commit is followed by one that
reads of it, and sends none of them again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from queue import SimpleQueue
from typing import Protocol

from outboxd.kafka.trials.child import LonePublisher
from outboxd.kafka.trials.trial import TrialProcess
from outboxd.policy.exchange.messages import DeliveryFault, Event, ProgressRow, Recovered, Report
from outboxd.policy.rows.records import Record

PAUSE_SECONDS = 1.0


class RecoveringPublisher(LonePublisher, Protocol):
    """What the process needs of a transactional publisher."""

    def begin_recover(self, settled: int, lineage: str) -> None:
        """Fence the owner before, and read what it committed above the transaction `settled`."""
        ...

    def committed(self) -> int | None:
        """Return the last transaction whose reports were taken."""
        ...

    def settled(self, transaction: int) -> None:
        """All transactions up to this one are settled."""
        ...


class LoneTransactions:
    """Implements `LonePublisher`."""

    def __init__(
        self, publisher: RecoveringPublisher, events: SimpleQueue[Event], *, settled: int, lineage: str
    ) -> None:
        """Return when all others are fenced; `events` is where the publisher's answer comes."""
        self._publisher = publisher
        self._reports: list[Report] = []
        while True:
            publisher.begin_recover(settled, lineage)
            answer = events.get()
            if isinstance(answer, Recovered):
                break
            time.sleep(PAUSE_SECONDS)
        self._committed: dict[int, ProgressRow] = {row.outbox_id: row for row in answer.rows}

    def publish(self, records: Sequence[Record], start: int) -> int:
        """Send records in one transaction, from index `start` on, up to one that is committed already: that is
        reported. Return the index of the first one not taken.
        """
        end = start
        while end < len(records) and records[end].id not in self._committed:
            end += 1
        if end > start:
            return self._publisher.publish(records[:end], start)
        return start + self._report_committed(records[start])

    def publish_alone(self, record: Record) -> bool:
        """Send one record, unless it is committed already."""
        return self._report_committed(record) or self._publisher.publish_alone(record)

    def _report_committed(self, record: Record) -> bool:
        """Report the record where it is committed; say whether it is."""
        row = self._committed.get(record.id)
        if row is not None:
            self._reports.append(Report(record, None, row.partition, row.offset, True))
        return row is not None

    def poll(self, timeout_seconds: float) -> None:
        """Let the transaction go on."""
        if not self._reports:
            self._publisher.poll(timeout_seconds)

    def take_reports(self) -> list[Report]:
        """Return the reports that came."""
        reports, self._reports = self._reports, []
        reports += self._publisher.take_reports()
        committed = self._publisher.committed()
        if committed is not None:
            # The daemon's recovery will settle it. Here it only counts against the bound of those that are not, and the
            # daemon gives no more records than the progress topic can keep apart.
            self._publisher.settled(committed)
        return reports

    def failure(self) -> DeliveryFault | None:
        """Return what ended the producer."""
        return self._publisher.failure()


class MakeTransactions(Protocol):
    """Called in the child; travels there by pickling."""

    def __call__(self, properties: Mapping[str, str], *, database: str, settled: int, lineage: str) -> LonePublisher:
        """Make what sends, once all others are fenced."""
        ...


class TransactionTrialProcess(TrialProcess):
    """Implements the relay's `TransactionTrial`."""

    def __init__(
        self,
        make_transactions: MakeTransactions,
        properties: Mapping[str, str],
        on_event: Callable[..., None],
        on_report: Callable[[], None] = lambda: None,
    ) -> None:
        """Nothing is started before the first record."""
        make = partial(make_transactions, database="", settled=0, lineage="")
        super().__init__(make, properties, on_event, on_report)
        self._make_transactions = make_transactions
        self._database = ""

    def name_after(self, database: str) -> None:
        """Take the database's own name, as the daemon's publisher does. May be called on any thread."""
        self._database = database

    def begin(self, settled: int, lineage: str) -> None:
        """The next records go by a process that first reads what was committed above the transaction `settled`."""
        self.abandon()
        self._make_publisher = partial(
            self._make_transactions, database=self._database, settled=settled, lineage=lineage
        )
