"""A simulated Kafka: topics, their partitions' logs, and what ails them at present."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from outboxd.policy.faults import Fault, FaultClass, fault_of, own_fault
from tests.simulation.database import Kind, Row
from tests.simulation.timeline import Timeline

TOO_LARGE = fault_of(10)
UNKNOWN_TOPIC = fault_of(-188)
DIFFERENT_RECORD = fault_of(-138)
OWN_PASSING = fault_of(7)
REFUSAL = own_fault("INVALID_HEADERS")
REMADE_SECONDS = 0.5
"""So often does a producer look whether it still waits for a topic that was made again."""
MAYBE_WRITTEN_CODES = frozenset({-196, -195, -192, -185, -181, -158, -153, -137, 7, 13, 20})
"""Of the listed codes those that a broker or the client may give for a batch that is in the log all the same."""


@dataclass(slots=True)
class Topic:
    """One topic. `fault` is what every batch for it gets at present; a partition stalls until its time."""

    name: str
    logs: list[list[str]]
    """Event ids."""
    fault: Fault | None = None
    is_missing: bool = False
    is_shrunk: bool = False
    stalled_until: list[float] = field(default_factory=list)
    makings: int = 1
    """How often it was made: a producer that knows it of before waits in vain."""


Appended = Callable[[str, int, int, Row], None]


class Broker:
    """All topics. `on_append` is told of each record that enters a log."""

    def __init__(
        self, timeline: Timeline, dice: random.Random, topics: list[str], partitions: int, on_append: Appended
    ) -> None:
        self.timeline = timeline
        self._dice = dice
        self._on_append = on_append
        self.down_until = 0.0
        self.records = 0
        self.slow_share = 0.0
        self.topics = {
            name: Topic(name, [[] for _ in range(partitions)], stalled_until=[0.0] * partitions) for name in topics
        }

    def open_at(self, topic: Topic, partition: int) -> float:
        """When the partition takes requests again."""
        return max(self.down_until, topic.stalled_until[partition])

    def produce(
        self,
        topic: Topic,
        partition: int,
        rows: list[Row],
        joined: list[tuple[str, int, int, Row]] | None = None,
        *,
        is_whole: bool = False,
    ) -> tuple[list[tuple[Row, int]], list[tuple[Row, Fault]]]:
        """Take one batch; return the rows with their offsets, and those that failed with why.

        What is appended goes to the transaction's records where the producer has `joined` one. `is_whole`: where a row
        fails by itself, nothing of the batch is written, as it is with a real broker.
        """
        if topic.is_missing:
            return [], [(row, UNKNOWN_TOPIC) for row in rows]
        if topic.fault is not None:
            if _is_maybe_written(topic.fault) and self._dice.random() < 0.5:
                self._append(topic, partition, rows, joined)
            return [], [(row, topic.fault) for row in rows]
        if topic.is_shrunk:
            return [], [(row, TOO_LARGE) for row in rows]
        poison = [row for row in rows if row.kind is Kind.POISON]
        if poison:
            if len(poison) == 1:
                return [], [(row, TOO_LARGE) for row in rows]
            return [], [(row, TOO_LARGE if row.kind is Kind.POISON else DIFFERENT_RECORD) for row in rows]
        failing = [row for row in rows if self._fails_by_itself(row)]
        if is_whole and failing:
            return [], [(row, OWN_PASSING) for row in rows]
        good = [row for row in rows if row not in failing]
        return self._append(topic, partition, good, joined), [(row, OWN_PASSING) for row in failing]

    @staticmethod
    def _fails_by_itself(row: Row) -> bool:
        if row.kind is Kind.DOOMED:
            return True
        if row.failures_left > 0:
            row.failures_left -= 1
            return True
        return False

    def _append(
        self, topic: Topic, partition: int, rows: list[Row], joined: list[tuple[str, int, int, Row]] | None
    ) -> list[tuple[Row, int]]:
        log = topic.logs[partition]
        placed: list[tuple[Row, int]] = []
        self.records += len(rows)
        for row in rows:
            log.append(row.event_id)
            placed.append((row, len(log) - 1))
            if joined is None:
                self._on_append(topic.name, partition, len(log) - 1, row)
            else:
                joined.append((topic.name, partition, len(log) - 1, row))
        return placed


def _is_maybe_written(fault: Fault) -> bool:
    """Whether a batch that got this may be in the log; of what nobody listed nobody knows."""
    return fault.fault_class is FaultClass.UNLISTED or fault.code in MAYBE_WRITTEN_CODES
