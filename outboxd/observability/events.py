"""The catalogue of events: every line of the log has a stable name, a level, a sentence and known fields.

`docs/events.md` is made from it by `event_document`, and tests hold both equal to the code. An event that `alerts` goes
to `alerts.command` too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from string import Formatter
from typing import Final, Literal

Level = Literal["debug", "info", "warning", "error"]


@dataclass(frozen=True, slots=True)
class EventKind:
    """One kind of event.

    Attributes:
        name: stable, lower case with underscores.
        level: how severe it is.
        sentence: what a person reads; `{field}` stands for a field's value.
        fields: the fields that it may have, in order.
        alerts: whether `alerts.command` is told.
    """

    name: str
    level: Level
    sentence: str
    fields: tuple[str, ...] = ()
    alerts: bool = False

    def message(self, fields: Mapping[str, object]) -> str:
        """The sentence with the values in it; a field that is missing shows as `?`."""
        return _LENIENT.vformat(self.sentence, (), {name: fields.get(name, "?") for name in self.told})

    @property
    def told(self) -> frozenset[str]:
        """The fields whose values stand in the sentence."""
        return frozenset(name for _, name, _, _ in _LENIENT.parse(self.sentence) if name)


_LENIENT: Final = Formatter()

_KINDS: Final = (
    # Ownership and the life of the daemon.
    EventKind(
        "owner",
        "info",
        "This daemon relays the outbox now (token {token}). Failed records that hold their keys: {held_records}.",
        ("token", "held_records"),
    ),
    EventKind(
        "lease_lost",
        "warning",
        "This daemon does not relay the outbox any more: {reason}. Records that stay pending: {unsettled_rows}.",
        ("reason", "unsettled_rows"),
        alerts=True,
    ),
    EventKind(
        "http_address_taken",
        "warning",
        "Another process listens on {address}, so this daemon has no page and no metrics yet. It relays all the same, "
        "and takes the address once it is free; give each daemon on a machine its own http.listen.",
        ("address",),
    ),
    EventKind("http_address_free", "info", "The page and the metrics are at {address} now.", ("address",)),
    EventKind(
        "tracing_unavailable",
        "warning",
        "The environment asks for traces by OTEL_ variables, and there are none: {cause}",
        ("cause",),
    ),
    EventKind("draining", "info", "Stopping; still to be settled: {in_memory}.", ("in_memory",)),
    EventKind(
        "ended",
        "info",
        "The relay ended: {reason}. Records that stay pending: {unsettled_rows}.",
        ("reason", "unsettled_rows"),
    ),
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
    EventKind(
        "thread_died",
        "error",
        "The thread {thread} died, which is a bug of outboxd: {cause}",
        ("thread", "cause", "traceback"),
        alerts=True,
    ),
    # The database.
    EventKind(
        "database_failed", "error", "The database failed during {during}: {cause}", ("during", "cause"), alerts=True
    ),
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
        "late_rows_found",
        "info",
        "Rows whose ids were drawn long before their insert go now, without order. Rows that the sweep found: {rows}.",
        ("rows",),
    ),
    # The broker.
    EventKind(
        "breaker_opened",
        "warning",
        "The topic {topic} is on hold, its rows stay pending and nothing is counted against them: {cause}",
        ("topic", "error_code", "cause"),
        alerts=True,
    ),
    EventKind(
        "breaker_closed",
        "info",
        "The topic {topic} goes on after {open_seconds} s on hold for {error_code}.",
        ("topic", "error_code", "open_seconds"),
        alerts=True,
    ),
    EventKind(
        "storm_guard",
        "error",
        "The topic {topic} is held until an operator resumes it, since many keys in a row failed for good: {cause}",
        ("topic", "error_code", "cause"),
        alerts=True,
    ),
    EventKind(
        "kafka_failed",
        "error",
        "No broker answers, so rows wait and nothing is counted against them: {cause}",
        ("cause",),
        alerts=True,
    ),
    EventKind("kafka_answers", "info", "A broker answers again.", alerts=True),
    EventKind(
        "in_flight_stalled",
        "error",
        "The oldest record of topic {topic} in memory is stuck: no answer for 10 s. Records in memory: {in_memory}.",
        ("topic", "in_memory"),
        alerts=True,
    ),
    EventKind("in_flight_moving", "info", "Records move again. Records in memory: {in_memory}.", ("in_memory",)),
    EventKind(
        "producer_rebuilt",
        "error",
        "The producer failed and was built anew. Records of unknown outcome go again, in order: {unknown_rows}. Why: "
        "{cause}",
        ("error_code", "cause", "unknown_rows"),
    ),
    EventKind(
        "acknowledged_records_lost",
        "error",
        "Acknowledged records of {topic}-{partition} are not in the log any more, as after the election of an "
        "out-of-date replica: at least {count}. `outboxd audit` names their rows, `outboxd audit --republish` sends "
        "them again.",
        ("topic", "partition", "count"),
        alerts=True,
    ),
    EventKind(
        "record_lost",
        "warning",
        'A record of topic {topic} was lost ({error_code}), as its route allows with confirm = "none".',
        ("topic", "error_code", "confirm"),
    ),
    EventKind(
        "recovered",
        "info",
        "What the daemon before this one committed to Kafka and had not settled is settled now, up to transaction "
        "{transaction}. Rows: {rows}.",
        ("rows", "transaction"),
    ),
    EventKind(
        "recovery_failed",
        "warning",
        "What was committed to Kafka before cannot be read yet, and nothing is sent until it is: {cause}",
        ("cause",),
    ),
    EventKind(
        "producer_renewed",
        "info",
        "The producer was built anew for another configuration. Records without a report go again: {unknown_rows}.",
        ("unknown_rows",),
    ),
    # The configuration.
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
    EventKind(
        "row_delivered",
        "debug",
        "Row {outbox_id} is at {place}, with the timestamp {created_at}.",
        ("topic", "outbox_id", "place", "created_at"),
    ),
    EventKind(
        "row_failed",
        "debug",
        "Row {outbox_id} was not delivered: {cause}",
        ("topic", "outbox_id", "error_code", "cause"),
    ),
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
    # The daemon's own surroundings.
    EventKind(
        "log_lines_dropped",
        "warning",
        "Log lines were dropped, since what takes the log was too slow: {lines}.",
        ("lines",),
    ),
    EventKind("request_failed", "error", "A request for {path} failed: {cause}", ("path", "cause")),
    EventKind("library_message", "warning", "{logger}: {cause}", ("logger", "cause")),
)

CATALOGUE: Final[Mapping[str, EventKind]] = {kind.name: kind for kind in _KINDS}
"""Every event, by name."""


def kind_of(name: str) -> EventKind:
    """The kind with this name; for a name that stands in no catalogue, one that shows the bare name as a warning."""
    return CATALOGUE.get(name) or EventKind(name, "warning", name.replace("_", " "))
