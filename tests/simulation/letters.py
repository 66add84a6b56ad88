"""What operators do to dead letters besides replays and discards: they change some, and take replays back.

By dice of their own, so that whatever else happens in a seed stays as it is.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

from tests.simulation.database import DeadRow, Kind

if TYPE_CHECKING:
    from tests.simulation.world import World


class Letters:
    """Lets operators do so at their times."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._dice = dice = random.Random(f"letters {world.scenario.seed}")
        self._taken_back: set[str] = set()
        if not world.scenario.changes_letters:
            return
        for _ in range(dice.choice([3, 8, 20])):
            world.timeline.at(dice.uniform(0.3, max(world.scenario.fault_seconds, 4.0)), self._operate)

    def was_taken_back(self, event_id: str) -> bool:
        """Say whether it may go twice: its delivery is not noted where its replay was taken back meanwhile."""
        return event_id in self._taken_back

    def _operate(self) -> None:
        """Change one that is dead, perhaps to replay it; take a replay back, perhaps to change it and replay it."""
        db, dice = self._world.db, self._dice
        takes_back, changes, replays = (dice.random() < 0.5 for _ in range(3))
        status = "replaying" if takes_back else "dead"
        letters = [letter for letter in db.dead.values() if letter.status == status]
        if self._world.is_healed or not letters:
            return
        letter = dice.choice(letters)
        if takes_back:
            self._take_back(letter)
        if changes:
            self._change(letter)
        if replays:
            db.replay(letter)
        db.committed()
        told = [
            word for word, is_so in (("takes back", takes_back), ("changes", changes), ("replays", replays)) if is_so
        ]
        self._world.count("fault changed letter" if changes else "letters replayed or taken back")
        self._world.history.note(
            f"! an operator {' and '.join(told) or 'looks at'} {letter.row.id}: {letter.row.topic}/{letter.row.key}"
        )

    def _take_back(self, letter: DeadRow) -> None:
        letter.status = "dead"
        self._taken_back.add(letter.row.event_id)

    def _change(self, letter: DeadRow) -> None:
        db, dice, old = self._world.db, self._dice, letter.row
        # The place that a replay is noted with is that of where it went, though it was changed since.
        topics = [old.topic, old.topic, *self._world.scenario.topics]
        topic = old.topic if letter.row.event_id in self._taken_back else dice.choice(topics)
        kind = dice.choice([Kind.GOOD, old.kind])
        new = letter.row = replace(old, topic=topic, key=dice.choice([None, old.key, "s0", "l0", "l1", "h"]), kind=kind)
        db.events[new.event_id] = new
        if db.rows.get(old.id) is old:
            db.rows[old.id] = new
        of_key = db.by_key.get((old.topic, old.key), [])
        if any(row is old for row in of_key):
            db.by_key[old.topic, old.key] = [row for row in of_key if row is not old]
            db.by_key.setdefault((new.topic, new.key), []).append(new)
