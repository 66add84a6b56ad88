"""Messages: what the relay and its ports say to each other, as plain values.

They stand in the policy because both sides need them, and neither side imports the other: events come by the mailbox,
those of the database's store as answers to what is in `requests`; reports come from the producer's inbox.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import itemgetter
from typing import NamedTuple, Protocol

from outboxd.policy.blame.routes import Route
from outboxd.policy.exchange.requests import Settlement
from outboxd.policy.faults import Fault
from outboxd.policy.fetch.limits import RelayLimits
from outboxd.policy.rows.records import Record


class TellEvent(Protocol):
    """Takes an event of the log's catalogue, on any thread."""

    def __call__(self, name: str, **fields: object) -> None:
        """Log it."""
        ...


class DueReplay(NamedTuple):
    """A dead letter that an operator wants to be sent again.

    `is_behind`: an earlier one of its key is to be sent again too, and stands before where the list was read from.
    """

    dead_letter_id: int
    outbox_id: int
    topic: str
    key: str | None
    attempts: int
    is_behind: bool = False


class KeyHolder(NamedTuple):
    """A record that held its key when the daemon before this one ended: in `retry`, or dead and holding.

    `own_age_seconds` is the time between its counted failures, without that on hold or paused, `waited_seconds` how
    long ago it failed first, or died.
    """

    outbox_id: int
    topic: str
    key: str | None
    attempts: int
    dead_letter_id: int | None
    replaying: bool
    due_in_seconds: float
    own_age_seconds: float = 0.0
    waited_seconds: float = 0.0


class HoldingLetters(NamedTuple):
    """Dead letters that hold their keys, by their outbox ids in order. `cursor` is where to go on, None at the end."""

    letters: Sequence[KeyHolder]
    cursor: int | None


class ProgressRow(NamedTuple):
    """A row that a Kafka transaction delivered, and where. `is_replay`: it was read from the dead-letter table.
    `event_piece` tells it from another row of the same id, see `policy.rows.event_pieces`; None where nobody noted it.
    """

    outbox_id: int
    partition: int
    offset: int
    is_replay: bool
    event_piece: int | None = None


class Pause(NamedTuple):
    """A row of `control`: topics that match the pattern wait."""

    topic_pattern: str
    since_ms: int
    who: str
    note: str | None


