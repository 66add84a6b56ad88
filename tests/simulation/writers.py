"""Simulated applications: transactions that draw ids, insert rows, and commit late, out of order, or not at all."""

from __future__ import annotations

import random

from tests.simulation.database import Database, Kind, Row, Transaction
from tests.simulation.history import History
from tests.simulation.scenario import Scenario

HURRY_SHARE = 0.1
STRICT, LOOSE = "s", "l"
"""Keys whose writers lock them before they insert, and keys whose writers do not."""


class Writer:
    """Writes transactions one after another until its share is done."""

    def __init__(
        self, db: Database, dice: random.Random, scenario: Scenario, history: History, transactions: int
    ) -> None:
        self._db = db
        self._dice = dice
        self._scenario = scenario
        self._history = history
        self._left = transactions
        self.is_done = False
        self._calm_at = scenario.fault_seconds
        db.timeline.after(dice.uniform(0.0, 0.5), self._next)

    def _pace(self, seconds: float) -> float:
        """Once no new fault comes there is nothing to be met by taking one's time."""
        return seconds if self._db.timeline.now < self._calm_at else seconds * HURRY_SHARE

    def _next(self) -> None:
        if self._left <= 0:
            self.is_done = True
            return
        self._left -= 1
        dice, scenario = self._dice, self._scenario
        transaction = self._db.begin()
        early_ids: list[int] = []
        is_early = dice.random() < scenario.early_share
        if is_early:
            early_ids = [self._db.draw_id() for _ in range(2)]
        rows = 30 if dice.random() < scenario.burst_share else dice.choice([1, 1, 2, 3, 8])
        plan = [self._choice(is_early=is_early) for _ in range(len(early_ids) or rows)]
        plan.sort(key=lambda choice: choice[0:2])  # locks are taken in one order, so that writers never deadlock
        delay = dice.uniform(0.5, 3.0) if is_early else 0.0
        self._db.timeline.after(self._pace(delay), lambda: self._insert(transaction, plan, early_ids))

    def _choice(self, *, is_early: bool) -> tuple[str, str, bool]:
        dice, scenario = self._dice, self._scenario
        topic = dice.choice(list(scenario.topics))
        if dice.random() < scenario.keyless_share:
            return topic, "", False
        is_strict = not is_early and dice.random() < 0.6
        return topic, f"{STRICT if is_strict else LOOSE}{dice.randrange(scenario.keys)}", is_strict

    def _insert(self, transaction: Transaction, plan: list[tuple[str, str, bool]], early_ids: list[int]) -> None:
        timeline, dice = self._db.timeline, self._dice
        if not plan:
            self._end(transaction)
            return
        topic, key, is_strict = plan[0]
        if is_strict and not self._db.lock_key(transaction, (topic, key)):
            timeline.after(0.02, lambda: self._insert(transaction, plan, early_ids))
            return
        self._db.lock_outbox(transaction)
        is_early = bool(early_ids)
        row_id = early_ids.pop(0) if early_ids else self._db.draw_id()
        # Reading may be past it then, and only a sweep finds it.
        is_early |= self._db.ids.is_below(row_id)
        transaction.rows.append(self._row(row_id, topic, key or None, is_early=is_early, is_strict=is_strict))
        pause = dice.choice([0.0, 0.0, 0.001, 0.05])
        timeline.after(pause, lambda: self._insert(transaction, plan[1:], early_ids))

    def _row(self, row_id: int, topic: str, key: str | None, *, is_early: bool, is_strict: bool) -> Row:
        dice, scenario = self._dice, self._scenario
        kind, share = Kind.GOOD, dice.random()
        for candidate, of_it in (
            (Kind.POISON, scenario.poison_share),
            (Kind.REFUSED, scenario.refused_share),
            (Kind.FLAKY, scenario.flaky_share),
            (Kind.DOOMED, scenario.doomed_share),
        ):
            if share < of_it:
                kind = candidate
                break
            share -= of_it
        now = self._db.now
        available_at = now + dice.uniform(0.1, 3.0) if dice.random() < scenario.delayed_share else None
        size_bytes = dice.choice([1_000, 3_000]) if dice.random() < scenario.big_share else 100
        failures = dice.choice([1, 2]) if kind is Kind.FLAKY else 0
        return Row(row_id, topic, key, size_bytes, kind, now, available_at, is_early, is_strict, failures)

    def _end(self, transaction: Transaction) -> None:
        dice, timeline, scenario = self._dice, self._db.timeline, self._scenario
        pause = (
            dice.choice([0.2, 0.5, 1.0, 4.0]) * dice.uniform(0.5, 1.0)
            if dice.random() < scenario.slow_commit_share
            else dice.uniform(0.0, 0.02)
        )
        if dice.random() < scenario.prepared_share:
            timeline.after(self._pace(pause / 2), lambda: self._db.prepare(transaction))
            pause += dice.uniform(0.5, 2.0)
        commit = dice.random() >= scenario.rollback_share
        timeline.after(self._pace(pause), lambda: self._finish(transaction, commit=commit))

    def _finish(self, transaction: Transaction, *, commit: bool) -> None:
        self._db.finish(transaction, commit=commit)
        told = " ".join(f"{row.id}={row.topic}/{row.key}:{row.kind.value}" for row in transaction.rows)
        self._history.note(f"{'commit' if commit else 'rollback'} {told}")
        self._db.timeline.after(self._pace(self._dice.uniform(0.0, 0.15)), self._next)
