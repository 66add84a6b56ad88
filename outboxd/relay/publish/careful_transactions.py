"""The careful publisher of exactly-once delivery: a row that kills the process is found where one producer may exist.

    windows of recorded rows, a transaction each ──a suspect is next──▶ nothing in the air, all settled
       ▲                                                                     │ our producer goes
       │                                                                     ▼
    the relay owns anew: fence, read, settle ◀──a session is over── a process with our transactional.id sends the
                                                                     suspects together, with a progress record
                                                                        └ it died: they go again in smaller groups

That process fences like a successor and leaves progress records like one. So what it committed is known by the
recovery that follows each session, whatever became of it, and no row is sent twice. A row that ended it twice, alone,
is remembered, and refused when the relay gives it again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import takewhile
from typing import Protocol

from outboxd.policy.careful import WINDOW_ROWS, PlannedEnd, groups, parted
from outboxd.policy.exchange.messages import DeliveryFault, ProgressRow, Report, error_of
from outboxd.policy.faults import FaultClass, own_fault
from outboxd.policy.rows.records import Record, id_of
from outboxd.relay.publish.careful import CarefulPublisher, Trial

SESSION_ROWS_MAX = WINDOW_ROWS
"""How many suspects one session sends. Each may come to be a transaction, unsettled until the recovery after it; the
progress topic keeps five times as many apart.
"""


class TransactionTrial(Trial, Protocol):
    """Sends records in a process of its own, which takes the shard's `transactional.id`."""

    def begin(self, settled: int, lineage: str) -> None:
        """The next records go by a process that first reads what was committed above the transaction `settled`."""
        ...


