"""The table `start` and one daemon's side of it: how the owner before ended, and what it had recorded as in the air."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from outboxd.policy.careful import Opening
from tests.simulation.database import Database, StartRow

if TYPE_CHECKING:
    from tests.simulation.daemon import Daemon

RETRY_SECONDS = 0.5


@dataclass(slots=True)
class _Job:
    """A statement that waits for its turn; `is_done` tells what it came to."""

    statement: Callable[[], None]
    is_done: Callable[[], None]


class SimulatedStarts:
    """The relay's `StartJournal`. Its session runs one statement after another; what fails goes again, last."""

    def __init__(self, daemon: Daemon, db: Database, dice: random.Random) -> None:
        self._daemon = daemon
        self._db = db
        self._dice = dice
        self._jobs: deque[_Job] = deque()
        self._is_running = False
        self._row: StartRow | None = None
        self._opening: Opening | None = None
        self._wanted = self._written = 0

    # For the lease.

    def owned(self) -> None:
        self._opening = None
        holder = self._daemon.lease.holder
        found: list[Opening] = []

        def begin() -> None:
            db = self._db
            if db.lease.holder != holder:
                return
            before = db.last_start()
            is_own = before is not None and self._row is not None and before.id == self._row.id
            if before is None or before.was_clean or (is_own and before.published_ids is None):
                opening, recorded = Opening(was_clean=True), None
            else:
                recorded = before.published_ids or frozenset()
                opening = Opening(was_clean=False, suspects=recorded)
            if self._row is not None and opening.was_clean:
                self._end(self._row)
            elif self._row is not None:
                # It did not die; what it suspects of the death of another it suspects still.
                db.end_start(self._row.id)
            found.append(opening)
            self._row = db.add_start(recorded)

        def told() -> None:
            self._opening = found[0] if found else self._opening

        self._submit(_Job(begin, told))

    # For the relay.

    def opening(self) -> Opening | None:
        return self._opening

    def write(self, record_ids: Sequence[int]) -> None:
        self._wanted += 1
        number, ids = self._wanted, frozenset(record_ids)

        def write() -> None:
            if self._row is not None:
                self._db.note_published(self._row.id, ids)

        def written() -> None:
            self._written = number

        self._submit(_Job(write, written))

    def is_written(self) -> bool:
        return self._written == self._wanted

    # For the daemon.

    def ended(self) -> None:
        """The daemon ends well; where the database does not answer the next one takes it for a crash."""
        if self._row is not None and self._db.timeline.now >= self._db.down_until:
            self._end(self._row)

    def _end(self, row: StartRow) -> None:
        """Its rows are suspected no more."""
        self._db.end_start(row.id)
        self._daemon.world.invariants.forget_deaths()

    # The session.

    def _submit(self, job: _Job) -> None:
        self._jobs.append(job)
        if not self._is_running:
            self._is_running = True
            self._later(self._run)

    def _later(self, action: Callable[[], None]) -> None:
        self._db.timeline.after(self._dice.uniform(0.0003, 0.006), action)

    def _run(self) -> None:
        daemon, timeline = self._daemon, self._db.timeline
        if not daemon.is_alive and self._dice.random() < 0.5:
            # It had not left the process that died.
            return
        if daemon.is_alive and timeline.now < daemon.frozen_until:
            timeline.at(daemon.frozen_until, self._run)
            return
        job = self._jobs.popleft()
        fails = self._dice.random() < daemon.world.statement_faults.before
        if fails or timeline.now < self._db.down_until:
            timeline.after(RETRY_SECONDS, lambda: self._again(job))
        else:
            job.statement()
            self._later(job.is_done)
        if self._jobs:
            self._later(self._run)
        else:
            self._is_running = False

    def _again(self, job: _Job) -> None:
        if self._daemon.is_alive:
            self._submit(job)
