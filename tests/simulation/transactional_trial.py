"""A simulated trial of exactly-once delivery: the real lone transactions, as a process on simulated threads."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

from outboxd.kafka.transactional.transactional_publisher import TransactionalPublisher
from outboxd.kafka.trials.child import send
from outboxd.kafka.trials.lone_transactions import LoneTransactions
from outboxd.policy.exchange.messages import (
    DeliveryFault,
    Event,
    Recovered,
    RecoverFailed,
    Report,
    TransactionEnded,
    error_of,
)
from outboxd.policy.rows.records import Record
from tests.simulation.broker import Broker
from tests.simulation.coordinator import Coordinator
from tests.simulation.database import Row
from tests.simulation.threads import SimulatedJobs, SimulatedThread
from tests.simulation.transactional_publisher import SimulatedTransactionalPublisher
from tests.simulation.trial import CHANCE_DEATHS, CRASHED, DEATHS_PROVE

if TYPE_CHECKING:
    from tests.simulation.daemon import Daemon
    from tests.simulation.world import World

STARTUP_SECONDS = (0.05, 0.5)
FOR_EVER_SECONDS = 1e6
PAUSE_SECONDS = 1.0

Make = Callable[["Child"], SimulatedTransactionalPublisher]
"""Makes what a child sends by."""


class LonePublisher(SimulatedTransactionalPublisher):
    """What the child sends by: what was looked at when the trial was given it."""

    def publish(self, records: Sequence[Record], start: int) -> int:
        return TransactionalPublisher.publish(self, records, start)


class Child:
    """The process: what a daemon is to its publisher, as far as that asks. No freeze of the daemon's is its own."""

    frozen_until = 0.0

    def __init__(self, trial: SimulatedTransactionTrial, make: Make) -> None:
        self._trial = trial
        self.world: World = trial.daemon.world
        self.is_alive = True
        self._events = SimulatedJobs(self.world.timeline)
        self._records = SimulatedJobs(self.world.timeline)
        self._publisher = make(self)
        self._thread = SimulatedThread(self.world.timeline, self._work, frozen_until=lambda: 0.0, on_pause=lambda: None)
        self._events.thread = self._records.thread = self._thread

    # What its publisher asks of a daemon.

    def post(self, event: Event) -> None:
        if isinstance(event, Recovered | RecoverFailed):
            self._events.put(event)

    def wake_soon(self) -> None: ...
    def at_step(self, step: str) -> None: ...
    def rest_in_poll(self, *, has_reports: bool) -> None: ...

    def dies_of(self, row: Row) -> None:
        self.world.history.note(f"the trial of {self._trial.daemon.name} dies of {row.id}")
        self.world.timeline.after(0.0, self._trial.child_died)

    # Its life.

    def give(self, records: Sequence[Record]) -> None:
        self._records.put(records)

    def end(self) -> None:
        """The process is killed, or its pipe ended."""
        self.is_alive = False
        self._publisher.die()
        self._thread.kill()

    def get(self) -> Event:
        """Return the next answer to a recovery: the real one is asked again after a pause where it failed."""
        while isinstance(event := self._events.get(timeout=FOR_EVER_SECONDS), RecoverFailed):
            self._thread.pause(PAUSE_SECONDS)
            self._publisher.begin_recover(self._trial.settled, self._trial.lineage)
        return cast(Event, event)

    def _work(self) -> None:
        trial = self._trial
        lone = PausingTransactions(self._publisher, cast(Any, self), settled=trial.settled, lineage=trial.lineage)
        lone.pause = self._thread.pause
        while lone.failure() is None:
            records = self._records.get(timeout=FOR_EVER_SECONDS)
            answers = send(lone, records, lambda: False) or ()
            trial.answered([Report(record, *answer, True) for record, answer in zip(records, answers, strict=True)])


class PausingTransactions(LoneTransactions):
    """Polls in the world's time."""

    pause: Callable[[float], None]

    def poll(self, timeout_seconds: float) -> None:
        self.pause(timeout_seconds)
        super().poll(timeout_seconds)


