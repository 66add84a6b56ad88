"""Messages: what the relay and its ports say to each other, as plain values.

They stand in the policy because both sides need them, and neither side imports the other: events come by the mailbox,
those of the database's store as answers to what is in `requests` (what it read is in `reads`); reports come from the
producer's inbox.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import NamedTuple, Protocol

from outboxd.policy.blame.routes import Route
from outboxd.policy.exchange.reads import Arrived, Fetched, FetchFailed, Loaded, Swept
from outboxd.policy.exchange.requests import Settlement
from outboxd.policy.faults import Fault
from outboxd.policy.fetch.limits import RelayLimits
from outboxd.policy.rows.records import Record


class TellEvent(Protocol):
    """Takes an event of the log's catalogue, on any thread."""

    def __call__(self, name: str, **fields: object) -> None:
        """Log it."""
        ...


class ProgressRow(NamedTuple):
    """A row that a Kafka transaction delivered, and where. `is_replay`: it was read from the dead-letter table.
    `event_piece` tells it from another row of the same id, see `policy.rows.event_pieces`. `content_piece` tells, of
    a replay, what was sent from what was made of the letter since, see `policy.rows.content`. None: nobody noted it.
    """

    outbox_id: int
    partition: int
    offset: int
    is_replay: bool
    event_piece: int | None = None
    content_piece: str | None = None


# What comes back by the mailbox.


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
    | Arrived
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


@dataclass(frozen=True, slots=True)
class ChainFailure:
    """Why the producer of chains ended: what failed a record of this topic, or the client, where it is None."""

    topic: str | None
    error: DeliveryFault


record_of, error_of = itemgetter(0), itemgetter(1)
"""Of a report, for `map`: by position, which costs a third of what a name does."""
