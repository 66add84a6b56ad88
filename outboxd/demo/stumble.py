"""A broker's port that lets one record fail once, as a slow replica would: so the demo can show a retry.

The in-process broker never fails by itself. Only the demo wraps the daemon's port in this; all else is the daemon as
it is, and what follows the failure (the retry kept in the database, the key held, its later rows waiting) is its own
doing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from outboxd.demo.writer import STUMBLE_HEADER
from outboxd.policy.faults import fault_of
from outboxd.policy.messages import DeliveryFault, Report

if TYPE_CHECKING:
    from outboxd.policy.records import Record
    from outboxd.relay.ports import Publisher

_REQUEST_TIMED_OUT = 7
TEXT = "Broker: Request timed out (let fail by the demo, once)"


class StumblingPublisher:
    """Implements the relay's `Publisher` by the one within, but for one record's first attempt."""

    def __init__(self, within: Publisher) -> None:
        """`within` is the real one."""
        self._within = within
        self._waiting: Record | None = None
        self.stumbled: DeliveryFault | None = None
        self.stumbled_id: int | None = None
        self.attempts = 0

    def publish(self, records: Sequence[Record], start: int) -> int:
        """As the port says; the record with the demo's header is taken and, the first time, not sent."""
        for index in range(start, len(records)):
            if STUMBLE_HEADER in records[index].headers:
                return self._publish_around(records, start, index)
        return self._within.publish(records, start)

    def _publish_around(self, records: Sequence[Record], start: int, index: int) -> int:
        self.attempts += 1
        if self.stumbled_id is not None:
            return self._within.publish(records, start)
        taken = self._within.publish(records[:index], start)
        if taken < index:
            self.attempts -= 1
            return taken
        self.stumbled_id = records[index].id
        self._waiting = records[index]
        return self._within.publish(records, index + 1)

    def publish_alone(self, record: Record) -> bool:
        """As the port says."""
        return self._within.publish_alone(record)

    def poll(self, timeout_seconds: float) -> None:
        """As the port says."""
        self._within.poll(timeout_seconds)

    def flush(self, timeout_seconds: float) -> None:
        """As the port says."""
        self._within.flush(timeout_seconds)

    def take_reports(self) -> list[Report]:
        """As the port says, and the failure with them, once another key of that topic was delivered.

        The relay blames a record for a passing failure only while its neighbours are delivered.
        """
        reports = self._within.take_reports()
        record = self._waiting
        if record is not None and any(_is_delivered_neighbour(report, record) for report in reports):
            self._waiting = None
            self.stumbled = DeliveryFault(fault_of(_REQUEST_TIMED_OUT, alone=True), TEXT)
            reports.append(Report(record, self.stumbled, None, None, True))
        return reports

    def committed(self) -> int | None:
        """As the port says."""
        return self._within.committed()

    def settled(self, transaction: int) -> None:
        """As the port says."""
        self._within.settled(transaction)

    def begin_recover(self, settled: int, lineage: str) -> None:
        """As the port says."""
        self._within.begin_recover(settled, lineage)

    def failure(self) -> DeliveryFault | None:
        """As the port says."""
        return self._within.failure()

    def rebuild(self) -> None:
        """As the port says."""
        self._waiting = None
        self._within.rebuild()

    def purge(self) -> None:
        """As the port says."""
        self._within.purge()


def _is_delivered_neighbour(report: Report, record: Record) -> bool:
    return report.error is None and report.record.topic == record.topic and report.record.key != record.key