class SimulatedTransactionTrial:
    """The relay's `TransactionTrial`."""

    def __init__(self, daemon: Daemon, broker: Broker, coordinator: Coordinator, dice: random.Random) -> None:
        self.daemon = daemon
        self._broker = broker
        self._coordinator = coordinator
        self._dice = dice
        self.settled, self.lineage = 0, ""
        self._child: Child | None = None
        self._queue: deque[Sequence[Record]] = deque()
        self._under_way: Sequence[Record] | None = None
        self._deaths = 0
        self._reports: list[Report] = []
        self._generation = 0
        self._owed = 0

    # For the relay.

    def begin(self, settled: int, lineage: str) -> None:
        self.abandon()
        self.settled, self.lineage = settled, lineage

    def send(self, records: Sequence[Record]) -> None:
        world = self.daemon.world
        for record in records:
            # A session is taken as a whole: its topics may be paused before its end.
            world.invariants.before_publish(self.daemon, record, was_taken=True)
            world.count("suspects tried apart")
        self._owed += len(records)
        self._queue.append(records)
        self._go_on()

    def take_reports(self) -> list[Report]:
        reports, self._reports = self._reports, []
        self._owed -= len(reports)
        return reports

    def is_idle(self) -> bool:
        return self._owed == 0

    def abandon(self) -> None:
        self._generation += 1
        self._owed = self._deaths = 0
        self._reports.clear()
        self._queue.clear()
        self._under_way = None
        self._end_child()

    # The process.

    def _end_child(self) -> None:
        child, self._child = self._child, None
        if child is not None:
            child.end()

    def _go_on(self) -> None:
        if self._under_way is None and self._queue:
            self._under_way = self._queue.popleft()
            self._deaths = 0
            self._give()

    def _give(self) -> None:
        if self._child is not None:
            self._hand_over(self._child)
            return
        generation = self._generation
        self._broker.timeline.after(self._dice.uniform(*STARTUP_SECONDS), lambda: self._start(generation))

    def _start(self, generation: int) -> None:
        if generation == self._generation and self._under_way is not None and self.daemon.is_alive:
            self._child = Child(self, self._make)
            self._hand_over(self._child)

    def _hand_over(self, child: Child) -> None:
        if self._under_way is None:
            return
        child.give(self._under_way)
        if not self._deaths and self._dice.random() < CHANCE_DEATHS:
            # Somebody kills it, at whatever step.
            self._broker.timeline.after(self._dice.uniform(0.0, 0.3), lambda: self._killed(child))

    def _killed(self, child: Child) -> None:
        if child is self._child and self._under_way is not None and not self._deaths:
            self.child_died()

    def _make(self, child: Child) -> SimulatedTransactionalPublisher:
        scenario = self.daemon.world.scenario
        return LonePublisher(
            cast(Any, child),
            self._broker,
            self._coordinator,
            self._dice,
            queue_rows_max=scenario.queue_rows_max,
            batch_rows=scenario.batch_rows,
            timeout_seconds=scenario.transaction_seconds,
        )

    def child_died(self) -> None:
        records = self._under_way
        self._end_child()
        self._deaths += 1
        if records is None or (len(records) == 1 and self._deaths < DEATHS_PROVE):
            self._give()
            return
        if len(records) > 1:
            self.daemon.world.count("groups of suspects that killed")
        self._report([Report(record, DeliveryFault(CRASHED, "died of it"), None, None, True) for record in records])

    def answered(self, reports: Sequence[Report]) -> None:
        """The child has answers; where its producer failed it ends by itself."""
        generation = self._generation

        def take() -> None:
            if generation == self._generation:
                for report in reports:
                    self.daemon.world.invariants.on_answered(report)
                if self._child is not None and any(map(error_of, reports)):
                    self._end_child()
                self._report(reports)

        timeline = self._broker.timeline
        timeline.at(max(timeline.now, self.daemon.frozen_until), take)

    def _report(self, reports: Sequence[Report]) -> None:
        self._under_way = None
        self._reports += reports
        self.daemon.post(TransactionEnded())
        self._go_on()
