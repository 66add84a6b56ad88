"""One daemon's connections to the simulated database: delays, failures, lost answers, and the fence of the lease."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from outboxd.policy.exchange.messages import Event, Settled, SettleFailed
from outboxd.policy.exchange.reads import Fetched, FetchFailed, Loaded
from outboxd.policy.exchange.requests import IMPATIENT, FetchRequest, Patience, Settlement, SweepRequest
from tests.simulation import statements
from tests.simulation.database import Database

if TYPE_CHECKING:
    from tests.simulation.daemon import Daemon


@dataclass(slots=True)
class StatementFaults:
    """Shares of statements that fail, now."""

    before: float = 0.0
    lost_answer: float = 0.0
    slow: float = 0.0


@dataclass(slots=True)
class Connection:
    """A session's connection: it is of one start of the server, and made anew after a job on it failed."""

    start: int | None = None

    def used(self, db: Database) -> int:
        """Return the start that it is of; it is made now where there is none."""
        if self.start is None:
            self.start = db.starts
        return self.start

    def fails(self) -> None:
        self.start = None


class SimulatedStore:
    """The OutboxStore port. A statement runs a little later than it was asked for, and its answer comes later still."""

    def __init__(self, daemon: Daemon, db: Database, dice: random.Random, faults: StatementFaults) -> None:
        self._daemon = daemon
        self._db = db
        self._dice = dice
        self._faults = faults
        self.reads_under_way = 0
        self.settles_under_way = 0
        self._reads_by = Connection()
        self._settles_by = Connection()
        self._waiting: Callable[[], None] | None = None
        self._is_hurried = False

    def _delay(self) -> float:
        dice = self._dice
        return dice.uniform(0.2, 2.5) if dice.random() < self._faults.slow else dice.uniform(0.0003, 0.006)

    def _is_down(self) -> bool:
        return self._db.timeline.now < self._db.down_until

    def _is_frozen_unsent(self, decided: list[bool]) -> bool:
        """Say whether the daemon froze before the statement left it: it is sent when the daemon wakes."""
        if not self._daemon.is_alive or self._db.timeline.now >= self._daemon.frozen_until:
            return False
        if not decided:
            decided.append(self._dice.random() < 0.5)
        return decided[0]

    def _proof(self) -> tuple[str, int]:
        """Return what the lease's acquisition gave: the holder, and the server that gave it."""
        return self._daemon.lease.holder, self._daemon.lease.server

    def begin_load(self) -> None:
        holder, server = self._proof()

        def load() -> Loaded:
            db = self._db
            return replace(statements.load(db), fenced=db.lease.holder != holder, moved=db.server != server)

        self._read(load)

    def begin_fetch(self, request: FetchRequest, delay_seconds: float = 0.0, patience: Patience = IMPATIENT) -> None:
        holder, server = self._proof()
        timeline = self._db.timeline
        asked_at = timeline.now

        def fetch() -> Fetched:
            db = self._db
            return statements.fetch(db, request)._replace(
                fenced=db.lease.holder != holder,
                moved=db.server != server,
                waited_seconds=timeline.now - asked_at,
            )

        def goes_on(event: Event) -> bool:
            is_time = timeline.now + patience.interval_seconds < asked_at + patience.seconds
            return is_time and isinstance(event, Fetched) and event.shows_nothing

        interval_seconds = patience.interval_seconds
        self._read(
            fetch,
            want_locks=request.want_locks,
            delay_seconds=delay_seconds,
            interval_seconds=interval_seconds,
            goes_on=goes_on,
        )

    def hurry_fetch(self) -> None:
        self._is_hurried = True
        if self._waiting is not None:
            self._db.timeline.after(self._delay(), partial(self._wake, self._waiting))

    def begin_sweep(self, request: SweepRequest) -> None:
        timeline, asked_at = self._db.timeline, self._db.timeline.now
        # Longer than the statement itself, so that some of the walks are made in strides.
        self._read(lambda: replace(statements.sweep(self._db, request, 7), seconds=timeline.now - asked_at))

    def _wait(self, seconds: float, run: Callable[[], None]) -> None:
        """Run it later, or as soon as it is hurried."""
        self._waiting = run
        self._db.timeline.after(seconds + self._delay(), partial(self._wake, run))

    def _wake(self, run: Callable[[], None]) -> None:
        if self._waiting is run:
            self._waiting = None
            run()

    def _read(
        self,
        statement: Callable[[], Event],
        *,
        want_locks: bool = False,
        delay_seconds: float = 0.0,
        interval_seconds: float = 0.0,
        goes_on: Callable[[Event], bool] = lambda _: False,
    ) -> None:
        self._daemon.world.invariants.one_statement(self._daemon, self.reads_under_way)
        self.reads_under_way += 1
        timeline = self._db.timeline
        fails = self._dice.random() < self._faults.before
        held_up: list[bool] = []
        connected_to = self._reads_by.used(self._db)

        def run() -> None:
            if self._is_frozen_unsent(held_up):
                timeline.at(self._daemon.frozen_until, run)
                return
            if fails or self._is_down() or connected_to != self._db.starts:
                self._reads_by.fails()
                timeline.after(self._delay(), lambda: self._answer(FetchFailed("gone")))
                return
            event = statement()
            snapshot_at = timeline.now
            if goes_on(event) and not self._is_hurried:
                held_up.clear()
                self._wait(interval_seconds, run)
                return
            if not want_locks:
                timeline.after(self._delay(), lambda: self._answer(event, snapshot_at))
                return

            def read_locks() -> None:
                answer = event._replace(locks=self._db.locks()) if isinstance(event, Fetched) else event
                timeline.after(self._delay(), lambda: self._answer(answer, snapshot_at))

            timeline.after(self._dice.uniform(0.0, 0.002), read_locks)

        self._is_hurried = False
        self._wait(delay_seconds, run)
        self._daemon.at_step("read")

    def _answer(self, event: Event, snapshot_at: float = 0.0) -> None:
        self.reads_under_way -= 1
        self._daemon.note_snapshot(event, snapshot_at)
        self._daemon.post(event)

    def begin_settle(self, settlement: Settlement, token: int) -> None:
        daemon, timeline = self._daemon, self._db.timeline
        daemon.world.invariants.one_statement(daemon, self.settles_under_way)
        self.settles_under_way += 1
        holder, server = self._proof()
        connected_to = self._settles_by.used(self._db)
        fails = self._dice.random() < self._faults.before
        answer_is_lost = self._dice.random() < self._faults.lost_answer
        held_up: list[bool] = []

        def answer(event: Event) -> None:
            self.settles_under_way -= 1
            daemon.post(event)

        def run() -> None:
            if not daemon.is_alive and not held_up and self._dice.random() < 0.5:
                # The last words of a killed daemon wait in the network.
                held_up.append(True)
                timeline.after(self._dice.uniform(0.5, 5.0), run)
                return
            if self._is_frozen_unsent(held_up):
                timeline.at(daemon.frozen_until, run)
                return
            if fails or self._is_down() or connected_to != self._db.starts:
                self._settles_by.fails()
                timeline.after(self._delay(), lambda: answer(SettleFailed(settlement, "gone")))
                return
            lease = self._db.lease
            moved = self._db.server != server
            if moved or lease.token != token or lease.holder != holder:
                daemon.world.history.note(f"{daemon.name} settle fenced: token {token}, the lease has {lease.token}")
                timeline.after(self._delay(), lambda: answer(Settled(settlement, 0, fenced=True, moved=moved)))
                return
            if self._waits_for_lock(settlement):
                waits = 0.05 if settlement.is_part else 1.0
                timeline.after(waits, lambda: answer(SettleFailed(settlement, "locked", refused=True)))
                return
            daemon.world.invariants.before_settle(daemon, settlement)
            matched = statements.settle(self._db, settlement)
            if daemon.world.scenario.exactly_once:
                self._db.committed(always=True)
            daemon.world.note_settlement(daemon, settlement)
            event = SettleFailed(settlement, "answer lost") if answer_is_lost else Settled(settlement, matched)
            if answer_is_lost:
                self._settles_by.fails()
            timeline.after(self._delay(), lambda: answer(event))

        timeline.after(self._delay(), run)
        daemon.at_step("settlement")

    def _waits_for_lock(self, settlement: Settlement) -> bool:
        """Say whether a row that it is to change is locked by somebody else."""
        ids = [*settlement.delivered_ids, *(row_id for row_id, _ in settlement.dead)]
        locked, now = self._db.locked_until, self._db.timeline.now
        return bool(locked) and any(locked.get(row_id, 0.0) > now for row_id in ids)
