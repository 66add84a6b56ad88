"""A launcher of the daemon whose broker's port is at fault as a test asks, where no real broker can be brought to it.

`python -m tests.support.faulty_daemon run -c FILE [--until-empty] [--ahead SECONDS] [--fences COUNT]`: a row whose
payload is `FAILS 7` fails with that code whenever it is sent. `--ahead` sends with a clock that is so far ahead of the
brokers'. `--fences`: so often, the producer reports that it was fenced, instead of what became of its records.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from outboxd.policy.exchange.messages import DeliveryFault, Report
from outboxd.policy.faults import fault_of
from outboxd.policy.rows.records import Record
from outboxd.relay.ports import Publisher
from tests.support.decorated_daemon import run_decorated

FAILS = b"FAILS "
FENCED = fault_of(-144)
INVALID_PRODUCER_EPOCH = fault_of(47)
REPORTS_BETWEEN = 500
"""So many reports come between one fencing and the next."""


def option(name: str, default: float) -> float:
    """The number that follows `name` on the command line."""
    return float(sys.argv[sys.argv.index(name) + 1]) if name in sys.argv else default


class FaultyPublisher:
    """The broker's port, with its faults."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._ahead_ms = int(option("--ahead", 0.0) * 1000)
        self._fences = int(option("--fences", 0.0))
        self._reported = 0
        self._failed: list[Report] = []
        self._failure: DeliveryFault | None = None

    # Rows that fail.

    def publish(self, records: Sequence[Record], start: int) -> int:
        for at in range(start, len(records)):
            record = records[at]
            if (record.payload or b"").startswith(FAILS):
                self._failed.append(refused(record))
            elif self._publisher.publish([self._shifted(record)], 0) == 0:
                return at
        return len(records)

    def publish_alone(self, record: Record) -> bool:
        if (record.payload or b"").startswith(FAILS):
            self._failed.append(refused(record))
            return True
        return self._publisher.publish_alone(self._shifted(record))

    def publish_chain(self, records: Sequence[Record]) -> int:
        """None: each goes by `publish`, with its faults."""
        return 0

    def _shifted(self, record: Record) -> Record:
        return record._replace(created_at_ms=record.created_at_ms + self._ahead_ms) if self._ahead_ms else record

    # A producer that is fenced.

    def take_reports(self) -> list[Report]:
        reports = self._publisher.take_reports()
        self._reported += len(reports)
        if self._fences and self._reported >= REPORTS_BETWEEN and self._failure is None:
            self._fences -= 1
            self._reported = 0
            self._failure = DeliveryFault(FENCED, "fenced by a newer producer")
            # The brokers have these records all the same, which nobody can know by such an answer.
            epoch = DeliveryFault(INVALID_PRODUCER_EPOCH, "an old epoch")
            reports = [report._replace(error=epoch, offset=None) for report in reports]
        failed, self._failed = self._failed, []
        return reports + failed

    def failure(self) -> DeliveryFault | None:
        return self._failure or self._publisher.failure()

    def rebuild(self) -> None:
        self._failure = None
        self._publisher.rebuild()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._publisher, name)


def refused(record: Record) -> Report:
    code = int((record.payload or b"")[len(FAILS) :].split(b" ")[0])
    return Report(record, DeliveryFault(fault_of(code), "as the test asks"), 0, None, False)


def decorated(publisher: Publisher) -> Publisher:
    """The faulty port. A function of a module, so that it travels to the process of the trial."""
    return FaultyPublisher(publisher)


if __name__ == "__main__":
    sys.exit(run_decorated(decorated))