# What comes back by the mailbox.


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a new owner must know before its first fetch; `fenced` and `moved` as in `Fetched`."""

    holders: Sequence[KeyHolder]
    pauses: Sequence[Pause]
    now_ms: int
    settled_transaction: int = 0
    lineage: str = ""
    fenced: bool = False
    moved: bool = False


class Fetched(NamedTuple):
    """The answer of a fetch, a tuple as its request is. `records` stand in the order of their arms, in id order within
    an arm.

    `due_ids` are the records of `retry` that are due. `fenced` says that the lease is not ours in the database that was
    read, `moved` that it is another server's than that which gave the lease, or the table another: nothing that is in
    memory need be true there. `waited_seconds` is how long after it was asked for the statement was given. `top_id` is
    the highest pending id above the request's position, due or not, where that was asked for.
    """

    records: list[Record]
    now_ms: int
    locks: frozenset[str] = frozenset()
    due_ids: Sequence[int] = ()
    retry_cursor: tuple[datetime, int] | None = None
    replays: Sequence[DueReplay] = ()
    holding: HoldingLetters | None = None
    pauses: Sequence[Pause] = ()
    available_ids: Sequence[int] = ()
    available_cursor: tuple[datetime, int] | None = None
    top_id: int | None = None
    fenced: bool = False
    moved: bool = False
    waited_seconds: float = 0.0

    @property
    def shows_nothing(self) -> bool:
        """Whether the relay would learn nothing by it but that the outbox is still its own."""
        shown = self.records or self.due_ids or self.replays or self.pauses or self.available_ids
        # That a dead letter is not among those that hold their keys is news, too.
        is_passed_over = self.top_id is not None
        return not (shown or is_passed_over or self.locks or self.fenced or self.moved or self.holding is not None)


@dataclass(frozen=True, slots=True)
class Swept:
    """One chunk of the sweep: (id, topic, key) of pending records. `cursor` is where to go on, None at the end;
    `seconds` is how long the statement took by itself.
    """

    found: Sequence[tuple[int, str, str | None]]
    cursor: int | None
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class FetchFailed:
    """A load, fetch or sweep failed. The next one goes by a new connection, which may lead to another database."""

    message: str


@dataclass(frozen=True, slots=True)
class Settled:
    """A settlement was committed, or (`fenced`) changed nothing, since the lease is not ours. `moved` is as it is in
    `Fetched`.
    """

    settlement: Settlement
    matched_rows: int
    fenced: bool = False
    moved: bool = False


@dataclass(frozen=True, slots=True)
class SettleFailed:
    """A settlement failed; whether it was committed is unknown. It is to be given again, whole.

    `refused`: the server said that it would not write it, because of a row of it or of a lock, so nothing of it is
    written; others may be, and so may parts of it. `in_part`: what it said nothing of is written, and rows of it are
    not.
    """

    settlement: Settlement
    message: str
    refused: bool = False
    in_part: bool = False


@dataclass(frozen=True, slots=True)
class Recovered:
    """Exactly-once delivery: what the owner before committed and did not settle, up to the transaction `number`."""

    number: int
    rows: Sequence[ProgressRow]


@dataclass(frozen=True, slots=True)
class RecoverFailed:
    """The recovery did not come to its end; it is to be begun again."""

    message: str


@dataclass(frozen=True, slots=True)
class LeaseGranted:
    """This daemon owns the outbox."""

    token: int


@dataclass(frozen=True, slots=True)
class LeaseLost:
    """This daemon does not own the outbox any more, or cannot be sure of it."""

    reason: str


@dataclass(frozen=True, slots=True)
class StopRequested:
    """Drain and end. A second one ends at once."""


@dataclass(frozen=True, slots=True)
class Woken:
    """Something may be pending: a notification came."""


@dataclass(frozen=True, slots=True)
class TransactionEnded:
    """A Kafka transaction came to its end, its producer did, or a suspect's report is in: the publisher has news.

    A transaction that was aborted within a batch leaves no reports yet: that it ended is all there is to it.
    """


@dataclass(frozen=True, slots=True)
class Listening:
    """Notifications come from now on, or (not `active`) do not come any more: reading is then all there is."""

    active: bool


@dataclass(frozen=True, slots=True)
class Reconfigured:
    """The configuration changed while the relay runs.

    Limits, intervals and routes hold from now on, for records that are admitted from now on. `renews`: the producer
    has to be built anew too, or a topic's form of confirmation changed: the relay then drains what is with the
    producer, and begins as a new owner does, under the same lease.
    """

    limits: RelayLimits
    routes: Sequence[Route]
    default_route: Route
    renews: bool = False


@dataclass(frozen=True, slots=True)
class TopicsChanged:
    """The topics are not those that the producer knows any more, for this `reason`: it is built anew."""

    reason: str


Event = (
    Loaded
    | TransactionEnded
    | Fetched
    | Swept
    | FetchFailed
    | Settled
    | SettleFailed
    | LeaseGranted
    | LeaseLost
    | Recovered
    | RecoverFailed
    | StopRequested
    | Woken
    | Listening
    | Reconfigured
    | TopicsChanged
)


# What comes from the broker.


@dataclass(frozen=True, slots=True)
class DeliveryFault:
    """What went wrong with one record, in the library's words; and when, in monotonic seconds, if it is told later."""

    fault: Fault
    text: str
    failed_at: float | None = field(default=None, compare=False)


class Report(NamedTuple):
    """A delivery report, as the callback leaves it in the inbox. `error` is None when the record was delivered."""

    record: Record
    error: DeliveryFault | None
    partition: int | None
    offset: int | None
    alone: bool = False


record_of, error_of = itemgetter(0), itemgetter(1)
"""Of a report, for `map`: by position, which costs a third of what a name does."""
