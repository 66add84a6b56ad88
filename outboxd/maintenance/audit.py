"""The audit: holds published rows against the log, and sends lost ones again.

Two passes. The first looks at each row's own place. Rows that are missing there are looked for in their whole topic,
from the time they were created: a row that was sent twice is marked with one place and may stand at the other. The
second pass also shows which keys have newer records, and costs nothing when nothing is missing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Protocol

from outboxd.errors import BrokerUnavailableError, UsageError
from outboxd.policy.exchange.auditing import (
    Bounds,
    Identity,
    LostRow,
    Place,
    PublishedRow,
    Tally,
    look,
    newer_in_log,
)
from outboxd.policy.exchange.messages import DeliveryFault, Report
from outboxd.policy.rows.records import Record

MISSING_ROWS_MAX = 500_000
"""Above this the topics are gone rather than damaged, and a list of rows is of no use."""
CLOCK_SLACK_MS = 1_000
SEND_ROWS_MAX = 500
SEND_SECONDS_MAX = 60.0

Partition = tuple[str, int]
OnProgress = Callable[[int], None]


class LogRecord(Protocol):
    """A record of the log."""

    @property
    def topic(self) -> str:
        """Its topic."""
        ...

    @property
    def partition(self) -> int:
        """Its partition."""
        ...

    @property
    def offset(self) -> int:
        """Its offset."""
        ...

    @property
    def key(self) -> str | None:
        """Its key as text."""
        ...

    @property
    def identity(self) -> Identity | None:
        """Which row it is of."""
        ...


class Log(Protocol):
    """The log, as the audit reads it."""

    def bounds(self, partition: Partition) -> Bounds | None:
        """Return what the partition keeps."""
        ...

    def partitions(self, topic: str) -> list[Partition]:
        """Return the topic's partitions."""
        ...

    def read(self, wanted: dict[Partition, list[int]]) -> Iterable[LogRecord]:
        """Give the records at these offsets."""
        ...

    def scan(self, partitions: Sequence[Partition], since_ms: int) -> Iterable[LogRecord]:
        """Give all records from that time on."""
        ...


class Rows(Protocol):
    """The published rows."""

    def windows(
        self, *, topic: str | None, since: datetime | timedelta | None
    ) -> Iterator[tuple[int, list[PublishedRow], int]]:
        """Walk the table by id."""
        ...


def audit(
    rows: Rows,
    log: Log,
    is_compacted: Callable[[str], bool],
    *,
    topic: str | None = None,
    since: datetime | timedelta | None = None,
    on_progress: OnProgress = lambda _: None,
) -> Tally:
    """Hold published rows against the log and return what was found; lost rows in id order.

    Args:
        rows: the published rows.
        log: the log.
        is_compacted: whether a topic removes records whose key has newer ones.
        topic: only rows of this topic.
        since: only rows published at this time or later, or so long before now.
        on_progress: is told the last id looked at.

    Raises:
        BrokerUnavailableError, AccessDeniedError: the log cannot be read.
        UsageError: far too much is missing to be named row by row.
    """
    tally = Tally()
    missing: list[tuple[PublishedRow, Place]] = []
    for last_id, window, unconfirmed in rows.windows(topic=topic, since=since):
        tally.unconfirmed += unconfirmed
        tally.checked += len(window)
        for row, place in _places(window, log, is_compacted):
            tally.fine += place is Place.FINE
            tally.beyond_retention += place is Place.BEYOND_RETENTION
            tally.unreadable += place is Place.NOT_READABLE
            if place.is_missing:
                missing.append((row, place))
        if len(missing) > MISSING_ROWS_MAX:
            raise UsageError(
                f"more than {MISSING_ROWS_MAX:,} published rows are not in the log, the first of them row "
                f"{missing[0][0].id} of {missing[0][0].topic}: was a topic deleted, or is this another cluster? Narrow "
                "the audit with --topic or --since to see single rows"
            )
        on_progress(last_id)
    if missing:
        _look_elsewhere(missing, log, tally)
    return tally


def _places(
    window: Sequence[PublishedRow], log: Log, is_compacted: Callable[[str], bool]
) -> Iterator[tuple[PublishedRow, Place]]:
    """Give each row with what is found at its place."""
    by_partition: defaultdict[Partition, list[PublishedRow]] = defaultdict(list)
    for row in window:
        by_partition[row.topic, row.partition].append(row)
    # Asked after the rows were read: what they are marked with is below the end, unless the end went back.
    bounds = {partition: log.bounds(partition) for partition in by_partition}
    wanted: dict[Partition, list[int]] = {}
    for partition, its_rows in by_partition.items():
        kept = bounds[partition]
        if kept is not None:
            offsets = sorted({row.offset for row in its_rows if kept.low <= row.offset < kept.high})
            if offsets:
                wanted[partition] = offsets
    found = {(record.topic, record.partition, record.offset): record.identity for record in log.read(wanted)}
    for partition, its_rows in by_partition.items():
        again: Bounds | None = None
        for row in its_rows:
            place = _place(row, bounds[partition], found, is_compacted)
            if place is Place.NO_RECORD:
                # Perhaps the topic's retention took it while it was to be read.
                again = again or log.bounds(partition)
                place = _place(row, again, found, is_compacted)
            yield row, place


