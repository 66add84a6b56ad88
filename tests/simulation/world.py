"""The simulated world: one seed, one history. Faults for a while, then healing, then all must be done in time."""

from __future__ import annotations

import random
from collections import Counter

from outboxd.policy.blame.backoff import PROBE_DELAY_MAX_SECONDS
from outboxd.policy.exchange.requests import Settlement
from outboxd.policy.topics.breakers import WATCHED_TRIES
from tests.simulation.broker import Broker
from tests.simulation.changes import Changes
from tests.simulation.coordinator import Coordinator
from tests.simulation.daemon import Daemon
from tests.simulation.database import Database, Kind, Row
from tests.simulation.faults import LAST_REPLAYS_SECONDS, Faults
from tests.simulation.history import History, Violation
from tests.simulation.invariants import Invariants
from tests.simulation.letters import Letters
from tests.simulation.oddities import Oddities
from tests.simulation.scenario import Scenario, scenario
from tests.simulation.stalls import Stalls
from tests.simulation.store import StatementFaults
from tests.simulation.timeline import Timeline
from tests.simulation.writers import Writer

DEADLINE_SECONDS = 120.0
TRICKLE_SECONDS = 0.25
DOOMED_SECONDS = 60.0
DOOMED_KEYS_MANY = 8
LET_GO_SECONDS = WATCHED_TRIES * (PROBE_DELAY_MAX_SECONDS + 0.5)
"""So long a row may take until it is blamed where an operator let its topic go: three tries, a probe each."""
STEPS_MAX = 400_000


