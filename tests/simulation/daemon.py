"""A simulated daemon: the real relay with simulated ports, its turns on the timeline; killed, frozen or stopped."""

from __future__ import annotations

import random
from collections.abc import Collection
from typing import TYPE_CHECKING

from outboxd.policy.exchange.messages import Event, LeaseGranted, Report, StopRequested
from outboxd.policy.exchange.reads import Arrived, Fetched, Loaded
from outboxd.policy.rows.records import Record
from outboxd.relay.ports import Publisher
from outboxd.relay.publish.careful import CarefulPublisher
from outboxd.relay.publish.careful_transactions import CarefulTransactions
from outboxd.relay.relay import Ports, Relay
from tests.simulation.client import SimulatedPublisher
from tests.simulation.database import Row
from tests.simulation.lease import SimulatedLease
from tests.simulation.starts import SimulatedStarts
from tests.simulation.store import SimulatedStore
from tests.simulation.transactional_publisher import SimulatedTransactionalPublisher
from tests.simulation.transactional_trial import SimulatedTransactionTrial
from tests.simulation.trial import SimulatedTrial

if TYPE_CHECKING:
    from tests.simulation.world import World

IDLE_POLL_SECONDS_MAX = 0.1
WAKE_SECONDS = 0.0008
LONG_ROWS = 4
"""An answer with so many rows is left to the relay to be read, as the store leaves it several hundred."""


def _unread(fetched: Fetched) -> Fetched | Arrived:
    """Leave a longer answer to the relay to be read."""
    return Arrived(lambda: fetched) if len(fetched.records) >= LONG_ROWS else fetched


class Killed(BaseException):
    """The process dies in the middle of a turn."""


