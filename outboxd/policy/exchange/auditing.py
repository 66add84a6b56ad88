"""What an audit finds: a published row held against the record that is at its place in the log.

Pure: what the log holds is an argument. A row whose place does not hold its record is only *missing there* at first: a
record that was sent twice may stand elsewhere. It is lost when the topic holds it nowhere.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import NamedTuple


class Identity(NamedTuple):
    """Which row a record says that it is, by its headers."""

    outbox_id: int
    event_id: str


class PublishedRow(NamedTuple):
    """A row that is marked as published, and where."""

    id: int
    event_id: str
    topic: str
    key: str | None
    partition: int
    offset: int
    created_at_ms: int

    @property
    def identity(self) -> Identity:
        """What its record says."""
        return Identity(self.id, self.event_id)


class Bounds(NamedTuple):
    """The offsets that a partition keeps: from `low` to below `high`, as far as it can be read.

    Behind the first record of a transaction that is still open nobody reads: the log goes on to below `log_end` then,
    which is None where it ends at `high`.
    """

    low: int
    high: int
    log_end: int | None = None

    @property
    def end(self) -> int:
        """The offset behind the log's last record, readable or not."""
        return self.high if self.log_end is None else max(self.high, self.log_end)


class Place(enum.Enum):
    """What is found at a row's place."""

    FINE = "fine"
    BEYOND_RETENTION = "beyond_retention"
    LOG_ENDS_BEFORE = "log ends before"
    OTHER_RECORD = "other record"
    NO_RECORD = "no record"
    NO_PARTITION = "no such partition"
    NOT_READABLE = "behind an open transaction"

    @property
    def is_missing(self) -> bool:
        """The row's record should be there and is not."""
        return self not in (Place.FINE, Place.BEYOND_RETENTION, Place.NOT_READABLE)


def look(
    row: PublishedRow, bounds: Bounds | None, found: Identity | None, *, is_read: bool, is_compacted: bool
) -> Place:
    """Return what is at the row's place.

    Args:
        row: the row.
        bounds: what its partition keeps; None when there is no such partition.
        found: the identity of the record at its offset; None also for a record of somebody else.
        is_read: there is a record at its offset.
        is_compacted: the topic removes records whose key has newer ones.
    """
    if bounds is None:
        return Place.NO_PARTITION
    if row.offset < bounds.low:
        return Place.BEYOND_RETENTION
    if found == row.identity:
        return Place.FINE
    if is_read:
        return Place.OTHER_RECORD
    if row.offset >= bounds.high:
        return Place.NOT_READABLE if row.offset < bounds.end else Place.LOG_ENDS_BEFORE
    return Place.BEYOND_RETENTION if is_compacted else Place.NO_RECORD


@dataclass(frozen=True, slots=True)
class LostRow:
    """A row that the log holds nowhere. `newer_id` is the newest row of its key that the log does hold, if newer."""

    row: PublishedRow
    place: Place
    newer_id: int | None


@dataclass(slots=True)
class Tally:
    """What an audit has found so far.

    Attributes:
        checked: rows held against the log.
        fine: their record is at its place.
        elsewhere: their record is in the topic, at another place: it was sent more than once.
        beyond_retention: their place is not kept any more, or compacted away.
        unreadable: a transaction that is still open, whoever's, keeps what is at their place from being read.
        unconfirmed: published rows without a place (`confirm = "none"`), which nothing can be said about.
        lost: their record is nowhere in the topic.
    """

    checked: int = 0
    fine: int = 0
    elsewhere: int = 0
    beyond_retention: int = 0
    unreadable: int = 0
    unconfirmed: int = 0
    lost: list[LostRow] = field(default_factory=list)


def newer_in_log(row: PublishedRow, newest_ids: dict[tuple[str, str], int]) -> int | None:
    """Return the newest row of the row's key in the log, if that is a newer one; `newest_ids` is by topic and key."""
    if row.key is None:
        return None
    newest_id = newest_ids.get((row.topic, row.key))
    return newest_id if newest_id is not None and newest_id > row.id else None