class World:
    """Everything there is in one seed's history."""

    def __init__(self, seed: int) -> None:
        self.scenario: Scenario = scenario(seed)
        self.dice = random.Random(seed)
        self.timeline = Timeline()
        self.history = History(self.timeline)
        self.db = Database(self.timeline, deletes=self.scenario.deletes, ids_begin_after=self.scenario.ids_begin_after)
        self.invariants = Invariants(self)
        self.broker = Broker(
            self.timeline, self.dice, list(self.scenario.topics), self.scenario.partitions, self._on_append
        )
        self.coordinator = Coordinator(self.timeline, self._on_append, self.scenario.transaction_seconds)
        self.statement_faults = StatementFaults()
        self.shrunk: set[str] = set()
        self.is_healed = False
        self.two_owners_until = 0.0
        self.counts: Counter[str] = Counter()
        self._cares = 0
        self._starts = 0
        self._by_key: dict[tuple[str, str], list[Row]] = {}
        self.daemons: list[Daemon] = []
        for _ in range(self.scenario.daemons):
            self._start()
        share = -(-self.scenario.transactions // self.scenario.writers)
        self.writers = [
            Writer(self.db, random.Random(self.dice.random()), self.scenario, self.history, share)
            for _ in range(self.scenario.writers)
        ]
        self.faults = Faults(self, random.Random(self.dice.random()))
        self.oddities = Oddities(self)
        self.letters = Letters(self)
        self.stalls = Stalls(self)
        self.changes = Changes(self)

    # What the parts ask of the world.

    def row(self, event_id: str) -> Row:
        return self.db.events[event_id]

    def holds_key(self, row: Row) -> bool:
        """Say whether the row is a dead letter that holds its key."""
        if not row.ever_dead:
            return False
        letters = [letter for letter in self.db.dead.values() if letter.row is row]
        held = [letter for letter in letters if letter.holds_key and letter.status in ("dead", "replaying")]
        return any(not letter.is_undone for letter in held)

    def rows_of_key(self, topic: str, key: str) -> list[Row]:
        return self.db.by_key.get((topic, key), [])

    def _on_append(self, topic: str, partition: int, offset: int, row: Row) -> None:
        self.history.note(f"log {topic}-{partition}@{offset} = {row.id} {topic}/{row.key}")
        self.invariants.on_append(topic, partition, offset, row)

    def note_settlement(self, daemon: Daemon, settlement: Settlement) -> None:
        told = []
        for name in ("delivered_ids", "retries", "dead", "replayed", "recovered_replays", "died_again", "storms"):
            values = getattr(settlement, name)
            if values:
                ids = [value[0] if isinstance(value, tuple) else value for value in values]
                told.append(f"{name} {' '.join(map(str, ids))}")
        self.history.note(f"{daemon.name} settles {', '.join(told)}")

    def _start(self) -> None:
        self._starts += 1
        self.daemons.append(Daemon(self, f"d{self._starts}"))

    def restart(self, ended: Daemon) -> None:
        """A daemon that ended is started again, as systemd does."""
        self.timeline.after(self.dice.uniform(0.05, 1.5), self._start)

    def clock_jumped(self) -> None:
        """Set clocks end leases early: their owners trust them for so long at most."""
        self.two_owners_until = self.timeline.now + self.scenario.lease_ttl

    def commits_lost(self) -> None:
        """The database lost commits and is the same server all the same: what was settled may be pending again, and the
        lease be another one's.
        """
        self.clock_jumped()
        self.invariants.forget_settled()
        self.invariants.forget_deaths()
        for daemon in self.daemons:
            daemon.forget_delivered()

    def care_dice(self) -> random.Random:
        """Return other dice for each part of the care, lest it change what else happens."""
        self._cares += 1
        return random.Random(f"care {self.scenario.seed} {self._cares}")

    def count(self, what: str, times: int = 1) -> None:
        """One more of these happened, or so many."""
        self.counts[what] += times

    def figures(self) -> Counter[str]:
        """Return what there was of everything, for the sum of many seeds."""
        mode = "exactly-once" if self.scenario.exactly_once else "at-least-once"
        coordinator = self.coordinator
        return self.counts + Counter(
            {
                "rows": len(self.db.rows),
                f"rows {mode}": len(self.db.rows),
                f"seeds {mode}": 1,
                f"duplicates {mode}": self.invariants.duplicates,
                "daemons": self._starts,
                "dead letters": len(self.db.dead),
                "simulated seconds": int(self.timeline.now),
                "transactions committed": coordinator.commits,
                "transactions aborted": coordinator.aborts,
                "transactions timed out": coordinator.timeouts,
            }
        )

    def close(self) -> None:
        """End what the daemons have under way."""
        for daemon in self.daemons:
            daemon.end()

    # The history.

    def run(self) -> None:
        """Let the seed's history happen. Raises `Violation` where an invariant does not hold."""
        self._run_until(self.scenario.fault_seconds)
        while not all(writer.is_done for writer in self.writers):
            self._run_until(self.timeline.now + 0.5)
        self.faults.heal()
        self.is_healed = True
        self._run_until(self.timeline.now + LAST_REPLAYS_SECONDS)
        patience = 2 * DEADLINE_SECONDS if self.scenario.exactly_once else DEADLINE_SECONDS
        deadline = self.timeline.now + patience + DOOMED_SECONDS * self._patience_costs()
        deadline += LET_GO_SECONDS * self._let_go_costs()
        trickle_at = self.timeline.now
        while self._is_unfinished():
            if self.timeline.now > deadline:
                rows = self.invariants.unfinished()
                raise self.invariants.stuck(rows) if rows else Violation("progress", "a replay never ends")
            self._run_until(self.timeline.now + 0.1)
            self._operate()
            if self.timeline.now >= trickle_at:
                trickle_at = self.timeline.now + TRICKLE_SECONDS
                self._trickle()
        self._run_until(self.timeline.now + 0.5)
        self.invariants.at_end()

    def _patience_costs(self) -> int:
        """How many doomed rows are waited for one by one, until each is blamed often enough: in a topic that goes one
        record at a time all of them, and where they stand before many keys, since each is a probe before one passes.
        """
        doomed = Counter(row.topic for row in self.db.rows.values() if row.kind is Kind.DOOMED)
        return sum(rows for topic, rows in doomed.items() if topic.startswith("serial") or rows > DOOMED_KEYS_MANY)

    def _let_go_costs(self) -> int:
        """How many rows are blamed one by one at most, in the topic that has most of them, where a storm was let go."""
        rows = [*self.db.pending.values(), *(dead.row for dead in self.db.dead.values() if dead.status == "replaying")]
        faulty = Counter(row.topic for row in rows if row.kind in (Kind.POISON, Kind.REFUSED))
        return max(faulty.values(), default=0)

    def _operate(self) -> None:
        """Operators resume what the storm guard paused, and discard what still holds its key."""
        self.db.control.clear()
        for dead in self.db.dead.values():
            if dead.status == "dead" and dead.holds_key:
                self.db.discard(dead)

    def _trickle(self) -> None:
        """Where a row is pending that always fails, others of its topic come too: they show whose the fault is."""
        rows = [*self.db.pending.values(), *(dead.row for dead in self.db.dead.values() if dead.status == "replaying")]
        for topic in sorted({row.topic for row in rows if row.kind is Kind.DOOMED}):
            transaction = self.db.begin()
            row_id = self.db.draw_id()
            transaction.rows.append(Row(row_id, topic, f"t{row_id}", 100, Kind.GOOD, self.timeline.now))
            self.db.finish(transaction, commit=True)

    def _is_unfinished(self) -> bool:
        return bool(self.db.pending) or any(dead.status == "replaying" for dead in self.db.dead.values())

    def _run_until(self, when: float) -> None:
        if not self.timeline.run_until(when, STEPS_MAX):
            raise Violation("progress", f"{STEPS_MAX} steps without getting from one moment to the next")