class SilentObserver:
    """The Observer port: events go to the history, counts nowhere."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    wants_rows = False

    def event(self, name: str, **fields: object) -> None:
        told = ", ".join(f"{key}={value}" for key, value in fields.items() if key != "cause")
        self._daemon.world.history.note(f"{self._daemon.name} says {name} {told}")
        opening = None if self._daemon.starts is None else self._daemon.starts.opening()
        if name == "chains_ended":
            self._daemon.world.count("chains ended")
        if name == "careful_end" and opening is not None:
            self._daemon.world.invariants.care_ended(opening.suspects)

    def delivered(self, topic: str, rows: int, size_bytes: int) -> None: ...
    def acknowledged_after(self, seconds: float, rows: int) -> None: ...
    def failed(self, topic: str, error_code: str, fault_class: str) -> None: ...
    def retried(self, topic: str) -> None: ...
    def died(self, topic: str, reason: str) -> None: ...

    def chained(self, rows: int) -> None:
        self._daemon.world.count("records in chains", rows)

    def duplicates_possible(self, rows: int) -> None: ...
    def database_answered(self, during: Collection[str]) -> None: ...
    def database_not_asked(self, during: Collection[str]) -> None: ...
    def phase(self, name: str, seconds: float, rows: int) -> None: ...


class Daemon:
    """One process. It also is its relay's mailbox."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.is_alive = True
        self.frozen_until = 0.0
        self.stalled_until = 0.0
        """Until then the relay's own thread stands still; the others go on."""
        self.dies_at: str | None = None
        self.freezes_at: tuple[str, float] | None = None
        self._mail: list[Event] = []
        self._next_turn_at = float("inf")
        self._sleep_until = 0.0
        self._idle_polls = 0
        self.snapshots: dict[str, float] = {}
        self.pauses: list[str] = []
        self.shown: dict[str, float] = {}
        self.let_go: dict[str, float] = {}
        self._acknowledged: set[str] = set()
        self._acknowledged_to: object = None
        self._trial: SimulatedTrial | SimulatedTransactionTrial | None = None
        scenario, dice = world.scenario, random.Random(world.dice.random())
        self.lease = SimulatedLease(self, world.db, dice, scenario.lease_ttl)
        self.store = SimulatedStore(self, world.db, dice, world.statement_faults)
        self.publisher = self._make_publisher(dice)
        self.starts = SimulatedStarts(self, world.db, world.care_dice()) if scenario.is_careful else None
        observer = SilentObserver(self)
        port = self.publisher if self.starts is None else self._with_care(self.publisher, self.starts, observer)
        ports = Ports(self.store, port, self.lease, self, world.timeline, dice, observer)
        self.relay = Relay(
            ports, scenario.limits, scenario.routes, scenario.default_route, pipelined=scenario.exactly_once
        )
        self.wake_soon()

    @property
    def chains_producer(self) -> SimulatedPublisher | None:
        """The publisher where it sends records of a key together."""
        goes = self.world.scenario.limits.chain_rows_min > 0
        return self.publisher if goes and isinstance(self.publisher, SimulatedPublisher) else None

    def _make_publisher(self, dice: random.Random) -> SimulatedPublisher | SimulatedTransactionalPublisher:
        scenario, broker = self.world.scenario, self.world.broker
        rows_max, batch_rows = scenario.queue_rows_max, scenario.batch_rows
        if not scenario.exactly_once:
            return SimulatedPublisher(self, broker, dice, queue_rows_max=rows_max, batch_rows=batch_rows)
        return SimulatedTransactionalPublisher(
            self,
            broker,
            self.world.coordinator,
            dice,
            queue_rows_max=rows_max,
            batch_rows=batch_rows,
            timeout_seconds=scenario.transaction_seconds,
        )

    def _with_care(self, within: Publisher, starts: SimulatedStarts, observer: SilentObserver) -> Publisher:
        world, dice = self.world, self.world.care_dice()
        rows_max, clock, tell = world.scenario.limits.max_in_flight_rows, world.timeline, observer.event
        if not world.scenario.exactly_once:
            self._trial = SimulatedTrial(self, world.broker, dice)
            return CarefulPublisher(within, starts, self._trial, clock, tell, rows_max=rows_max)
        self._trial = trial = SimulatedTransactionTrial(self, world.broker, world.coordinator, dice)
        return CarefulTransactions(within, starts, trial, clock, tell, rows_max=rows_max)

    # The mailbox.

    def take(self) -> list[Event]:
        mail, self._mail = self._mail, []
        for event in mail:
            if isinstance(event, LeaseGranted):
                self.let_go.clear()
            if isinstance(event, Fetched):
                state = self.relay.state
                for record in state.ready[state.ready_at :]:
                    self.let_go.setdefault(record.event_id, self.world.timeline.now)
                self.shown.update(dict.fromkeys([record.event_id for record in event.records], self.world.timeline.now))
            if isinstance(event, Fetched | Loaded):
                self.pauses = [pause.topic_pattern for pause in event.pauses]
        return [_unread(event) if isinstance(event, Fetched) else event for event in mail]

    def wait(self, timeout_seconds: float) -> None:
        self._sleep_until = self.world.timeline.now + (0.0 if self._mail else max(timeout_seconds, 0.0002))

    def post(self, event: Event) -> None:
        if self.is_alive:
            self._mail.append(event)
            self.wake_soon()

    def note_snapshot(self, event: Event, snapshot_at: float) -> None:
        """Remember which snapshot brought a record to memory: that is what its order is judged by."""
        if isinstance(event, Fetched):
            known = self.relay.state.ledger.records
            for record in event.records:
                if record.id not in known or record.event_id not in self.snapshots:
                    self.snapshots[record.event_id] = snapshot_at

    def note_delivered(self, reports: list[Report]) -> None:
        """The relay took these reports: while it owns as it does now it never sends what was delivered again."""
        if self._acknowledged_to is not self.relay.state:
            self._acknowledged_to = self.relay.state
            self._acknowledged.clear()
        self._acknowledged.update([report.record.event_id for report in reports if report.error is None])

    def forget_delivered(self) -> None:
        """What was delivered is pending again where the database lost its mark."""
        self._acknowledged.clear()

    def was_delivered(self, record: Record) -> bool:
        """Say whether the relay was told, by this ownership, that the record is delivered."""
        return self._acknowledged_to is self.relay.state and record.event_id in self._acknowledged

    # Turns.

    def rest_in_poll(self, *, has_reports: bool) -> None:
        """The relay polls for a millisecond; the simulation lets it sleep to its next deadline where nothing comes."""
        self._idle_polls = 0 if has_reports else self._idle_polls + 1
        now = self.world.timeline.now
        pause = 0.001 * 2 ** min(self._idle_polls, 10)
        if not has_reports:
            pause = max(pause, self.relay.next_deadline - now)
        self._sleep_until = now + min(pause, IDLE_POLL_SECONDS_MAX)

    def wake_soon(self) -> None:
        self._idle_polls = 0
        self._turn_at(self.world.timeline.now + WAKE_SECONDS)

    def _turn_at(self, when: float) -> None:
        if when < self._next_turn_at:
            self._next_turn_at = when
            self.world.timeline.at(when, lambda: self._turn(when))

    def _turn(self, when: float) -> None:
        if when != self._next_turn_at or not self.is_alive:
            return
        self._next_turn_at = float("inf")
        now = self.world.timeline.now
        stands_until = max(self.frozen_until, self.stalled_until)
        if now < stands_until:
            self._turn_at(stands_until)
            return
        self._sleep_until = now + 0.001
        try:
            self.relay.turn()
        except Killed:
            self.kill()
            return
        self.world.invariants.after_turn(self)
        if self.relay.end is not None:
            self.world.history.note(f"end of {self.name}: {self.relay.end.reason}")
            self.end()
            if self.starts is not None:
                self.starts.ended()
            self.world.restart(self)
            return
        self._turn_at(self._sleep_until)

    def end(self) -> None:
        """The process is gone, and what it had started with it."""
        self.is_alive = False
        self.publisher.die()
        if self._trial is not None:
            self._trial.abandon()

    # Faults.

    def kill(self) -> None:
        if not self.is_alive:
            return
        self.world.history.note(f"! kill -9 {self.name}")
        self.end()
        self.world.restart(self)

    def dies_of(self, row: Row) -> None:
        """Die while a row is given to the client, on the relay's thread or on a worker, which waits then."""

        def die() -> None:
            if self.is_alive:
                self.world.count("fault killed by a row")
                self.world.history.note(f"! {self.name} dies of {row.id}")
                self.world.invariants.on_death_by(row)

        if not self.world.scenario.exactly_once:
            die()
            raise Killed
        self.world.timeline.after(0.0, die)
        self.world.timeline.after(0.0, self.kill)

    def at_step(self, step: str) -> None:
        """Die or freeze here, in the middle of a turn, where that was drawn."""
        if self.dies_at == step:
            self.world.count(f"fault kill -9 at {step}")
            self.world.history.note(f"! {self.name} dies at its {step}")
            raise Killed
        if self.freezes_at is not None and self.freezes_at[0] == step:
            seconds, self.freezes_at = self.freezes_at[1], None
            self.world.count(f"fault freeze at {step}")
            self.freeze(seconds)

    def freeze(self, seconds: float) -> None:
        self.world.history.note(f"! {self.name} is frozen for {seconds:.1f} s")
        self.frozen_until = self.world.timeline.now + seconds

    def stop(self) -> None:
        self.world.history.note(f"! SIGTERM {self.name}")
        self.post(StopRequested())
