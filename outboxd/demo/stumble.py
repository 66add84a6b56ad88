"""A broker's port that lets one record fail once, as a slow replica would: so the demo can show a retry.

The in-process broker never fails by itself. Only the demo wraps the daemon's port in this; all else is the daemon as
it is, and what follows the failure (the retry kept in the database, the key held, its later rows waiting) is its own
doing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from outboxd.demo.writer import STUMBLE_HEADER
from outboxd.policy.exchange.messages import DeliveryFault, Report
from outboxd.policy.faults import fault_of
from outboxd.relay.publish.forwarding import ForwardingPublisher

if TYPE_CHECKING:
    from outboxd.policy.rows.records import Record
    from outboxd.relay.ports import Publisher

_REQUEST_TIMED_OUT = 7
TEXT = "Broker: Request timed out (let fail by the demo, once)"


class StumblingPublisher(ForwardingPublisher):
    """Publishes by the one within, but for one record's first attempt."""

    def __init__(self, within: Publisher) -> None:
        """`within` is the real one."""
        super().__init__(within)
        self._waiting: Record | None = None
        self.stumbled: DeliveryFault | None = None
        self.stumbled_id: int | None = None
        self.attempts = 0

    def publish(self, records: Sequence[Record], start: int) -> int:
        """Give records to the producer; the one with the demo's header is taken and, the first time, not sent."""
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

    def publish_chain(self, records: Sequence[Record]) -> int:
        """Give records of one key to a producer that stops where one fails: those before the demo's, if it is there."""
        own = next((at for at, record in enumerate(records) if STUMBLE_HEADER in record.headers), len(records))
        return self._within.publish_chain(records[:own]) if own else 0

    def take_reports(self) -> list[Report]:
        """Return the reports, and the failure with them, once another key of that topic was delivered.

        The relay blames a record for a passing failure only while its neighbours are delivered.
        """
        reports = self._within.take_reports()
        record = self._waiting
        if record is not None and any(_is_delivered_neighbour(report, record) for report in reports):
            self._waiting = None
            self.stumbled = DeliveryFault(fault_of(_REQUEST_TIMED_OUT, alone=True), TEXT)
            reports.append(Report(record, self.stumbled, None, None, True))
        return reports

    def rebuild(self) -> None:
        """Replace a failed producer, which had nothing of the record that waits to fail."""
        self._waiting = None
        self._within.rebuild()


def _is_delivered_neighbour(report: Report, record: Record) -> bool:
    return report.error is None and report.record.topic == record.topic and report.record.key != record.key
