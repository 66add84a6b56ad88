"""What databases seldom do to ids and commits: a row of a very high id, a sequence that is set back, and a crash that
loses the last commits of whoever did not wait for the disk.

By dice of their own, so that whatever else happens in a seed stays as it is.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from outboxd.policy.rows.records import ID_MAX
from tests.simulation.database import Kind, Row

if TYPE_CHECKING:
    from tests.simulation.world import World

UNFLUSHED_SECONDS_MAX = 0.6
"""So late does PostgreSQL write to the disk what nobody waits for: three times its `wal_writer_delay`."""
NEAR_END = 10_000


class Oddities:
    """Lets those of one seed happen at their times."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._dice = dice = random.Random(f"oddities of {world.scenario.seed}")
        scenario, at = world.scenario, world.timeline.at
        span = scenario.fault_seconds
        if scenario.has_high_row:
            at(dice.uniform(0.1, span), self._high_row)
        if scenario.sets_sequence_back:
            for _ in range(dice.choice([1, 3])):
                at(dice.uniform(0.1, span), self._set_back)
        if scenario.is_careful:
            for _ in range(scenario.killers):
                at(dice.uniform(0.1, span), self._killer_row)
        if scenario.loses_commits:
            for _ in range(dice.choice([1, 3])):
                at(dice.uniform(0.1, span), self._begin_to_lose)

    def _note(self, text: str) -> None:
        self._world.history.note(f"! {text}")

    def _high_row(self) -> None:
        """Somebody names the id of a row, far above what the sequence gives; near the end of all the very last id."""
        db, dice = self._world.db, self._dice
        transaction = db.begin()
        highest, leap = db.ids.highest, dice.choice([2, 100, 1_000_000_000])
        row_id = db.ids.name(ID_MAX if highest > ID_MAX - NEAR_END else highest + leap)
        key = dice.choice([None, "h", "l0", "s0"])
        topic = dice.choice(list(self._world.scenario.topics))
        transaction.rows.append(Row(row_id, topic, key, 100, Kind.GOOD, db.now, is_early=True))
        db.finish(transaction, commit=True)
        self._world.count("fault high row")
        self._note(f"a row is given the id {row_id}: {topic}/{key}")

    def _killer_row(self) -> None:
        """Whatever gives this row to its client dies."""
        db, dice = self._world.db, self._dice
        transaction = db.begin()
        row_id = db.draw_id()
        key = dice.choice([None, "h", "l0", "l1"])
        topic = dice.choice(list(self._world.scenario.topics))
        transaction.rows.append(Row(row_id, topic, key, 100, Kind.KILLER, db.now, is_early=db.ids.is_below(row_id)))
        db.finish(transaction, commit=True)
        self._world.count("fault killer row")
        self._note(f"{row_id} kills who sends it: {topic}/{key}")

    def _set_back(self) -> None:
        """The sequence is set back; what was delivered is purged by then, and no daemon has it in memory any more."""
        db = self._world.db
        dead = {letter.row.id for letter in db.dead.values()}
        known = {row_id for daemon in self._world.daemons for row_id in daemon.relay.state.ledger.records}
        free = [row.id for row in db.rows.values() if row.published is not None and row.id not in dead | known]
        self._world.count("fault sequence set back")
        db.ids.set_back(free)
        self._note(f"the sequence is set back, {len(free)} ids are free")

    def _begin_to_lose(self) -> None:
        """From here on the disk lacks what nobody waited for, until the server crashes."""
        db, dice, timeline = self._world.db, self._dice, self._world.timeline
        db.stop_writing(waits_for_nobody=dice.random() < 0.5)

        def crash() -> None:
            if self._world.is_healed or not db.lags:
                return
            lost = db.crash(dice.choice([0, 0, 32]))
            db.down_until = timeline.now + dice.uniform(0.0, 2.0)
            self._world.commits_lost()
            self._world.count("fault crash of PostgreSQL")
            self._world.counts["rows lost by crashes"] += lost
            self._note(f"PostgreSQL crashes, {lost} committed rows are lost")

        timeline.after(dice.uniform(0.0, UNFLUSHED_SECONDS_MAX), crash)
