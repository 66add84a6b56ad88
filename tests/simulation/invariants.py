"""What must hold at every step and at the end, whatever goes wrong (DESIGN §1 in simulated terms)."""

from __future__ import annotations

import fnmatch
from collections import Counter
from typing import TYPE_CHECKING

from outboxd.policy.exchange.messages import Report
from outboxd.policy.exchange.requests import Settlement
from outboxd.policy.faults import FaultClass
from outboxd.policy.rows.records import Record
from outboxd.policy.topics.breakers import STORM_KEYS
from tests.simulation.database import Kind, Row
from tests.simulation.history import Violation
from tests.simulation.statements import is_of_event

if TYPE_CHECKING:
    from tests.simulation.daemon import Daemon
    from tests.simulation.world import World


DEATHS_MAX = 2
"""So often does a row kill daemons, one after another, until it is known."""


class Invariants:
    """Looks on; raises `Violation` at the first thing that does not hold."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._first: dict[str, float] = {}
        self._were_stuck: set[tuple[str, int | None]] = set()
        self._storm_keys: dict[tuple[str, int], set[str | int]] = {}
        self._sent_as_shown_at: dict[str, float] = {}
        self._sent_after: dict[str, list[Row]] = {}
        self._sent_by: dict[str, set[str]] = {}
        """What was sent, by the holder whose lease it was: a token is given again after a failover that lost it."""
        self._sent_replays: set[tuple[str, int]] = set()
        self._deaths: Counter[str] = Counter()
        self.duplicates = 0

    def forget_settled(self) -> None:
        """The database lost what was settled last, which goes again."""
        self._sent_by.clear()

    # At every step.

    def one_statement(self, daemon: Daemon, under_way: int) -> None:
        if under_way:
            raise Violation("one statement", f"{daemon.name} begins a statement while one is under way")

    def before_publish(self, daemon: Daemon, record: Record, *, was_taken: bool = False) -> None:
        """`was_taken`: the publisher took it earlier, when its topic was not paused."""
        lease = self._world.db.lease
        row = self._world.row(record.event_id)
        topic = record.topic
        self._sent_by.setdefault(daemon.lease.holder, set()).add(record.event_id)
        # A failover may lose the lease too, and a clock that is set may end it: its owner hears of it a little later.
        is_told = (
            daemon.lease.server == self._world.db.server and self._world.timeline.now > self._world.two_owners_until
        )
        if lease.daemon != daemon.name and is_told:
            raise Violation("one owner", f"{daemon.name} publishes {record.id}, {lease.daemon} owns", (record.id,))
        self._replayed_in_order(row)
        if record.event_id not in self._sent_as_shown_at:
            self._sent_as_shown_at[record.event_id] = daemon.snapshots[record.event_id]
            # What is shown once the record was let go comes too late, though the producer's queue may be full then.
            now = daemon.let_go.get(record.event_id, self._world.timeline.now)
            self._sent_after[record.event_id] = [
                older
                for older in self._world.rows_of_key(topic, record.key or "")
                if daemon.shown.get(older.event_id, now) < now
            ]
        if row.published is not None and lease.daemon == daemon.name:
            raise Violation("settled once", f"{daemon.name} sends {row.id} again after it was settled", (row.id,))
        # Settled before its report was in: the report comes after the crash that lost the mark.
        is_loss = self._world.scenario.loses_commits and topic.startswith("lossy")
        is_taken_back = self._world.letters.was_taken_back(row.event_id)
        if daemon.was_delivered(record) and not is_loss and not is_taken_back:
            raise Violation("sent once", f"{daemon.name} sends {row.id} again after it was delivered", (row.id,))
        if not was_taken and any(fnmatch.fnmatchcase(topic, pattern) for pattern in daemon.pauses):
            raise Violation("pauses", f"{daemon.name} sends {row.id} though {topic} is paused", (row.id,))
        if row.committed_at is None:
            raise Violation("no ghost", f"{record.id} was never committed", (record.id,))

    def _replayed_in_order(self, row: Row) -> None:
        """Dead letters of one key that one transaction replays go by the ids of their rows."""
        dead = next((dead for dead in self._world.db.dead.values() if dead.row is row), None) if row.ever_dead else None
        if dead is None or dead.status != "replaying" or row.key is None:
            return
        self._sent_replays.add((row.event_id, dead.replay))
        for other in self._world.db.dead.values():
            older = other.row
            is_before = older.id < row.id and (older.topic, older.key) == (row.topic, row.key)
            if not is_before or other.status != "replaying" or other.replay != dead.replay or other.is_undone:
                continue
            if (older.event_id, other.replay) not in self._sent_replays:
                raise Violation("replay order", f"{row.id} is replayed before {older.id}", (row.id, older.id))

    def on_append(self, topic: str, partition: int, offset: int, row: Row) -> None:
        """A record enters the log: on its first time, nothing older of its key may be missing there."""
        if row.event_id in self._first:
            self.duplicates += 1
            if self._world.scenario.exactly_once and not self._world.letters.was_taken_back(row.event_id):
                raise Violation("exactly once", f"{row.id} is committed twice, at {partition}@{offset}", (row.id,))
            return
        self._first[row.event_id] = self._world.timeline.now
        self._storm_keys.pop((topic, self._world.db.lease.token), None)
        if row.key is None or topic.startswith("lossy") or row.ever_dead or row.available_at is not None:
            return
        if self._world.db.rows.get(row.id) is not row:
            # A failover lost it before it arrived.
            return
        for older in self._world.rows_of_key(topic, row.key):
            if older.id < row.id and self._is_passed_over(older, row):
                raise Violation(
                    "key order",
                    f"{row.id} of {topic}/{row.key} is in the log before {older.id}",
                    (row.id, older.id, f"{topic}/{row.key}"),
                )

    def on_death_by(self, row: Row) -> None:
        """Twice kills a row the daemon itself: then it was recorded, and a process of its own is sent for it. Where the
        database loses the start of an owner, what that died of is taken for nothing.
        """
        self._deaths[row.event_id] += 1
        scenario = self._world.scenario
        if self._deaths[row.event_id] > DEATHS_MAX + (scenario.loses_commits or scenario.fails_over):
            raise Violation("careful", f"the daemon dies of {row.id} once more", (row.id,))

    def on_answered(self, report: Report) -> None:
        """A process apart told what became of a suspect. Where its topic is not there it was not given to the client:
        the daemon sends it itself from then on, and dies of it once more at most, since it stays recorded.
        """
        error, event_id = report.error, report.record.event_id
        if error is not None and error.fault.fault_class is FaultClass.TOPIC:
            self._deaths[event_id] = min(self._deaths[event_id], DEATHS_MAX - 1)

    def forget_deaths(self) -> None:
        """A daemon ended well, or the database lost what was recorded: nothing is suspected any more."""
        self._deaths.clear()

    def care_ended(self, suspects: frozenset[int]) -> None:
        """All but the suspects that it began with go as if they had killed none; those kill no daemon more."""
        for event_id in [one for one in self._deaths if self._world.row(one).id not in suspects]:
            del self._deaths[event_id]

    def on_drained(self, daemon: Daemon) -> None:
        """An owner says that nothing it published is unsettled: exactly-once delivery may begin on that, where those
        before it said so too.
        """
        world = self._world
        if world.scenario.exactly_once or daemon.lease.server != world.db.server:
            return
        for event_id in sorted(self._sent_by.get(daemon.lease.holder, ())):
            row = world.row(event_id)
            if world.db.pending.get(row.id) is row:
                raise Violation("drained", f"{daemon.name} gives the lease up with {row.id} in doubt", (row.id,))
        world.count("leases given up as drained")

    def _is_passed_over(self, older: Row, row: Row) -> bool:
        if older.is_locked and row.is_locked and self._world.holds_key(older):
            # Once its replay is delivered its key goes on, before that is written.
            return older.event_id not in self._first
        if older.event_id in self._first or older.ever_dead:
            return False
        return self._goes_before(older, row)

    def _goes_before(self, older: Row, row: Row) -> bool:
        """Say whether the older row is to go first: it can be told from its time that it is the older one."""
        if older.committed_at is None or older.is_early or older.available_at is not None or older.is_death_lost:
            return False
        if older.is_locked and row.is_locked:
            return True
        # What commits after a newer one of its key was sent goes when it is seen.
        return older.committed_at < self._sent_as_shown_at[row.event_id] or any(
            older.event_id == shown.event_id for shown in self._sent_after[row.event_id]
        )

    def before_settle(self, daemon: Daemon, settlement: Settlement) -> None:
        """Nothing is settled but on its own delivery, nothing dies but of a fault of its own."""
        lease = self._world.db.lease
        if lease.daemon != daemon.name:
            raise Violation("one owner", f"{daemon.name} settles while {lease.daemon} owns")
        rows = self._world.db.rows
        places = zip(
            settlement.delivered_ids,
            settlement.delivered_partitions,
            settlement.delivered_offsets,
            settlement.delivered_pieces or [None] * len(settlement.delivered_ids),
            strict=True,
        )
        for row_id, partition, offset, piece in places:
            if piece is None or (row_id in rows and is_of_event(rows[row_id], piece)):
                self._delivered(rows[row_id], partition, offset)
        dead_pieces = settlement.dead_pieces or [None] * len(settlement.dead)
        for (row_id, death), piece in zip(settlement.dead, dead_pieces, strict=True):
            if row_id not in rows and self._world.scenario.loses_commits:
                # A crash lost the row that was to die: nothing of that id dies.
                continue
            if piece is not None and not is_of_event(rows[row_id], piece):
                # Nor does another row that was given the id.
                continue
            self._died(rows[row_id], death.reason.value, death.fault.name, lease.token)
        self._dies_first(settlement)

    def _dies_first(self, settlement: Settlement) -> None:
        """The first row of a key that dies and holds it keeps those behind it from dying."""
        world = self._world
        dying: set[str] = set()
        for row_id, death in settlement.dead:
            row = world.db.pending.get(row_id)
            if row is None or row.key is None or not death.holds_key:
                continue
            for older in world.rows_of_key(row.topic, row.key):
                if older.id >= row_id or not self._goes_before(older, row):
                    continue
                if older.event_id in dying or world.holds_key(older):
                    raise Violation("a dead row holds its key", f"{row_id} dies behind {older.id}", (row_id, older.id))
            dying.add(row.event_id)

    def _delivered(self, row: Row, partition: int | None, offset: int | None) -> None:
        row_id = row.id
        if row.topic.startswith("lossy"):
            return
        if partition is None or offset is None:
            raise Violation("settled on its own report", f"{row_id} is settled without a place in the log", (row_id,))
        log = self._world.broker.topics[row.topic].logs[partition]
        is_there = offset < len(log) and log[offset] == row.event_id
        if self._world.scenario.exactly_once:
            is_there = is_there and (row.topic, partition, offset) in self._world.coordinator.committed
        if not is_there:
            raise Violation("settled on its own report", f"{row_id} is not at {partition}@{offset}", (row_id,))

    def _died(self, row: Row, reason: str, code: str, token: int) -> None:
        if row.id not in self._world.db.pending:
            return
        if self._world.scenario.exactly_once and row.event_id in self._first:
            raise Violation("exactly once", f"{row.id} dies though it is committed", (row.id,))
        if row.kind in (Kind.POISON, Kind.REFUSED, Kind.DOOMED):
            return
        if row.kind is Kind.KILLER and code == "CRASHED_DAEMON":
            self._deaths.pop(row.event_id, None)
            return
        if row.kind is Kind.FLAKY and reason in ("exhausted", "expired"):
            return
        if row.topic in self._world.shrunk and code == "MSG_SIZE_TOO_LARGE":
            # A new owner begins to count anew, and so does the guard after each delivery's report, which comes later.
            # An operator's resume does not: what stormed is tried by one record at a time after it, and none dies.
            keys = self._storm_keys.setdefault((row.topic, token), set())
            keys.add(row.id if row.key is None else row.key)
            if len(keys) <= 2 * STORM_KEYS:
                return
        raise Violation("no row dies for others", f"{row.id} ({row.kind.value}) dies: {reason} {code}", (row.id,))

    def after_turn(self, daemon: Daemon) -> None:
        """Memory is bounded, also where a stuck topic's records are counted beside the limits."""
        state, limits = daemon.relay.state, daemon.relay.state.limits
        rows, size_bytes = len(state.ledger), state.ledger.size_bytes
        is_watched = any(breaker.is_watched for breaker in state.lanes.breakers.open.values())
        # What is stuck in a partition is counted beside the limits without a breaker.
        if is_watched or state.ledger.rows_free > max(0, limits.max_in_flight_rows - rows):
            # What was let in beside its records leaves memory some time after its end.
            self._were_stuck.add((daemon.name, state.token))
        beside = (daemon.name, state.token) in self._were_stuck
        rows_max = limits.max_in_flight_rows + limits.batch_rows
        if rows > rows_max + (rows_max // 2 if beside else 0):
            raise Violation("bounded", f"{daemon.name} has {rows} rows in memory")
        bytes_max = limits.max_in_flight_bytes + limits.batch_bytes + 3_000
        if size_bytes > bytes_max + (bytes_max // 4 if beside else 0):
            raise Violation("bounded", f"{daemon.name} has {size_bytes} bytes in memory")

    # At the end.

    def unfinished(self) -> list[Row]:
        """Return the committed rows that are neither published nor dead."""
        return list(self._world.db.pending.values())

    def at_end(self) -> None:
        """Everything committed is in the log or dead, and marked so."""
        for row in self._world.db.rows.values():
            if row.topic.startswith("lossy"):
                continue
            if row.event_id not in self._first and not row.ever_dead:
                raise Violation("nothing is lost", f"{row.id} is settled and not in the log", (row.id,))
            if row.published is not None:
                self._delivered(row, *row.published)
        for dead in self._world.db.dead.values():
            if dead.status == "replaying":
                raise Violation("progress", f"the replay of {dead.row.id} never ends", (dead.row.id,))

    def stuck(self, rows: list[Row]) -> Violation:
        row = rows[0]
        owners = [one for one in self._world.daemons if one.is_alive and one.relay.state.token is not None]
        told = [describe(daemon, row) for daemon in owners]
        return Violation(
            "progress",
            f"{len(rows)} rows are never delivered, the first is {row.id} ({row.topic}/{row.key}, {row.kind.value});"
            f" {' '.join(told)}",
            (*(one.id for one in rows[:5]), f"{row.topic}/{row.key}"),
        )


def describe(daemon: Daemon, row: Row) -> str:
    """Say what the owner has in its memory about the row."""
    state = daemon.relay.state
    gate_key = state.gate.key_for(row.topic, row.key)
    held = state.held.by_id.get(row.id)
    breaker = state.lanes.breakers.open.get(row.topic)
    facts = {
        "in memory": row.id in state.ledger.records,
        "held": held,
        "busy": state.gate.keys.owner_of(gate_key) if gate_key else None,
        "held ids": state.gate.held.get(gate_key) if gate_key else None,
        "deferred": state.gate.deferred_keys.get(gate_key) if gate_key else None,
        "topic held": state.topics.held.get(row.topic),
        "topic deferred": state.topics.deferred.get(row.topic),
        "position": state.wishes.cursors.position,
        "breaker": breaker and (breaker.fault.name, breaker.failures, breaker.next_probe_at, breaker.probing_id),
        "reading": state.reading is not None,
        "rows": len(state.ledger),
    }
    return f"{daemon.name}: {facts}"
