"""The careful publisher: the broker's port after an unclean end, so that a row that kills the process is found.

Nobody can tell which of thousands of rows in the air killed a process. So the owner after an unclean end publishes in
small windows, and has the ids of each window recorded before it goes. Where a window is not reported to its end (a
missing topic, a partition without a leader), the next one goes beside the rest, which is recorded with it. If that
process dies too, the recorded rows are suspects: the next owner has each of them sent by a process of its own first.
What kills that process twice is dead-lettered, whatever the reason; all others are delivered by it. After a clean end
none of this happens, and the only cost is one comparison for each batch.

Windows end after a while, suspicion does not: a suspect whose topic or whose turn comes later goes apart then too.

A kill of the daemon by somebody else only makes rows suspects: being suspected costs them some milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import takewhile
from typing import Protocol

from outboxd.policy.careful import CAREFUL_SECONDS, STILL_ROWS_MAX, STILL_SECONDS, Opening, recorded, window
from outboxd.policy.exchange.messages import Report
from outboxd.policy.rows.records import Record, id_of
from outboxd.relay.ports import Clock, Publisher
from outboxd.relay.publish.forwarding import ForwardingPublisher


class StartJournal(Protocol):
    """The database's record of owners and of what they had in the air."""

    def opening(self) -> Opening | None:
        """Return how the owner before ended; None while that is not known yet."""
        ...

    def write(self, record_ids: Sequence[int]) -> None:
        """Begin to record these ids as in the air, in place of those before."""
        ...

    def is_written(self) -> bool:
        """Say whether the last `write` is in the database."""
        ...


class Trial(Protocol):
    """Sends records in a process of its own."""

    def send(self, records: Sequence[Record]) -> None:
        """Have these sent together; their reports come by `take_reports`, all at once. Where a process dies of several,
        each of them is reported as `CRASHED_DAEMON`: who of them is to blame, if any, is not known. One by itself is so
        only once it ended two processes.
        """
        ...

    def take_reports(self) -> list[Report]:
        """Return the reports that came since the last call."""
        ...

    def abandon(self) -> None:
        """End the process; what it was given is never reported any more."""
        ...

    def is_idle(self) -> bool:
        """Say whether it owes no report."""
        ...


