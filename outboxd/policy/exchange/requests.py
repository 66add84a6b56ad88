"""Requests: what the relay asks of the database's store, as plain values. The answers are in `messages`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, NamedTuple, Self

from outboxd.policy.blame.outcomes import DeadLetter, Retry
from outboxd.policy.keys.deferrals import Reread
from outboxd.policy.rows.records import FIRST_ID, ID_MAX
from outboxd.policy.topics.topic_holds import CatchUp


class Known(NamedTuple):
    """Pending records that the relay knows of: those in memory or held, by their ids, and those that are deferred, by
    their topics and by their keys within a topic, each from an id on.
    """

    ids: Sequence[int] = ()
    topics: Mapping[str, int] = {}
    keys: Mapping[str, Mapping[str, int]] = {}


class FetchRequest(NamedTuple):
    """One fetch: every part of it is answered from one snapshot. A tuple, since it is made hundreds of times a second.

    Attributes:
        position: the forward read shows pending records above this id.
        gap_lows, gap_highs: the ranges below the position that the look-back asks for.
        known: what the look-back leaves out; None where it asks for no id that was seen.
        rows_max, bytes_max: limits of the whole answer; the byte limit may be exceeded by its last record.
        forward: whether to read forward at all.
        chosen_ids: records to be read by their ids (due retries, probes, finds of the sweep).
        replay_ids: dead letters, by their own ids, to be read for a replay.
        rereads, reread_rows_max: keys to be read again, and how many records of each.
        catch_ups, catch_up_rows_max: topics to be read again, and how many records of each.
        probe_reads, probe_rows_max: held topics to be looked at for a probe, and how many records of each.
        reach_ids: how many ids each read of a topic covers, from its own beginning on.
        retry_cursor, replay_cursor, available_cursor: from where due retries, replays and delayed records are listed;
            without an `available_cursor` the delayed ones are not.
        want_top: whether to tell the highest id that is pending, due or not.
        want_locks: whether to list the transactions that hold the outbox.
        holding_after: from which outbox id (exclusive) on to list dead letters that hold their keys; None: not at all.
    """

    position: int
    rows_max: int
    bytes_max: int
    forward: bool = True
    gap_lows: Sequence[int] = ()
    gap_highs: Sequence[int] = ()
    known: Known | None = None
    chosen_ids: Sequence[int] = ()
    replay_ids: Sequence[int] = ()
    rereads: Sequence[Reread] = ()
    reread_rows_max: int = 0
    catch_ups: Sequence[CatchUp] = ()
    catch_up_rows_max: int = 0
    probe_reads: Sequence[CatchUp] = ()
    probe_rows_max: int = 0
    reach_ids: int = ID_MAX
    retry_cursor: tuple[datetime, int] | None = None
    replay_cursor: int = FIRST_ID
    available_cursor: tuple[datetime, int] | None = None
    want_top: bool = False
    want_locks: bool = False
    holding_after: int | None = None

    def end_of(self, from_id: int) -> int:
        """Return the last id that the read of a topic from `from_id` on covers."""
        return min(self.position, from_id + self.reach_ids)

    @property
    def reads_again(self) -> bool:
        """Whether it asks for records that were seen before."""
        return bool(self.chosen_ids or self.replay_ids or self.rereads or self.catch_ups or self.probe_reads)


@dataclass(frozen=True, slots=True)
class SweepRequest:
    """One chunk of the sweep: pending records from `cursor` (exclusive) to `position`, leaving out what is deferred
    anyway: topics, each from an id on, and keys.
    """

    cursor: int
    position: int
    rows_max: int
    skipped_topics: Mapping[str, int] = field(default_factory=dict)
    skipped_keys: Sequence[tuple[str, str]] = ()


class Patience(NamedTuple):
    """A fetch that shows nothing is asked again every `interval_seconds`, for `seconds` in all."""

    interval_seconds: float
    seconds: float


IMPATIENT = Patience(0.0, 0.0)
"""Any answer is told."""


@dataclass(frozen=True, slots=True)
class Settlement:
    """Outcomes to be written in one statement. The `delivered_…` sequences run in parallel; `delivered_pieces` is
    empty where the rows are surely those that this owner read. Else only rows of the same event are written;
    `dead_pieces` are the same for `dead`.

    `replayed` are dead letters that were delivered: by their own ids, with partition, offset and the digest of what was
    sent; of one that says something else by now nothing is written. `recovered_replays` are those that an owner before
    delivered: by the ids of their rows, with partition, offset, event piece and content piece. `died_again` are those
    that failed for good once more: by their own ids, with the digest of what was read of them.
    `again`: it failed before, and may be written already. `is_part`: it is what is left of one that was refused.
    `is_recovered`: its rows were delivered by an owner before, which may have settled some of them. `above`: the
    progress records of what it delivers are those of Kafka transactions above this one.
    """

    delivered_ids: Sequence[int] = ()
    delivered_partitions: Sequence[int | None] = ()
    delivered_offsets: Sequence[int | None] = ()
    delivered_pieces: Sequence[int | None] = ()
    retries: Sequence[tuple[int, Retry]] = ()
    dead: Sequence[tuple[int, DeadLetter]] = ()
    dead_pieces: Sequence[int | None] = ()
    replayed: Sequence[tuple[int, int | None, int | None, str]] = ()
    recovered_replays: Sequence[tuple[int, int, int, int | None, str | None]] = ()
    died_again: Sequence[tuple[int, DeadLetter, str]] = ()
    out_of_retry: Sequence[int] = ()
    storms: Sequence[tuple[str, str]] = ()
    transaction: int | None = None
    again: bool = False
    is_part: bool = False
    is_recovered: bool = False
    above: int = 0

    @property
    def is_in_progress_records(self) -> bool:
        """Whether it has anything that Kafka transactions delivered: they are settled no sooner than it is."""
        return bool(self.delivered_ids or self.replayed or self.recovered_replays)

    @property
    def rows(self) -> int:
        """How many outbox rows the statement is expected to change."""
        return len(self.delivered_ids) + len(self.dead)

    @property
    def records(self) -> int:
        """How many records it tells the outcome of."""
        letters = len(self.replayed) + len(self.recovered_replays) + len(self.died_again)
        return self.rows + len(self.retries) + letters

    @property
    def outbox_ids(self) -> list[int]:
        """The outbox rows that it delivers, retries or buries, or whose replays an owner before delivered."""
        replays = [replay[0] for replay in self.recovered_replays]
        return [*self.delivered_ids, *(record_id for record_id, _ in (*self.retries, *self.dead)), *replays]

    @property
    def entries(self) -> int:
        """How many outcomes it has, of all kinds."""
        return sum(len(getattr(self, kind)) for kind in _KINDS)

    def part(self, start: int, stop: int) -> Self:
        """Return what it has from one entry up to another (exclusive), counted through all kinds; without the
        transaction, which is settled by all of them together.
        """
        kept: dict[str, Any] = {}
        for kind in _KINDS:
            count = len(getattr(self, kind))
            for name in _PARALLEL.get(kind, (kind,)):
                kept[name] = getattr(self, name)[max(0, start) : max(0, stop)]
            start, stop = start - count, stop - count
        return replace(self, **kept, transaction=None, is_part=True)


_PARALLEL = {
    "delivered_ids": ("delivered_ids", "delivered_partitions", "delivered_offsets", "delivered_pieces"),
    "dead": ("dead", "dead_pieces"),
}
_KINDS = (
    "delivered_ids", "retries", "dead", "replayed", "recovered_replays", "died_again", "out_of_retry", "storms",
)  # fmt: skip
"""The sequences of a settlement, of parallel ones the first."""
