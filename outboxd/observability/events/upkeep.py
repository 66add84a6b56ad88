"""What is told of the outbox's upkeep: what operators asked for, what housekeeping did, and how alerts fared."""

from __future__ import annotations

from typing import Final

from outboxd.observability.events.kinds import EventKind

UPKEEP_EVENTS: Final = (
    # Operators.
    EventKind("topic_paused", "info", "The topic {topic} is paused.", ("topic",)),
    EventKind("topic_resumed", "info", "The topic {topic} goes on.", ("topic",)),
    EventKind(
        "dead_letters_replayed",
        "info",
        "Dead letters go again, asked for by {who}: {rows}.",
        ("rows", "who", "sample_id"),
    ),
    EventKind(
        "dead_letters_discarded",
        "info",
        "Dead letters were discarded, asked for by {who}: {rows}.",
        ("rows", "who", "sample_id"),
    ),
    # Housekeeping.
    EventKind(
        "dead_letter_kind_appeared",
        "warning",
        "Dead letters of a new kind: topic {topic}, {error_code}, {count} so far. Look at one: {sql}",
        ("topic", "error_code", "count", "sample_id", "sql"),
        alerts=True,
    ),
    EventKind(
        "purged", "info", "Rows of {table} that are past their retention were removed: {rows}.", ("table", "rows")
    ),
    EventKind(
        "job_failed", "error", "The job {job} failed, and runs again at its next time: {cause}", ("job", "cause")
    ),
    # Alerts.
    EventKind(
        "alert_command_failed",
        "error",
        "The alert command {command} failed ({exit_code}): {cause}",
        ("command", "exit_code", "cause"),
    ),
    EventKind(
        "alerts_dropped",
        "warning",
        "Alerts were dropped, since the alert command is too slow: {suppressed}.",
        ("suppressed",),
    ),
)