def _place(
    row: PublishedRow,
    bounds: Bounds | None,
    found: dict[tuple[str, int, int], Identity | None],
    is_compacted: Callable[[str], bool],
) -> Place:
    at = (row.topic, row.partition, row.offset)
    is_read = at in found
    compacted = (
        not is_read and bounds is not None and bounds.low <= row.offset < bounds.high and is_compacted(row.topic)
    )
    return look(row, bounds, found.get(at), is_read=is_read, is_compacted=compacted)


def _look_elsewhere(missing: Sequence[tuple[PublishedRow, Place]], log: Log, tally: Tally) -> None:
    """Look for missing rows in their whole topics; what is nowhere is lost."""
    sought = {row.identity for row, _ in missing}
    keys = {(row.topic, row.key) for row, _ in missing}
    seen: set[Identity] = set()
    newest_ids: dict[tuple[str, str], int] = {}
    half_read: set[str] = set()
    for topic in sorted({row.topic for row, _ in missing}):
        since_ms = min(row.created_at_ms for row, _ in missing if row.topic == topic) - CLOCK_SLACK_MS
        partitions = log.partitions(topic)
        if any(bounds is not None and bounds.end > bounds.high for bounds in map(log.bounds, partitions)):
            half_read.add(topic)
        for record in log.scan(partitions, since_ms) if partitions else ():
            if record.identity is None:
                continue
            if record.identity in sought:
                seen.add(record.identity)
            if record.key is not None and (topic, record.key) in keys:
                at = (topic, record.key)
                newest_ids[at] = max(newest_ids.get(at, 0), record.identity.outbox_id)
    for row, place in missing:
        if row.identity in seen:
            tally.elsewhere += 1
        elif row.topic in half_read:
            # It may stand where nobody can read yet.
            tally.unreadable += 1
        else:
            tally.lost.append(LostRow(row, place, newer_in_log(row, newest_ids)))


# Sending again.


class Sender(Protocol):
    """The broker, as those who send again see it: a part of the relay's `Publisher`."""

    def publish(self, records: Sequence[Record], start: int) -> int:
        """Give records to the producer from index `start` on."""
        ...

    def poll(self, timeout_seconds: float) -> None:
        """Serve delivery callbacks."""
        ...

    def take_reports(self) -> list[Report]:
        """Return the reports that came."""
        ...

    def failure(self) -> DeliveryFault | None:
        """Return the fatal error of the producer."""
        ...


def republish(
    records: Iterable[Record], sender: Sender, now: Callable[[], float], on_progress: OnProgress = lambda _: None
) -> int:
    """Send these records in their order, one of each key at a time; return how many were sent.

    Args:
        records: in id order.
        sender: the broker.
        now: a monotonic clock, in seconds.
        on_progress: is told how many were sent.

    Raises:
        BrokerUnavailableError: one was not taken; those before it were sent, none after it.
    """
    sent = 0
    for batch in _batches(records):
        _send(batch, sender, now)
        sent += len(batch)
        on_progress(sent)
    return sent


def _batches(records: Iterable[Record]) -> Iterator[list[Record]]:
    batch: list[Record] = []
    keys: set[tuple[str, str]] = set()
    for record in records:
        key = None if record.key is None else (record.topic, record.key)
        if len(batch) >= SEND_ROWS_MAX or key in keys:
            yield batch
            batch, keys = [], set()
        batch.append(record)
        if key is not None:
            keys.add(key)
    if batch:
        yield batch


def _send(batch: list[Record], sender: Sender, now: Callable[[], float]) -> None:
    deadline = now() + SEND_SECONDS_MAX
    taken = 0
    reported = 0
    while reported < len(batch):
        if taken < len(batch):
            taken = sender.publish(batch, taken)
        sender.poll(0.05)
        failure = sender.failure()
        if failure is not None:
            raise BrokerUnavailableError(f"sending again failed at row {batch[0].id}: {failure.text}")
        for report in sender.take_reports():
            if report.error is not None:
                raise BrokerUnavailableError(
                    f"row {report.record.id} could not be sent again: {report.error.text} ({report.error.fault.name})"
                )
            reported += 1
        if now() >= deadline:
            raise BrokerUnavailableError(
                f"{len(batch) - reported} of {len(batch)} rows from row {batch[0].id} on had no answer within "
                f"{SEND_SECONDS_MAX:g} s; audit again before you send again"
            )
