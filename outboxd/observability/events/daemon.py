"""What a daemon tells of itself: its ownership and end, its care after a crash, its configuration, its surroundings."""

from __future__ import annotations

from typing import Final

from outboxd.observability.events.kinds import EventKind

DAEMON_EVENTS: Final = (
    # Its ownership and its end.
    EventKind(
        "owner",
        "info",
        "This daemon relays the outbox now (token {token}). Failed records that hold their keys: {held_records}.",
        ("token", "held_records"),
        alerts=True,
        ends="lease_lost",
    ),
    EventKind(
        "standing_by",
        "info",
        "Another daemon relays the outbox, or died and its lease has not expired yet: this one is ready and stands by.",
    ),
    EventKind(
        "lease_lost",
        "warning",
        "This daemon does not relay the outbox any more: {reason}. Records that stay pending: {unsettled_rows}.",
        ("reason", "unsettled_rows"),
        alerts=True,
    ),
    EventKind("draining", "info", "Stopping; still to be settled: {in_memory}.", ("in_memory",)),
    EventKind(
        "ended",
        "info",
        "The relay ended: {reason}. Records that stay pending: {unsettled_rows}.",
        ("reason", "unsettled_rows"),
    ),
    # Care after an unclean end.
    EventKind(
        "careful_start",
        "warning",
        "The relay before this one ended uncleanly: rows go in small, recorded batches for a while. Rows that were in "
        "the air then, and go by a process of their own first: {count}.",
        ("count",),
    ),
    EventKind(
        "careful_end",
        "info",
        "No row that was sent with care killed the process, so rows go as usual again. Sent with care: {rows}.",
        ("rows",),
    ),
    EventKind(
        "crashing_row_found",
        "error",
        "Row {outbox_id} of topic {topic} kills whoever sends it, and is dead-lettered: {cause}",
        ("topic", "outbox_id", "cause"),
        alerts=True,
    ),
    # Its configuration.
    EventKind("config_reloaded", "info", "The configuration was read again; in effect now: {changed}.", ("changed",)),
    EventKind(
        "config_needs_restart",
        "warning",
        "The configuration has changes that take effect at the next start only: {changed}.",
        ("changed",),
    ),
    EventKind(
        "config_reload_failed",
        "error",
        "The configuration cannot be used, so the one before stays in effect: {cause}",
        ("cause",),
        alerts=True,
    ),
    # Its surroundings, and its own threads.
    EventKind(
        "http_address_taken",
        "warning",
        "Another process listens on {address}, so this daemon has no page and no metrics yet. It relays all the same, "
        "and takes the address once it is free; give each daemon on a machine its own http.listen.",
        ("address",),
    ),
    EventKind(
        "http_address_missing",
        "warning",
        "This machine has no {address}, so this daemon has no page and no metrics yet: {cause}. It relays all the "
        "same, and takes the address once it is there; look at http.listen.",
        ("address", "cause"),
    ),
    EventKind("http_address_free", "info", "The page and the metrics are at {address} now.", ("address",)),
    EventKind(
        "tracing_unavailable",
        "warning",
        "The environment asks for traces by OTEL_ variables, and there are none: {cause}",
        ("cause",),
    ),
    EventKind(
        "thread_died",
        "error",
        "The thread {thread} died, which is a bug of outboxd: {cause}",
        ("thread", "cause", "traceback"),
        alerts=True,
    ),
    EventKind(
        "log_lines_dropped",
        "warning",
        "Log lines were dropped, since what takes the log was too slow: {lines}.",
        ("lines",),
    ),
    EventKind("request_failed", "error", "A request for {path} failed: {cause}", ("path", "cause")),
    EventKind("library_message", "warning", "{logger}: {cause}", ("logger", "cause")),
)
