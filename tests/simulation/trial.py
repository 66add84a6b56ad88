"""A simulated trial: a process of its own that sends the suspects of a crash one by one."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from outboxd.policy.exchange.messages import DeliveryFault, Report, TransactionEnded
from outboxd.policy.faults import Fault, own_fault
from outboxd.policy.rows.records import Record
from outboxd.policy.topics.partitioners import DEFAULT_PARTITIONER, Placement
from tests.simulation.broker import REFUSAL, Broker
from tests.simulation.database import Kind

if TYPE_CHECKING:
    from tests.simulation.daemon import Daemon

CRASHED = own_fault("CRASHED_DAEMON")
DEATHS_PROVE = 2
CHANCE_DEATHS = 0.05
"""So often does the process die once, and not by the row."""


class SimulatedTrial:
    """The relay's `Trial`."""

    def __init__(self, daemon: Daemon, broker: Broker, dice: random.Random) -> None:
        self._daemon = daemon
        self._broker = broker
        self._dice = dice
        self._queue: deque[tuple[int, Record]] = deque()
        self._reports: list[Report] = []
        self._generation = 0
        self._owed = 0
        self._is_busy = False

    # For the relay.

    def send(self, records: Sequence[Record]) -> None:
        for record in records:
            self._daemon.world.invariants.before_publish(self._daemon, record)
            self._daemon.world.count("suspects tried apart")
            self._owed += 1
            self._queue.append((self._generation, record))
        self._go_on()

    def take_reports(self) -> list[Report]:
        reports, self._reports = self._reports, []
        self._owed -= len(reports)
        if reports:
            self._daemon.note_delivered(reports)
        return reports

    def is_idle(self) -> bool:
        return self._owed == 0

    def abandon(self) -> None:
        self._generation += 1
        self._owed = 0
        self._reports.clear()
        self._queue.clear()
        self._is_busy = False

    # The process.

    def _go_on(self) -> None:
        if self._queue and not self._is_busy:
            self._is_busy = True
            generation, record = self._queue.popleft()
            deaths = 1 if self._dice.random() < CHANCE_DEATHS else 0
            self._start(generation, record, deaths)

    def _start(self, generation: int, record: Record, deaths: int) -> None:
        """A child is there, or is started."""
        self._broker.timeline.after(
            self._dice.choice([0.002, 0.002, 0.4]), lambda: self._arrive(generation, record, deaths)
        )

    def _arrive(self, generation: int, record: Record, deaths: int) -> None:
        timeline, dice, daemon = self._broker.timeline, self._dice, self._daemon
        is_gone = generation != self._generation or not daemon.is_alive
        if is_gone and dice.random() < 0.5:
            return
        row = daemon.world.row(record.event_id)
        if row.kind is Kind.KILLER:
            if deaths + 1 < DEATHS_PROVE:
                self._start(generation, record, deaths + 1)
            else:
                self._report(generation, Report(record, DeliveryFault(CRASHED, "died of it"), None, None, True))
            return
        if row.kind is Kind.REFUSED:
            self._report(generation, Report(record, DeliveryFault(REFUSAL, "refused"), None, None, True))
            return
        topic = self._broker.topics[record.topic]
        count = len(topic.logs)
        certain = Placement(DEFAULT_PARTITIONER, count).partition_of(record.key)
        partition = dice.randrange(count) if certain is None else certain
        open_at = self._broker.open_at(topic, partition)
        if timeline.now < open_at:
            timeline.at(open_at + dice.uniform(0.0, 0.2), lambda: self._arrive(generation, record, deaths))
            return
        placed, failed = self._broker.produce(topic, partition, [row])
        fault: Fault | None = failed[0][1] if failed else None
        error = None if fault is None else DeliveryFault(fault, fault.name)
        offset = placed[0][1] if placed and error is None else None
        report = Report(record, error, partition, offset, True)
        timeline.after(dice.uniform(0.0005, 0.02), lambda: self._report(generation, report))

    def _report(self, generation: int, report: Report) -> None:
        if generation != self._generation or not self._daemon.is_alive:
            return
        if self._broker.timeline.now < self._daemon.frozen_until:
            self._broker.timeline.at(self._daemon.frozen_until, lambda: self._report(generation, report))
            return
        self._is_busy = False
        self._reports.append(report)
        self._daemon.post(TransactionEnded())
        self._go_on()
