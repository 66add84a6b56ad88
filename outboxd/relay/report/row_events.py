"""One event a row, for those who follow rows at the log's level debug: where each was written, or why not."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

from outboxd.policy.blame.cause import cause
from outboxd.relay.ports import Observer, Report


def tell_rows(observer: Observer, reports: Iterable[Report]) -> None:
    """Tell of each report: the row's id, topic-partition@offset and its message's timestamp, or the cause of its
    failure.
    """
    for report in reports:
        record, error = report.record, report.error
        if error is not None:
            observer.event(
                "row_failed",
                topic=record.topic,
                outbox_id=record.id,
                error_code=error.fault.name,
                cause=cause(error.fault, error.text, record.topic, report.partition),
            )
            continue
        observer.event(
            "row_delivered",
            topic=record.topic,
            outbox_id=record.id,
            place=f"{record.topic}-{report.partition}@{report.offset}",
            created_at=datetime.fromtimestamp(record.created_at_ms / 1000, UTC).isoformat(timespec="milliseconds"),
        )
