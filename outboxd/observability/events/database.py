"""What is told of PostgreSQL: its failures, its notifications, and rows that were not as they were expected."""

from __future__ import annotations

from typing import Final

from outboxd.observability.events.kinds import EventKind

DATABASE_EVENTS: Final = (
    EventKind(
        "database_failed", "error", "The database failed during {during}: {cause}", ("during", "cause"), alerts=True
    ),
    EventKind("database_answers", "info", "PostgreSQL answers again.", alerts=True),
    EventKind(
        "listening", "info", "Notifications of new rows come from now on; an idle outbox is polled about once a second."
    ),
    EventKind(
        "listening_lost",
        "warning",
        "No notifications come; the outbox is polled at its usual pace, and listening is tried again later: {cause}",
        ("cause",),
    ),
    EventKind(
        "settle_fenced",
        "warning",
        "A settlement changed nothing ({reason}). Rows that it was to settle: {rows}.",
        ("rows", "reason"),
    ),
    EventKind(
        "settle_mismatch",
        "warning",
        "Rows that a settlement changed: {matched}, not {expected}; somebody else changed or deleted the others.",
        ("expected", "matched"),
    ),
    EventKind(
        "row_not_settled",
        "error",
        "PostgreSQL refuses to settle {row}, which is tried again and {later} should this daemon end: {cause}."
        " Set aside like it: {rows}. All other rows {others}.",
        ("row", "later", "cause", "rows", "others"),
        alerts=True,
    ),
    EventKind("unsettled_rows_settled", "info", "All that PostgreSQL had refused to settle is settled.", alerts=True),
    EventKind(
        "late_rows_found",
        "info",
        "Rows with ids below what was read go now, without order unless reading goes back to them. Rows that the sweep"
        " found: {rows}.",
        ("rows",),
    ),
    EventKind(
        "reading_went_back",
        "warning",
        "Ids went back: rows come below id {position}, up to which the outbox was read, so it is read again from id"
        " {from_id} on. A sequence was set back, a row was given a high id by hand, or many ids were drawn long before"
        " their insert.",
        ("from_id", "position"),
    ),
)