class CarefulPublisher(ForwardingPublisher):
    """Publishes by the one within, with care after an unclean end. Lives on the relay's thread."""

    _goes_beside = True
    """Whether a window may go while another one stands still."""

    def __init__(
        self,
        publisher: Publisher,
        journal: StartJournal,
        trial: Trial,
        clock: Clock,
        on_event: Callable[..., None],
        *,
        rows_max: int,
    ) -> None:
        """`on_event(name, **fields)` is the observer's; `rows_max` is what may be in memory: after so many reports all
        rows of the owner before went again.
        """
        super().__init__(publisher)
        self._journal = journal
        self._trial = trial
        self._clock = clock
        self._event = on_event
        self._rows_max = rows_max
        self._opening: Opening | None = None
        self._is_careful = True
        self._forget()

    def _forget(self) -> None:
        self._suspects: set[int] = set()
        self._window: set[int] = set()
        self._in_air: set[int] = set()
        self._chained: set[int] = set()
        """What of that went together, and comes back without a report where that ends."""
        self._still: set[int] = set()
        """What stands still of it."""
        self._moved_at = 0.0
        """When a window was recorded last, or a report came."""
        self._reported_rows = 0
        self._ends_at: float | None = None

    # Publish.

    def publish(self, records: Sequence[Record], start: int) -> int:
        """Give records to the producer from index `start` on; return the index of the first one not taken."""
        self._look()
        if self._go_freely(records):
            return self._within.publish(records, start)
        index = start
        while index < len(records) and self._send(records[index], alone=False):
            index += 1
        if index < len(records) and self._is_careful:
            self._record(records[index:])
        return index

    def publish_alone(self, record: Record) -> bool:
        """Send one record in a batch of its own. Return False when it cannot be taken now."""
        self._look()
        if self._go_freely([record]):
            return self._within.publish_alone(record)
        if self._send(record, alone=True):
            return True
        if self._is_careful:
            self._record([record])
        return False

    def publish_chain(self, records: Sequence[Record]) -> int:
        """Give records of one key to a producer that stops where one fails; while care is taken, those of a window."""
        self._look()
        if self._go_freely(records):
            return self._within.publish_chain(records)
        is_apart = not self._is_careful or self._opening is None or records[0].id in self._suspects
        if is_apart or not self._journal.is_written():
            return 0
        going = list(takewhile(self._is_in_window, records))
        if not going:
            # Another key's chain may be recorded and not have gone yet: its turn comes before this one's.
            if not self._window:
                self._record(records)
            return 0
        taken = self._within.publish_chain(going)
        ids = set(map(id_of, going[:taken]))
        self._window -= ids
        self._in_air |= ids
        self._chained |= ids
        return taken

    def _is_in_window(self, record: Record) -> bool:
        return record.id in self._window

    def end_chains(self) -> Collection[int]:
        """Stop all chains where they are; return the ids of those that are certainly in no log."""
        unwritten = self._within.end_chains()
        self._in_air -= self._chained
        self._still -= self._chained
        self._chained.clear()
        return unwritten

    @property
    def _suspects_nothing(self) -> bool:
        """Whether care is over and no suspect waits, so that nothing has to be looked at."""
        return not self._is_careful and not self._suspects

    def _go_freely(self, records: Iterable[Record]) -> bool:
        """Say whether these go as if nothing had happened: care is over, and none of them is a suspect that waited."""
        return not self._is_careful and (not self._suspects or self._suspects.isdisjoint(map(id_of, records)))

    def _look(self) -> None:
        """Has a new ownership begun, and how did the owner before it end?"""
        opening = self._journal.opening()
        if opening is self._opening:
            return
        self._opening = opening
        self._forget()
        self._is_careful = opening is None or not opening.was_clean
        if opening is not None and not opening.was_clean:
            self._suspects = set(opening.suspects)
            self._event("careful_start", count=len(opening.suspects))

    def _send(self, record: Record, *, alone: bool) -> bool:
        if self._opening is None:
            return False
        if record.id in self._suspects:
            self._trial.send([record])
            return True
        if self._is_careful and (record.id not in self._window or not self._journal.is_written()):
            return False
        publisher = self._within
        taken = publisher.publish_alone(record) if alone else publisher.publish([record], 0) == 1
        if taken and self._is_careful:
            self._window.discard(record.id)
            self._in_air.add(record.id)
        return taken

    def _record(self, records: Sequence[Record]) -> None:
        """Have the next window recorded, once the one before is reported, or stands still."""
        if self._opening is None or records[0].id in self._window or not self._journal.is_written():
            return
        now = self._clock.monotonic()
        if not self._may_go(now):
            return
        ids = window((record.id for record in records), self._suspects)
        self._window = set(ids)
        self._moved_at = now
        self._journal.write(recorded([*self._in_air, *ids], self._still_suspected()))

    def _still_suspected(self) -> set[int]:
        """Return what stays recorded beside what is in the air and in the window."""
        return self._suspects

    def _may_go(self, now: float) -> bool:
        """Say whether nothing is in the air but what stands still: a topic or a partition keeps that, most likely, and
        must not keep the others.
        """
        if self._goes_beside and now - self._moved_at >= STILL_SECONDS:
            self._still = set(self._in_air)
        return self._in_air <= self._still and len(self._in_air) <= STILL_ROWS_MAX

    # Report.

    def take_reports(self) -> list[Report]:
        """Return the reports that came since the last call, in order."""
        reports = self._within.take_reports()
        if self._suspects_nothing:
            return reports
        tried = self._trial.take_reports()
        for report in tried:
            if report.error is not None and report.error.fault.name == "CRASHED_DAEMON":
                # It stays suspected, and recorded as that: another row may end this process before its death is
                # written.
                self._tell_found(report)
            else:
                self._suspects.discard(report.record.id)
        reports = [*reports, *tried]
        if not self._is_careful:
            return reports
        for report in reports:
            self._in_air.discard(report.record.id)
            self._chained.discard(report.record.id)
            self._still.discard(report.record.id)
        if reports:
            self._moved_at = self._clock.monotonic()
        self._consider_end(len(reports))
        return reports

    def _tell_found(self, report: Report) -> None:
        cause = "" if report.error is None else report.error.text
        self._event("crashing_row_found", topic=report.record.topic, outbox_id=report.record.id, cause=cause)

    def _consider_end(self, reported_rows: int) -> None:
        """What was in the air at the unclean end has gone again by now: care ends. What stands still stays recorded,
        and so do suspects that were not tried yet: no time says when their topic or their turn comes.
        """
        now = self._clock.monotonic()
        self._reported_rows += reported_rows
        if reported_rows and self._ends_at is None:
            self._ends_at = now + CAREFUL_SECONDS
        is_long = self._reported_rows >= self._rows_max or (self._ends_at is not None and now >= self._ends_at)
        moves = not self._in_air <= self._still
        if not is_long or moves or not self._trial.is_idle() or not self._journal.is_written():
            return
        self._journal.write(recorded(sorted(self._in_air), self._still_suspected()))
        self._is_careful = False
        self._event("careful_end", rows=self._reported_rows)
        self._window.clear()
        self._in_air.clear()
        self._chained.clear()
        self._still.clear()

    # A producer's end.

    def rebuild(self) -> None:
        """Replace a failed producer. Reports of the old one never come any more."""
        self._within.rebuild()
        self._trial.abandon()
        self._in_air.clear()
        self._chained.clear()
        self._still.clear()
        self._window.clear()

    def purge(self) -> None:
        """Drop what was not sent yet: its outcome is nobody's business any more."""
        self._within.purge()
        self._trial.abandon()
