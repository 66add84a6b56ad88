"""A simulated outbox database: committed rows, transactions under way, and the tables beside the outbox."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace
from typing import Any

from outboxd.policy.lease_watch import LeaseSight, LeaseVersion
from outboxd.policy.rows.records import Arm, Record
from tests.simulation.ids import Ids
from tests.simulation.timeline import EPOCH_MS, Timeline

LONG_OPEN_SECONDS = 100.0
DELAY_SECONDS_MAX = 3.0
"""So far ahead applications write rows at most."""


class Kind(enum.Enum):
    """What is wrong with a row, and whose fault it is."""

    GOOD = "good"
    POISON = "poison"
    """Too large for the topic: spoils its batch."""
    REFUSED = "refused"
    """The client refuses it at once."""
    FLAKY = "flaky"
    """Fails once or twice for a passing reason of its own."""
    DOOMED = "doomed"
    """Always fails for a passing reason of its own."""
    KILLER = "killer"
    """The process that gives it to the client dies."""


@dataclass(slots=True)
class Row:
    """A row of the outbox; `committed_at` is None until its transaction ends. `is_early`: its id was drawn long ago."""

    id: int
    topic: str
    key: str | None
    size_bytes: int
    kind: Kind
    created_at: float
    available_at: float | None = None
    is_early: bool = False
    is_locked: bool = False
    failures_left: int = 0
    committed_at: float | None = None
    published: tuple[int | None, int | None] | None = None
    ever_dead: bool = False
    is_death_lost: bool = False
    """A failover lost its death: while it was dead, later ones of its key went."""
    event_id: str = ""

    def record(self, arm: Arm, now_ms: int) -> Record:
        # Some of what is refused is refused by outboxd's own checks, before the client sees it.
        headers = "1" if self.kind is Kind.REFUSED and self.id % 2 == 0 else "{}"
        return Record(arm, self.id, self.event_id, self.topic, self.key, b"", headers, None, now_ms, self.size_bytes)


@dataclass(slots=True)
class RetryRow:
    """A row of `retry`."""

    attempts: int
    next_attempt_at: float
    own_age: float = 0.0
    error_code: str = ""


@dataclass(slots=True)
class DeadRow:
    """A row of `dead_letter`."""

    id: int
    row: Row
    reason: str
    code: str
    attempts: int
    holds_key: bool
    status: str = "dead"
    resolved_at: float = 0.0
    is_undone: bool = False
    """A failover lost what became of it."""
    replay: int = 0
    """The number of the operator's transaction that replayed it last."""


@dataclass(slots=True)
class Transaction:
    """A writer's transaction. `name` is its virtual transaction id while it holds the outbox's lock, else None."""

    number: int
    name: str | None = None
    rows: list[Row] = field(default_factory=list)
    keys: set[tuple[str, str]] = field(default_factory=set)


@dataclass(slots=True)
class LeaseRow:
    """The row of `lease`."""

    token: int = 0
    holder: str = ""
    daemon: str = ""
    expires_at: float = float("-inf")
    renewed_at: float = 0.0


@dataclass(frozen=True, slots=True)
class StartRow:
    """A row of `start`: an ownership, how it ended, and the ids that it recorded as in the air; None without care."""

    id: int
    published_ids: frozenset[int] | None
    was_clean: bool = False


@dataclass(frozen=True, slots=True)
class Copy:
    """All tables as they were."""

    rows: dict[int, Row]
    pending: list[int]
    retry: dict[int, RetryRow]
    dead: dict[int, DeadRow]
    control: dict[str, tuple[float, str]]
    lease: LeaseRow
    settled_transaction: int
    last_id: int
    dead_letters: int
    start_log: list[StartRow]


