"""Ports: what the relay asks of the database, the broker and the clock, as Protocols beside their user.

The database's ports are asynchronous: `begin_…` returns at once, and the answer comes as one event by the mailbox.
At most one fetch (or load, or sweep) and one settlement are under way at a time. The publisher works on the relay's
own thread, since its delivery callbacks must not fight another thread for the interpreter.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

from outboxd.policy.exchange.messages import (
    DeliveryFault,
    Event,
    LeaseGranted,
    LeaseLost,
    Listening,
    ProgressRow,
    Reconfigured,
    Recovered,
    RecoverFailed,
    Report,
    Settled,
    SettleFailed,
    StopRequested,
    TopicsChanged,
    TransactionEnded,
    Woken,
)
from outboxd.policy.exchange.reads import (
    Arrived,
    DueReplay,
    Fetched,
    FetchFailed,
    HoldingLetters,
    KeyHolder,
    Loaded,
    Pause,
    Swept,
)
from outboxd.policy.exchange.requests import IMPATIENT, FetchRequest, Patience, Settlement, SweepRequest
from outboxd.policy.rows.records import Record
from outboxd.policy.topics.partitioners import Placement

__all__ = [
    "IMPATIENT",
    "Arrived",
    "Clock",
    "DeliveryFault",
    "Dice",
    "DueReplay",
    "Event",
    "FetchFailed",
    "FetchRequest",
    "Fetched",
    "HoldingLetters",
    "KeyHolder",
    "Lease",
    "LeaseGranted",
    "LeaseLost",
    "Listening",
    "Loaded",
    "Mailbox",
    "Observer",
    "OutboxStore",
    "Patience",
    "Pause",
    "ProgressRow",
    "Publisher",
    "Reconfigured",
    "RecoverFailed",
    "Recovered",
    "Report",
    "SettleFailed",
    "Settled",
    "Settlement",
    "StopRequested",
    "SweepRequest",
    "Swept",
    "TopicsChanged",
    "TransactionEnded",
    "Woken",
]


class Clock(Protocol):
    """A clock that never goes back."""

    def monotonic(self) -> float:
        """Return seconds since some fixed moment."""
        ...


class Mailbox(Protocol):
    """Where other threads leave events for the relay."""

    def take(self) -> list[Event]:
        """Return what came since the last call, without waiting."""
        ...

    def wait(self, timeout_seconds: float) -> None:
        """Return when something is there, or after `timeout_seconds`."""
        ...


class OutboxStore(Protocol):
    """The database, as the relay sees it."""

    def begin_load(self) -> None:
        """Read what a new owner must know; answers Loaded or FetchFailed."""
        ...

    def begin_fetch(self, request: FetchRequest, delay_seconds: float = 0.0, patience: Patience = IMPATIENT) -> None:
        """Read pending records, no sooner than `delay_seconds` from now, and again while nothing shows, as `patience`
        says; answers Fetched, Arrived or FetchFailed.
        """
        ...

    def hurry_fetch(self) -> None:
        """Have a fetch that waits ask at once, and answer whatever it finds. One that comes next may be hurried
        instead.
        """
        ...

    def begin_sweep(self, request: SweepRequest) -> None:
        """Read a chunk of the pending index; answers Swept or FetchFailed."""
        ...

    def begin_settle(self, settlement: Settlement, token: int) -> None:
        """Write outcomes under the lease's token; answers Settled or SettleFailed."""
        ...