class CarefulTransactions(CarefulPublisher):
    """Implements `Publisher` on a transactional one. Lives on the relay's thread."""

    _goes_beside = False
    """A transaction ends as a whole: what keeps it keeps the next one too."""
    _trial: TransactionTrial
    _settled = 0
    _committed = 0
    _unsettled_max = 0
    """So many transactions may be unsettled when a session begins: none where all can be settled."""
    _lineage = ""

    def _forget(self) -> None:
        super()._forget()
        self._groups: deque[Sequence[Record]] = deque()
        """What is left of the session of suspects, the first with the process apart."""
        self._condemned: dict[int, Report] = {}
        self._not_given: set[int] = set()
        """Suspects whose topic was not there, so that the client was not given them. Our own producer tries the topic
        with them, lest each probe be a session; as they stay recorded, one that kills costs one daemon.
        """
        self._refusals: list[Report] = []
        self._session_ended: DeliveryFault | None = None

    # Publish.

    def publish(self, records: Sequence[Record], start: int) -> int:
        """Give records to the producer from index `start` on; return the index of the first one not taken."""
        self._look()
        if self._suspects_nothing:
            return self._within.publish(records, start)
        if not self._may_publish or start >= len(records):
            return start
        if self._refuse(records[start]):
            # What stands behind it waits for the relay's word on its key.
            return start + 1
        window = records[start:]
        if not self._go_freely(window):
            window = list(takewhile(self._is_ours, window))
        if window:
            taken = self._within.publish(window, 0)
            self._went(window[:taken])
            return start + taken
        return start + self._take_apart(records[start:])

    def publish_alone(self, record: Record) -> bool:
        """Send one record in a batch of its own. Return False when it cannot be taken now."""
        self._look()
        if self._suspects_nothing:
            return self._within.publish_alone(record)
        if not self._may_publish:
            return False
        if self._refuse(record):
            return True
        if not self._is_ours(record):
            return bool(self._take_apart([record]))
        taken = self._within.publish_alone(record)
        if taken:
            self._went([record])
        return taken

    @property
    def _may_publish(self) -> bool:
        return self._opening is not None and not self._groups and self._session_ended is None

    def _is_ours(self, record: Record) -> bool:
        """Say whether our own producer may send it now: it is no suspect, and while care lasts it was recorded."""
        if record.id in self._suspects:
            return False
        return not self._is_careful or (record.id in self._window and self._journal.is_written())

    def _is_to_be_tried(self, record: Record) -> bool:
        return record.id in self._suspects and record.id not in self._condemned

    def _went(self, records: Sequence[Record]) -> None:
        ids = list(map(id_of, records))
        self._window.difference_update(ids)
        self._in_air.update(ids)

    def _refuse(self, record: Record) -> bool:
        report = self._condemned.pop(record.id, None)
        if report is None:
            return False
        self._refusals.append(Report(record, report.error, record.partition, None, True))
        return True

    def _take_apart(self, records: Sequence[Record]) -> int:
        """Have the next window recorded, or begin a session where suspects are next; return how many were taken."""
        if records[0].id not in self._suspects:
            self._record(records)
            return 0
        if self._in_air or self._committed - self._settled > self._unsettled_max:
            return 0
        session = list(takewhile(self._is_to_be_tried, records[:SESSION_ROWS_MAX]))
        self._groups = deque(groups(session))
        # Whatever our producer does after another took its transactional.id, it could only be fenced.
        self._within.rebuild()
        self._trial.begin(self._settled, self._lineage)
        self._trial.send(self._groups[0])
        return len(session)

    def _still_suspected(self) -> set[int]:
        return self._suspects | (self._not_given - self._in_air - self._window)

    # Report.

    def take_reports(self) -> list[Report]:
        """Return the reports that came since the last call, in order."""
        if self._suspects_nothing:
            return self._within.take_reports()
        tried = self._trial.take_reports()
        if tried and self._groups:
            self._tried(tried)
        refusals, self._refusals = self._refusals, []
        reports = self._within.take_reports() + refusals
        self._in_air.difference_update([report.record.id for report in reports])
        if self._is_careful and not self._groups:
            # A row that ended the process apart may never be given again: what committed it may have been that process.
            self._consider_end(len(reports))
        return reports

    def _tried(self, reports: Sequence[Report]) -> None:
        """The reports of a group are in: the next one goes, as long as nobody failed."""
        group = self._groups.popleft()
        if len(group) > 1 and _is_death(reports[0]):
            self._groups.extendleft(reversed(parted(group)))
        else:
            for report in reports:
                self._judge(report)
            if not self._groups or any(map(error_of, reports)):
                self._end_session(reports)
                return
        self._trial.send(self._groups[0])

    def _judge(self, report: Report) -> None:
        record, error = report.record, report.error
        if _is_death(report):
            # It stays recorded as a suspect: another row may end this process before its death is written.
            self._condemned[record.id] = report
            self._tell_found(report)
        elif error is None or error.fault.fault_class not in (FaultClass.PRODUCER, FaultClass.CLUSTER):
            # It did not kill. What was sent back, for another one's failure, was perhaps never given to the client.
            self._suspects.discard(record.id)
            if error is not None and error.fault.fault_class is FaultClass.TOPIC:
                self._not_given.add(record.id)

    def _end_session(self, reports: Sequence[Report]) -> None:
        self._groups.clear()
        self._trial.abandon()
        text = "rows suspected of a crash went by a process of their own, and what that committed has to be read"
        fault = own_fault("NEVER_REPORTED")
        unclear = [
            report.error.text
            for report in reports
            if report.error is not None
            and report.error.fault.name != "SENT_BACK"
            and self._is_to_be_tried(report.record)
        ]
        if unclear:
            self._session_ended = DeliveryFault(fault, f"{text}; it came to no end: {unclear[0]}")
        else:
            self._session_ended = PlannedEnd(fault, text)

    def committed(self) -> int | None:
        """Return the last Kafka transaction whose reports were taken since the last call."""
        committed = self._within.committed()
        self._committed = max(self._committed, committed or 0)
        return committed

    def settled(self, transaction: int) -> None:
        """The rows of all transactions up to this one are settled."""
        self._settled = max(self._settled, transaction)
        self._within.settled(transaction)

    def restate(self, rows: Sequence[ProgressRow]) -> None:
        """State these rows of earlier transactions, which cannot be settled, in progress records too."""
        self._unsettled_max = SESSION_ROWS_MAX if rows else 0
        self._within.restate(rows)

    def begin_recover(self, settled: int, lineage: str) -> None:
        """Fence the owner before, and read what it committed above the transaction `settled`."""
        self._settled, self._committed, self._lineage = settled, settled, lineage
        self._within.begin_recover(settled, lineage)

    # Failure.

    def failure(self) -> DeliveryFault | None:
        """Return what ended the producer, or None while it works; a session's end is such an end."""
        if self._session_ended is not None:
            return self._session_ended
        return None if self._groups else self._within.failure()

    def rebuild(self) -> None:
        """Forget everything but who is suspected: a recovery must come first."""
        super().rebuild()
        self._groups.clear()
        self._refusals, self._session_ended = [], None
        self._unsettled_max = 0

    def purge(self) -> None:
        """Drop what was not sent yet: the open transaction will never be committed."""
        super().purge()
        self._groups.clear()


def _is_death(report: Report) -> bool:
    return report.error is not None and report.error.fault.name == "CRASHED_DAEMON"