class Database:
    """All tables; every method is one atomic statement at the present simulated time."""

    def __init__(self, timeline: Timeline, *, deletes: bool, ids_begin_after: int = 0) -> None:
        self.timeline = timeline
        self.deletes = deletes
        self.rows: dict[int, Row] = {}
        self.pending: dict[int, Row] = {}
        self.retry: dict[int, RetryRow] = {}
        self.dead: dict[int, DeadRow] = {}
        self.control: dict[str, tuple[float, str]] = {}
        self.lease = LeaseRow()
        self.start_log: list[StartRow] = []
        self.by_key: dict[tuple[str, str | None], list[Row]] = {}
        self.open: dict[int, Transaction] = {}
        self.key_locks: dict[tuple[str, str], int] = {}
        self.down_until = 0.0
        self.locked_until: dict[int, float] = {}
        """Rows that somebody else has locked."""
        self.clock_error = 0.0
        self.settled_transaction = 0
        self.server = 1
        """Which server it is: another one after each failover."""
        self.starts = 1
        """How often a server began: connections are of one start."""
        self.events: dict[str, Row] = {}
        """Every row that was ever committed, by its event: as it is now, or as it was when a failover lost it."""
        self.ids = Ids(ids_begin_after)
        self._on_disk: Copy | None = None
        self._waits_for_nobody = False
        self._transactions = 0
        self._events = 0
        self._dead_letters = 0
        self._replays = 0

    # Its clock.

    @property
    def now(self) -> float:
        """The server's own clock, which may be set: seconds as the timeline has them, and the error."""
        return self.timeline.now + self.clock_error

    @property
    def now_ms(self) -> int:
        return EPOCH_MS + int(self.now * 1000)

    # Writers.

    def draw_id(self) -> int:
        return self.ids.draw()

    def event_id(self) -> str:
        """Return the next event id; ids are given twice after a failover, these are not."""
        self._events += 1
        return f"00000000-0000-4000-8000-{self._events:012x}"

    def begin(self) -> Transaction:
        self._transactions += 1
        transaction = self.open[self._transactions] = Transaction(self._transactions)
        return transaction

    def lock_outbox(self, transaction: Transaction) -> None:
        transaction.name = transaction.name or f"3/{transaction.number}"

    def prepare(self, transaction: Transaction) -> None:
        transaction.name = f"-1/{transaction.number}"

    def lock_key(self, transaction: Transaction, key: tuple[str, str]) -> bool:
        if transaction.number not in self.open:
            return True
        owner = self.key_locks.setdefault(key, transaction.number)
        if owner == transaction.number:
            transaction.keys.add(key)
        return owner == transaction.number

    def finish(self, transaction: Transaction, *, commit: bool) -> None:
        if self.open.pop(transaction.number, None) is None:
            # A failover ended it.
            return
        for key in transaction.keys:
            del self.key_locks[key]
        for row in transaction.rows if commit else ():
            row.committed_at = self.timeline.now
            row.event_id = row.event_id or self.event_id()
            self.events[row.event_id] = row
            self.rows[row.id] = self.pending[row.id] = row
            self.by_key.setdefault((row.topic, row.key), []).append(row)
        self.committed()

    def locks(self) -> frozenset[str]:
        return frozenset(transaction.name for transaction in self.open.values() if transaction.name)

    # Failover.

    def copied(self) -> Copy:
        """Return what an asynchronous standby has at this moment."""
        rows = {row_id: replace(row) for row_id, row in self.rows.items()}
        return Copy(
            rows=rows,
            pending=list(self.pending),
            retry={row_id: replace(retry) for row_id, retry in self.retry.items()},
            dead={letter.id: replace(letter, row=rows[letter.row.id]) for letter in self.dead.values()},
            control=dict(self.control),
            lease=replace(self.lease),
            settled_transaction=self.settled_transaction,
            last_id=self.ids.last,
            dead_letters=self._dead_letters,
            start_log=list(self.start_log),
        )

    def fail_over(self, copy: Copy, ids_skipped: int) -> int:
        """Go on as the standby that has this copy; return how many committed rows are lost. Ids are drawn again."""
        self.server += 1
        return self._go_on_from(copy, ids_skipped, is_noticed=True)

    # A crash, after which this server goes on by what is on its disk.

    def stop_writing(self, *, waits_for_nobody: bool) -> None:
        """What is committed now is on the disk; of what comes, what somebody waits for (`synchronous_commit`), and
        whatever was committed before that. Marks wait only in exactly-once delivery; applications and operators do
        unless it `waits_for_nobody`.
        """
        self._on_disk, self._waits_for_nobody = self.copied(), waits_for_nobody

    @property
    def lags(self) -> bool:
        """Whether the disk may lack something."""
        return self._on_disk is not None

    def committed(self, *, always: bool = False) -> None:
        """A transaction other than a mark was committed; `always`: it waits for the disk in any case."""
        if self._on_disk is not None and (always or not self._waits_for_nobody):
            self._on_disk = self.copied()

    def crash(self, ids_skipped: int) -> int:
        """Go on by what is on the disk; return how many committed rows are lost."""
        assert self._on_disk is not None
        return self._go_on_from(self._on_disk, ids_skipped, is_noticed=False)

    def _go_on_from(self, copy: Copy, ids_skipped: int, *, is_noticed: bool) -> int:
        lost = len(self.rows) - len(copy.rows)
        # What an operator did is lost with the rest; the relay may have acted on it.
        for letter in copy.dead.values():
            former = self.dead.get(letter.id)
            letter.is_undone = letter.is_undone or former is None or former.status != letter.status
        self.starts += 1
        self._on_disk = None
        self.rows = copy.rows
        self.pending = {row_id: copy.rows[row_id] for row_id in copy.pending}
        self.retry, self.dead, self.control, self.lease = copy.retry, copy.dead, copy.control, copy.lease
        self.settled_transaction = copy.settled_transaction
        self.ids.go_back(copy.last_id + ids_skipped, self.rows, is_noticed=is_noticed)
        self._dead_letters, self.start_log = copy.dead_letters, copy.start_log
        self.open.clear()
        self.key_locks.clear()
        self.by_key.clear()
        for row in self.rows.values():
            self.by_key.setdefault((row.topic, row.key), []).append(row)
            known = self.events[row.event_id]
            row.is_death_lost = known.is_death_lost or (known.ever_dead and not row.ever_dead)
            self.events[row.event_id] = row
        return lost

    def bring_forward(self) -> None:
        """Rows that wait for their time do not wait much longer: what applications meant by it was no hour, which a
        wrong clock made of it.
        """
        for row in [*self.rows.values(), *(row for one in self.open.values() for row in one.rows)]:
            if row.available_at is not None:
                row.available_at = min(row.available_at, self.now + DELAY_SECONDS_MAX)

    # Operators.

    def replay(self, *letters: DeadRow) -> None:
        self._replays += 1
        for dead in letters:
            if dead.status == "dead":
                dead.status, dead.replay = "replaying", self._replays
        self.committed()

    def discard(self, dead: DeadRow) -> None:
        """Some operators' transactions are open for so long that no fetch tells of it any more."""
        if dead.status == "dead":
            began_at = self.now - (LONG_OPEN_SECONDS if dead.id % 3 == 0 else 0.0)
            dead.status, dead.resolved_at = "discarded", began_at
        self.committed()

    def bury(self, row: Row, reason: str, code: str, attempts: int, *, holds_key: bool) -> DeadRow:
        self._dead_letters += 1
        dead = DeadRow(self._dead_letters, row, reason, code, attempts, holds_key)
        self.dead[dead.id] = dead
        row.ever_dead = True
        return dead

    # The lease.

    def look_at_lease(self) -> LeaseSight:
        """Return what a standby sees of it."""
        lease = self.lease
        version = LeaseVersion(lease.holder, lease.token, repr(lease.expires_at))
        return LeaseSight(version, lease.expires_at - self.now, lease.expires_at - lease.renewed_at)

    def acquire(self, holder: str, daemon: str, ttl: float) -> int:
        """Take the lease, which is over; return the token."""
        lease, now = self.lease, self.now
        lease.renewed_at = now
        lease.token, lease.holder, lease.daemon, lease.expires_at = lease.token + 1, holder, daemon, now + ttl
        self.committed()
        return lease.token

    def renew(self, holder: str, token: int, ttl: float) -> bool:
        lease = self.lease
        if lease.holder != holder or lease.token != token:
            return False
        lease.expires_at, lease.renewed_at = self.now + ttl, self.now
        self.committed()
        return True

    def release(self, holder: str) -> None:
        if self.lease.holder == holder:
            self.lease.expires_at = self.lease.renewed_at = self.now
            self.committed()

    # Starts.

    def last_start(self) -> StartRow | None:
        return self.start_log[-1] if self.start_log else None

    def add_start(self, published_ids: frozenset[int] | None) -> StartRow:
        row = StartRow(self.start_log[-1].id + 1 if self.start_log else 1, published_ids)
        self.start_log.append(row)
        self.committed()
        return row

    def note_published(self, start_id: int, published_ids: frozenset[int]) -> None:
        self._change_start(start_id, published_ids=published_ids or None)

    def end_start(self, start_id: int) -> None:
        self._change_start(start_id, published_ids=None, was_clean=True)
        self.committed()

    def _change_start(self, start_id: int, **values: Any) -> None:
        self.start_log = [replace(row, **values) if row.id == start_id else row for row in self.start_log]