class Publisher(Protocol):
    """The broker, as the relay sees it. Reports of `publish` come by `take_reports`, one for each record it took."""

    def publish(self, records: Sequence[Record], start: int) -> int:
        """Give records to the producer, from index `start` on; return the index of the first one that it did not take.

        A record that the client refuses is taken: its report carries the refusal. Fewer are taken only when the
        producer's queue is full.
        """
        ...

    def placement(self, topic: str) -> Placement | None:
        """Return how the producer places the topic's records, to foretell it; None while that is not known."""
        ...

    def is_missing(self, topic: str) -> bool:
        """Say whether the cluster told lately that there is no such topic; no may mean that it told nothing."""
        ...

    def misplaced(self, topic: str) -> None:
        """A record of the topic went elsewhere than was foretold: forget how it is placed, and find out anew."""
        ...

    def publish_alone(self, record: Record) -> bool:
        """Send one record in a batch of its own. Return False when the producer's queue is full."""
        ...

    def poll(self, timeout_seconds: float) -> None:
        """Serve delivery callbacks; return early when some were served."""
        ...

    def flush(self, timeout_seconds: float) -> None:
        """Send what is queued at once, without lingering for more, and serve delivery callbacks meanwhile; return
        once nothing is in flight.
        """
        ...

    def questioned(self) -> Collection[int]:
        """Return the ids of records that failed, and whose reports come once the cluster was asked why. What is not
        among them any more is in the next `take_reports`.
        """
        ...

    def take_reports(self) -> list[Report]:
        """Return the reports that came since the last call, in order."""
        ...

    def committed(self) -> int | None:
        """Return the last Kafka transaction whose reports were taken since the last call; None without transactions."""
        ...

    def restate(self, rows: Sequence[ProgressRow]) -> None:
        """These rows, of all earlier transactions, cannot be settled: state them in progress records too, from now on
        and instead of those given before.
        """
        ...

    def restated(self) -> tuple[int, Sequence[ProgressRow]]:
        """Return the last transaction up to that of `committed` whose progress record states such rows, and these."""
        ...

    def settled(self, transaction: int) -> None:
        """The rows of all transactions up to this one are settled."""
        ...

    def begin_recover(self, settled: int, lineage: str) -> None:
        """Fence the owner before, and read what it committed above the transaction `settled`.

        Answers Recovered or RecoverFailed by the mailbox. Only asked of a transactional producer.
        """
        ...

    def connection_trouble(self) -> str | None:
        """Return what was said lately of a connection to a broker that came to nothing."""
        ...

    def failure(self) -> DeliveryFault | None:
        """Return the fatal error that ended the producer, or None while it works."""
        ...

    def rebuild(self) -> None:
        """Replace a failed producer. Reports of the old one never come any more."""
        ...

    def purge(self) -> None:
        """Drop what was not sent yet: its outcome is nobody's business any more."""
        ...


class Lease(Protocol):
    """The right to relay an outbox, as the relay sees it. Grants and losses come by the mailbox."""

    def trusted_until(self) -> float:
        """Return the monotonic time up to which nobody else can own the outbox."""
        ...

    def give_up(self, token: int, *, drained: bool = False, emptied: bool = False) -> None:
        """Release the lease of this token at once, so that another daemon need not wait for its end; one that was
        acquired anew meanwhile is kept.

        `drained`: nothing that this owner published is unsettled. `emptied`: nor is there anything pending that one
        before it may have published.
        """
        ...


class Dice(Protocol):
    """A source of randomness."""

    def random(self) -> float:
        """Return a number in [0, 1)."""
        ...


class Observer(Protocol):
    """Who watches the relay: metrics, logs and alerts. Called by the batch, on the relay's thread; it must not
    block.
    """

    @property
    def wants_rows(self) -> bool:
        """Whether each row is to be told by an event of its own."""
        ...

    def event(self, name: str, **fields: object) -> None:
        """Something worth a log line happened. `name` is stable."""
        ...

    def delivered(self, topic: str, rows: int, size_bytes: int) -> None:
        """Records of one topic were acknowledged."""
        ...

    def acknowledged_after(self, seconds: float, rows: int) -> None:
        """`rows` records were acknowledged about `seconds` after they were created."""
        ...

    def failed(self, topic: str, error_code: str, fault_class: str) -> None:
        """A delivery failed."""
        ...

    def retried(self, topic: str) -> None:
        """A record goes to the `retry` table."""
        ...

    def died(self, topic: str, reason: str) -> None:
        """A record goes to the dead-letter table."""
        ...

    def duplicates_possible(self, rows: int) -> None:
        """So many records go again though they may be in the log."""
        ...

    def database_answered(self, during: Collection[str]) -> None:
        """A session of the relay's was answered: whatever `database_failed` told of it, during these, is over."""
        ...

    def database_not_asked(self, during: Collection[str]) -> None:
        """Nobody waits any more for what `database_failed` told of, during these; whether it would be answered is
        unknown.
        """
        ...

    def phase(self, name: str, seconds: float, rows: int) -> None:
        """One phase of the flow took so long for one batch."""
        ...
