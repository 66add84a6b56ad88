"""One daemon's side of the lease: takes it when it is over, renews it, trusts it from before each renewal was sent."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from outboxd.policy.exchange.messages import LeaseGranted, LeaseLost
from outboxd.policy.lease_watch import LeaseWatch
from tests.simulation.database import Database

if TYPE_CHECKING:
    from tests.simulation.daemon import Daemon


class SimulatedLease:
    """The Lease port."""

    def __init__(self, daemon: Daemon, db: Database, dice: random.Random, ttl: float) -> None:
        self._daemon = daemon
        self._db = db
        self._dice = dice
        self._ttl = ttl
        self._watch = LeaseWatch()
        self._token: int | None = None
        self._trusted_until = float("-inf")
        self._acquisitions = 0
        self.holder = ""
        self.server = 0
        self.stalled_until = 0.0
        """Until then its thread stands still; the others go on."""
        db.timeline.after(dice.uniform(0.0, 0.1), self._tick)

    def trusted_until(self) -> float:
        return self._trusted_until

    def give_up(self, token: int, *, drained: bool = False, emptied: bool = False) -> None:
        if self._token is not None and self._token != token:
            return
        if drained or emptied:
            self._daemon.world.invariants.on_drained(self._daemon)
        holder = self.holder
        self._token, self._trusted_until = None, float("-inf")
        self._acquisitions += 1
        if holder:
            self._db.timeline.after(self._dice.uniform(0.001, 0.01), lambda: self._db.release(holder))

    @property
    def _stands_until(self) -> float:
        return max(self._daemon.frozen_until, self.stalled_until)

    def _tick(self) -> None:
        daemon, timeline = self._daemon, self._db.timeline
        if not daemon.is_alive:
            return
        if timeline.now < self._stands_until:
            timeline.at(self._stands_until, self._tick)
            return
        timeline.after(self._ttl / 4 * self._dice.uniform(0.8, 1.2), self._tick)
        sent_at, acquisition, token = timeline.now, self._acquisitions, self._token
        holder = self.holder if token is not None else f"{daemon.name}/{self._acquisitions}"
        timeline.after(self._dice.uniform(0.0005, 0.02), lambda: self._at_database(sent_at, acquisition, token, holder))

    def _at_database(self, sent_at: float, acquisition: int, token: int | None, holder: str) -> None:
        timeline = self._db.timeline
        if timeline.now < self._db.down_until:
            return
        if token is None:
            is_over = self._watch.is_over(self._db.look_at_lease(), timeline.now)
            new_token = self._db.acquire(holder, self._daemon.name, self._ttl) if is_over else None
        else:
            new_token = token if self._db.renew(holder, token, self._ttl) else None
        owner = holder, self._db.server
        timeline.after(
            self._dice.uniform(0.0005, 0.02),
            lambda: self._on_answer(sent_at, acquisition, token, new_token, owner),
        )

    def _on_answer(
        self, sent_at: float, acquisition: int, token: int | None, new_token: int | None, owner: tuple[str, int]
    ) -> None:
        daemon = self._daemon
        if not daemon.is_alive:
            return
        if self._db.timeline.now < self._stands_until:
            self._db.timeline.at(
                self._stands_until, lambda: self._on_answer(sent_at, acquisition, token, new_token, owner)
            )
            return
        if acquisition != self._acquisitions or token != self._token:
            return
        if new_token is not None:
            self._trusted_until = sent_at + self._ttl - 0.05
            if token is None:
                self._token, (self.holder, self.server) = new_token, owner
                daemon.world.history.note(f"owner is {daemon.name}, token {new_token}")
                if daemon.starts is not None:
                    daemon.starts.owned()
                daemon.post(LeaseGranted(new_token))
        elif token is not None:
            self._token, self._trusted_until = None, float("-inf")
            self._acquisitions += 1
            daemon.post(LeaseLost("taken over"))
