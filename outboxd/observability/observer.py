"""The daemon's observer: what the relay tells goes to the metrics, the log, the board and the alerts; nothing of it
waits.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from prometheus_client import Counter

from outboxd.observability.events import kind_of
from outboxd.observability.logs import Log
from outboxd.observability.metrics import Metrics
from outboxd.observability.status import GAUGES, StatusBoard
from outboxd.observability.tracing import Tracing

Alert = Callable[[str, Mapping[str, object]], None]
"""Is offered an event's name and its fields; must not wait."""


class DaemonObserver:
    """Watches a relay. Lives on the relay's thread, except `event`, which any thread may call."""

    def __init__(self, log: Log, metrics: Metrics, board: StatusBoard, alert: Alert | None = None) -> None:
        """`alert` is offered the events that the catalogue marks for it."""
        self._log = log
        self._metrics = metrics
        self._board = board
        self._alert = alert
        self.tracing: Tracing | None = None
        self._events: dict[str, Counter] = {}
        self._alerted: set[str] = set()
        """The events of which `alert` was told, and not yet of their end."""
        # There and not in `event`: alerts, libraries and the log itself tell events to the log alone.
        log.count = self._count

    @property
    def wants_rows(self) -> bool:
        """Whether each row is to be told by an event of its own: the log's level is debug."""
        return self._log.is_enabled("debug")

    def event(self, name: str, **fields: object) -> None:
        """Something worth a log line happened."""
        self._log.event(name, **fields)
        kind = kind_of(name)
        match name:
            case "lease_lost":
                self._metrics.lease_lost.inc()
            case "late_rows_found":
                self._metrics.late_rows.inc(_number(fields.get("rows")))
            case "settle_mismatch":
                self._metrics.settle_mismatches.inc()
            case "database_failed":
                asked_by = str(fields.get("during", ""))
                self._board.database_answers(False, str(fields.get("cause", "")), asked_by=[asked_by])
            case _:
                pass
        if kind.alerts and self._alert is not None and (not kind.ends or kind.ends in self._alerted):
            self._alerted.add(name)
            self._alerted.discard(kind.ends)
            self._alert(name, fields)

    def _count(self, name: str) -> None:
        counter = self._events.get(name)
        if counter is None:
            counter = self._events[name] = self._metrics.events.labels(name)
        counter.inc()

    def delivered(self, topic: str, rows: int, size_bytes: int) -> None:
        """Records of one topic were acknowledged."""
        self._board.delivered(rows, size_bytes, self._metrics.topics[topic])
        if not self._board.kafka.is_up:
            self._board.kafka_answers(True)

    def acknowledged_after(self, seconds: float, rows: int) -> None:
        """`rows` records were acknowledged about `seconds` after they were created."""
        self._metrics.commit_to_ack.observe(seconds, rows)
        self._board.acknowledged_after(seconds)

    def failed(self, topic: str, error_code: str, fault_class: str) -> None:
        """A delivery failed."""
        self._metrics.errors.labels(self._metrics.topics[topic], error_code, fault_class).inc()

    def retried(self, topic: str) -> None:
        """A record goes to the `retry` table."""
        self._metrics.retries.labels(self._metrics.topics[topic]).inc()

    def died(self, topic: str, reason: str) -> None:
        """A record goes to the dead-letter table."""
        self._metrics.dead_letters.labels(self._metrics.topics[topic], reason).inc()

    def chained(self, rows: int) -> None:
        """So many records went together with others of their keys."""
        self._metrics.chained.inc(rows)

    def duplicates_possible(self, rows: int) -> None:
        """So many records go again though they may be in the log."""
        self._metrics.duplicates_possible.inc(rows)

    def database_answered(self, during: Collection[str]) -> None:
        """A session of the relay's was answered: whatever it failed during is over."""
        self._board.database_answers(True, asked_by=(*during, GAUGES))

    def database_not_asked(self, during: Collection[str]) -> None:
        """Nobody waits any more for what failed during these."""
        self._board.database_not_asked(during)

    def phase(self, name: str, seconds: float, rows: int) -> None:
        """One phase of the flow took so long for one batch."""
        self._metrics.phases.observe(seconds, 1, name)
        if self.tracing is not None:
            self.tracing.phase(name, seconds, rows)
        if name == "fetch":
            self._metrics.batches.observe(rows)


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
