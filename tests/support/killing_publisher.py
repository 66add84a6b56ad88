"""A broker's port that dies of some payloads, as a bug in the client's C code would kill the process.

It loads nothing else of a daemon, since the process that tries suspects starts with it, again and again.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from outboxd.policy.exchange.messages import Report
from outboxd.policy.rows.records import Record

if TYPE_CHECKING:
    from outboxd.relay.ports import Publisher

KILL = b"KILL"
KILL_LATER = b"KILL LATER"


class KillingPublisher:
    """The broker's port, and what it dies of."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher

    def publish(self, records: Sequence[Record], start: int) -> int:
        for at in range(start, len(records)):
            if records[at].payload == KILL:
                # What stands before it is with the client already.
                self._publisher.publish(records[:at], start)
                _die()
        return self._publisher.publish(records, start)

    def publish_chain(self, records: Sequence[Record]) -> int:
        if any(record.payload == KILL for record in records):
            _die()
        return self._publisher.publish_chain(records)

    def publish_alone(self, record: Record) -> bool:
        if record.payload == KILL:
            _die()
        return self._publisher.publish_alone(record)

    def take_reports(self) -> list[Report]:
        reports = self._publisher.take_reports()
        if any(report.record.payload == KILL_LATER for report in reports):
            _die()
        return reports

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._publisher, name)


def decorated(publisher: Publisher) -> Publisher:
    """The port that a payload kills. A function of a module, so that it travels to the process of the trial."""
    return KillingPublisher(publisher)


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
