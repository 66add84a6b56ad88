"""What goes wrong, and when: crashes, freezes, sick topics, silent partitions, failing statements; and operators."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from outboxd.policy.faults import KAFKA_FAULTS, FaultClass

if TYPE_CHECKING:
    from tests.simulation.database import DeadRow
    from tests.simulation.world import World

TOPIC_FAULTS = [
    fault
    for fault in KAFKA_FAULTS.values()
    if fault.fault_class in (FaultClass.TOPIC, FaultClass.CLUSTER, FaultClass.ROW_PASSING, FaultClass.UNLISTED)
]

HOUR_SECONDS = 3_600.0
LAST_REPLAYS_SECONDS = 0.5
"""So long after the end of all faults operators replay what is dead."""
LOCKED_SHARE = 0.3
"""Of the seeds so many have rows that somebody locks."""
STEPS = ["read", "publishing", "settlement", "settlement"]
"""Where a daemon dies or freezes in the middle of a turn."""


class Faults:
    """Draws the faults of one seed and lets each happen at its time; `heal` ends them all."""

    def __init__(self, world: World, dice: random.Random) -> None:
        self._world = world
        self._dice = dice
        scenario, timeline = world.scenario, world.timeline
        kinds: list[Callable[[float], None]] = [
            self._sick_topic,
            self._sick_topic,
            self._missing_topic,
            self._silent_partition,
            self._broker_down,
            self._fatal_producer,
            self._failing_statements,
            self._lost_answers,
            self._slow_statements,
            self._database_down,
            self._freeze,
            self._freeze_at_a_step,
            self._freeze_at_a_step,
            self._shrunk_topic,
        ]
        if scenario.clock_jumps:
            kinds += [self._clock_jump] * 2
        if scenario.fails_over:
            kinds += [self._failover] * 3
        if scenario.exactly_once:
            kinds += [self._slow_coordinator, self._slow_coordinator]
        span = scenario.fault_seconds
        for _ in range(scenario.faults):
            self._plan(dice.uniform(0.1, span), dice.choice(kinds))
        # By dice of their own, so that whatever else happens in a seed stays as it is.
        self._lock_dice = random.Random(scenario.seed)
        if self._lock_dice.random() < LOCKED_SHARE:
            for _ in range(self._lock_dice.choice([1, 3])):
                timeline.at(self._lock_dice.uniform(0.1, span), self._lock_rows)
        if scenario.is_stormy:
            timeline.at(0.4, lambda: self._shrunk_topic(scenario.fault_seconds))
        for _ in range(scenario.crashes):
            timeline.at(dice.uniform(0.05, span), self._crash)
        for _ in range(scenario.operator_actions):
            timeline.at(dice.uniform(0.3, span), self._operate)

    def _plan(self, when: float, kind: Callable[[float], None]) -> None:
        lasts = self._dice.choice([0.3, 1.0, 3.0, 3.0, 13.0])

        def happen() -> None:
            if kind != self._freeze_at_a_step:
                self._world.count(f"fault {kind.__name__.strip('_').replace('_', ' ')}")
            kind(lasts)

        self._world.timeline.at(when, happen)

    def _note(self, text: str) -> None:
        self._world.history.note(f"! {text}")

    def _crash(self) -> None:
        alive = [daemon for daemon in self._world.daemons if daemon.is_alive]
        if not alive:
            return
        daemon = self._dice.choice(alive)
        step = self._dice.choice(["now", "now", "stop", *STEPS])
        if step == "now":
            self._world.count("fault kill -9")
            daemon.kill()
        elif step == "stop":
            self._world.count("fault SIGTERM")
            daemon.stop()
        else:
            daemon.dies_at = step

    def _sick_topic(self, lasts: float) -> None:
        topic = self._dice.choice(list(self._world.broker.topics.values()))
        topic.fault = self._dice.choice(TOPIC_FAULTS)
        self._note(f"{topic.name} answers {topic.fault.name} for {lasts} s")
        self._world.timeline.after(lasts, lambda: setattr(topic, "fault", None))

    def _missing_topic(self, lasts: float) -> None:
        topic = self._dice.choice(list(self._world.broker.topics.values()))
        topic.is_missing = True
        self._note(f"{topic.name} is missing for {lasts} s")
        self._world.timeline.after(lasts, lambda: setattr(topic, "is_missing", False))

    def _shrunk_topic(self, lasts: float) -> None:
        topic = self._dice.choice(list(self._world.broker.topics.values()))
        topic.is_shrunk = True
        self._world.shrunk.add(topic.name)
        self._note(f"{topic.name} takes no size at all for {lasts} s")
        self._world.timeline.after(lasts, lambda: setattr(topic, "is_shrunk", False))

    def _silent_partition(self, lasts: float) -> None:
        topic = self._dice.choice(list(self._world.broker.topics.values()))
        partition = self._dice.randrange(len(topic.logs))
        topic.stalled_until[partition] = self._world.timeline.now + lasts
        self._note(f"{topic.name}-{partition} is silent for {lasts} s")

    def _broker_down(self, lasts: float) -> None:
        self._world.broker.down_until = self._world.timeline.now + lasts
        self._note(f"no broker answers for {lasts} s")

    def _fatal_producer(self, lasts: float) -> None:
        for daemon in self._world.daemons:
            if daemon.is_alive:
                self._note(f"the producer of {daemon.name} dies")
                daemon.publisher.fail()
                chains = daemon.chains_producer
                if chains is not None:
                    self._world.timeline.after(lasts / 2, chains.fail_chains)

    def _slow_coordinator(self, lasts: float) -> None:
        self._world.broker.slow_share = 0.5
        self._note(f"half of what is asked of the coordinator takes seconds for {lasts} s")
        self._world.timeline.after(lasts, lambda: setattr(self._world.broker, "slow_share", 0.0))

    def _failing_statements(self, lasts: float) -> None:
        self._world.statement_faults.before = 0.4
        self._note(f"two statements of five fail for {lasts} s")
        self._world.timeline.after(lasts, lambda: setattr(self._world.statement_faults, "before", 0.0))

    def _lost_answers(self, lasts: float) -> None:
        self._world.statement_faults.lost_answer = 0.5
        self._note(f"half of the settlements' answers are lost for {lasts} s")
        self._world.timeline.after(lasts, lambda: setattr(self._world.statement_faults, "lost_answer", 0.0))

    def _slow_statements(self, lasts: float) -> None:
        self._world.statement_faults.slow = 0.2
        self._note(f"a fifth of the statements is slow for {lasts} s")
        self._world.timeline.after(lasts, lambda: setattr(self._world.statement_faults, "slow", 0.0))

    def _database_down(self, lasts: float) -> None:
        self._world.db.down_until = self._world.timeline.now + lasts
        self._note(f"the database is down for {lasts} s")

    def _lock_rows(self) -> None:
        """Somebody locks rows that are pending, and leaves the transaction open."""
        db, dice = self._world.db, self._lock_dice
        lasts = dice.choice([0.3, 3.0, 13.0, 60.0])
        self._world.count("fault locked rows")
        rows = dice.sample(sorted(db.pending), min(len(db.pending), dice.choice([1, 1, 3, 40])))
        db.locked_until.update((row_id, db.timeline.now + lasts) for row_id in rows)
        self._note(f"{len(rows)} pending rows are locked for {lasts} s: {rows[:3]}")

    def _clock_jump(self, lasts: float) -> None:
        """The database's clock is set wrong, by up to an hour; after a while it is set right."""
        db = self._world.db
        db.clock_error = self._dice.choice([-HOUR_SECONDS, -5.0, -1.0, 1.0, 5.0, HOUR_SECONDS])
        self._note(f"the database's clock is wrong by {db.clock_error:g} s for {lasts} s")
        self._world.clock_jumped()
        self._world.timeline.after(lasts, self._set_clock_right)

    def _set_clock_right(self) -> None:
        if self._world.db.clock_error:
            self._world.db.clock_error = 0.0
            self._note("the database's clock is right again")
            self._world.db.bring_forward()
            self._world.clock_jumped()

    def _failover(self, lasts: float) -> None:
        """The primary dies, and its asynchronous standby goes on without what it had not got yet."""
        db, dice, timeline = self._world.db, self._dice, self._world.timeline
        copy = db.copied()

        def happen() -> None:
            if self._world.is_healed:
                return
            lost = db.fail_over(copy, dice.choice([0, 0, 0, 32]))
            self._world.invariants.forget_deaths()
            db.down_until = timeline.now + min(lasts, 3.0) * dice.random()
            self._world.counts["rows lost by failovers"] += lost
            self._note(f"PostgreSQL fails over, {lost} committed rows are lost")

        timeline.after(dice.choice([0.0, 0.05, 0.2, 1.0]), happen)

    def _freeze(self, lasts: float) -> None:
        alive = [daemon for daemon in self._world.daemons if daemon.is_alive]
        if alive:
            self._dice.choice(alive).freeze(lasts)

    def _freeze_at_a_step(self, lasts: float) -> None:
        alive = [daemon for daemon in self._world.daemons if daemon.is_alive]
        if alive:
            self._dice.choice(alive).freezes_at = (self._dice.choice(STEPS), lasts)

    # Operators.

    def _operate(self) -> None:
        db, dice, now = self._world.db, self._dice, self._world.db.now
        dead = [letter for letter in db.dead.values() if letter.status == "dead"]
        action = dice.choice(["pause", "pause", "replay", "discard"])
        if action == "pause" or not dead:
            pattern = dice.choice([*self._world.scenario.topics, "*"])
            db.control[pattern] = (now, "an operator")
            self._note(f"an operator pauses {pattern}")
            self._world.timeline.after(dice.uniform(0.1, 3.0), lambda: self._resume(pattern))
            return
        letter = dice.choice(dead)
        if action == "replay":
            key = (letter.row.topic, letter.row.key)
            # Often all of a key, and with what else is dead: the list of replays is then gone through in parts.
            together = [each for each in dead if letter.id % 2 or (each.row.topic, each.row.key) == key]
            self._note(f"an operator replays {' '.join(str(each.row.id) for each in together)}")
            db.replay(*together)
        else:
            self._note(f"an operator discards {letter.row.id}")
            db.discard(letter)

    def _resume(self, pattern: str) -> None:
        if self._world.db.control.pop(pattern, None) is not None:
            self._note(f"an operator resumes {pattern}")

    def _replay_dead_keys(self) -> None:
        """All that is dead of a key is replayed by one transaction, key after key."""
        keys: dict[tuple[str, str | None], list[DeadRow]] = {}
        for letter in self._world.db.dead.values():
            if letter.status == "dead":
                keys.setdefault((letter.row.topic, letter.row.key), []).append(letter)
        for letters in keys.values():
            self._world.timeline.after(
                self._dice.uniform(0.0, LAST_REPLAYS_SECONDS), partial(self._world.db.replay, *letters)
            )

    def heal(self) -> None:
        """All faults end, and the operators do what is theirs to do."""
        world = self._world
        world.broker.down_until = world.db.down_until = world.broker.slow_share = 0.0
        world.db.locked_until.clear()
        faults = world.statement_faults
        faults.before = faults.lost_answer = faults.slow = 0.0
        for topic in world.broker.topics.values():
            topic.fault, topic.is_missing, topic.is_shrunk = None, False, False
            topic.stalled_until = [0.0] * len(topic.logs)
        for daemon in world.daemons:
            daemon.frozen_until = min(daemon.frozen_until, world.timeline.now)
        self._set_clock_right()
        # A crash may have undone that.
        world.db.bring_forward()
        world.db.control.clear()
        for letter in world.db.dead.values():
            if letter.holds_key and letter.status == "dead":
                world.db.discard(letter)
        if world.scenario.operator_actions:
            self._replay_dead_keys()
        self._note("all faults end")
