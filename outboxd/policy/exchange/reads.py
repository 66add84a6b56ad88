"""Reads: what the database answers to a load, a fetch or a sweep (see `requests`), as plain values.

Answers come by the mailbox, as all events do (see `messages`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from outboxd.policy.rows.records import Record


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
    long ago it failed first, or died, `error_code` what one in `retry` failed with last: where no attempt is counted,
    in a storm of its topic.
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
    error_code: str = ""


class HoldingLetters(NamedTuple):
    """Dead letters that hold their keys, by their outbox ids in order. `cursor` is where to go on, None at the end."""

    letters: Sequence[KeyHolder]
    cursor: int | None


class Pause(NamedTuple):
    """A row of `control`: topics that match the pattern wait."""

    topic_pattern: str
    since_ms: int
    who: str
    note: str | None


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
class Arrived:
    """The answer of a fetch is there, and most of its rows are not records yet. `read` makes them, on the thread that
    works with them and drops them: what is made there is in that processor's cache, and what it needs is, too.
    """

    read: Callable[[], Fetched | FetchFailed]


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
