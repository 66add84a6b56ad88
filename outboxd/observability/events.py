"""The catalogue of events: every line of the log has a stable name, a level, a sentence and known fields.

`docs/events.md` is made from it (`python -m outboxd.observability.events`), and tests hold both equal to the code. An
event that `alerts` goes to `alerts.command` too.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from string import Formatter
from typing import Final, Literal

Level = Literal["debug", "info", "warning", "error"]

FIELDS: Final[dict[str, str]] = {
    "address": "host and port of `http.listen`",
    "cause": "what went wrong, in one line, with the remedy where one is known",
    "changed": "names of settings, without their values",
    "command": "the program of `alerts.command`",
    "confirm": "the route's `confirm`",
    "created_at": "when the row was created, which is the message's timestamp",
    "count": "how many there are of it",
    "during": "what was being done",
    "error_code": "the name of the `KafkaError`, or outboxd's own",
    "exit_code": "what the program ended with; negative: the signal",
    "expected": "outbox rows that the statement was to change",
    "held_records": "failed records of the daemon before that hold their keys",
    "in_memory": "records between fetch and settlement",
    "job": "the job's name",
    "lines": "how many log lines were dropped since the last such event",
    "logger": "the library's own name for where it comes from",
    "matched": "outbox rows that it did change",
    "outbox_id": "the row's id in the outbox table",
    "open_seconds": "how long the breaker was open",
    "partition": "the partition's number",
    "path": "the path of the request, without its query",
    "place": "topic-partition@offset in Kafka",
    "reason": "why",
    "rows": "how many rows",
    "sample_id": "the id of the newest of these dead letters",
    "sql": "what to type in psql to see it",
    "suppressed": "alerts that were dropped since the last such event",
    "table": "the table, without its schema",
    "token": "the lease's fencing number",
    "topic": "the topic",
    "transaction": "the number of the Kafka transaction, as its progress record has it",
    "unknown_rows": "records whose outcome nobody knows: they go again",
    "unsettled_rows": "records in memory that were not settled: they stay pending",
    "who": "who asked for it",
}
"""What a field means, wherever it stands."""


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
        "This daemon relays the outbox now (token {token}); {held_records} failed records hold their keys.",
        ("token", "held_records"),
    ),
    EventKind(
        "lease_lost",
        "warning",
        "This daemon does not relay the outbox any more: {reason}. {unsettled_rows} records in memory stay pending.",
        ("reason", "unsettled_rows"),
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
        "The relay ended: {reason}; {unsettled_rows} records in memory stay pending.",
        ("reason", "unsettled_rows"),
    ),
    EventKind(
        "careful_start",
        "warning",
        "The relay before this one ended uncleanly: rows go in small, recorded batches for a while, and {count} that "
        "were in the air then go by a process of their own first.",
        ("count",),
    ),
    EventKind("careful_end", "info", "{rows} rows went with care, and nothing died of them; care ends.", ("rows",)),
    EventKind(
        "crashing_row_found",
        "error",
        "Row {outbox_id} of topic {topic} kills whoever sends it, and is dead-lettered: {cause}",
        ("topic", "outbox_id", "cause"),
        alerts=True,
    ),
    # The database.
    EventKind("database_failed", "error", "The database failed during {during}: {cause}", ("during", "cause")),
    EventKind(
        "listening", "info", "Notifications of new rows come from now on; an idle outbox is polled once a second."
    ),
    EventKind(
        "listening_lost",
        "warning",
        "No notifications come; the outbox is polled at its usual pace, and listening is tried every second: {cause}",
        ("cause",),
    ),
    EventKind(
        "settle_fenced",
        "warning",
        "A settlement of {rows} rows changed nothing: {reason}.",
        ("rows", "reason"),
    ),
    EventKind(
        "settle_mismatch",
        "warning",
        "A settlement changed {matched} rows, not {expected}: somebody else changed or deleted rows of the outbox.",
        ("expected", "matched"),
    ),
    EventKind(
        "late_rows_found",
        "info",
        "The sweep found {rows} rows whose ids were drawn long before their insert; they go now, without order.",
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
        "in_flight_stalled",
        "error",
        "Nothing moves: the oldest of {in_memory} records in memory, of topic {topic}, is stuck.",
        ("topic", "in_memory"),
        alerts=True,
    ),
    EventKind("in_flight_moving", "info", "Records move again; {in_memory} are in memory.", ("in_memory",)),
    EventKind(
        "producer_rebuilt",
        "error",
        "The producer failed and was built anew; {unknown_rows} records of unknown outcome go again, in order: {cause}",
        ("error_code", "cause", "unknown_rows"),
    ),
    EventKind(
        "acknowledged_records_lost",
        "error",
        "At least {count} acknowledged records of {topic}-{partition} are not in the log any more, as after the "
        "election of an out-of-date replica. `outboxd audit` names their rows, `outboxd audit --republish` sends them "
        "again.",
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
        "What the daemon before this one committed to Kafka and had not settled is settled now: {rows} rows, up to "
        "transaction {transaction}.",
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
        "The producer was built anew for another configuration; {unknown_rows} records without a report go again.",
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
        "{rows} dead letters go again, asked for by {who}.",
        ("rows", "who", "sample_id"),
    ),
    EventKind(
        "dead_letters_discarded",
        "info",
        "{rows} dead letters were discarded, asked for by {who}.",
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
        "purged", "info", "{rows} rows of {table} that are past their retention were removed.", ("table", "rows")
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
        "alerts_dropped", "warning", "{suppressed} alerts were dropped: the alert command is too slow.", ("suppressed",)
    ),
    # The daemon's own surroundings.
    EventKind(
        "log_lines_dropped",
        "warning",
        "{lines} log lines were dropped: what takes the log was too slow.",
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


def document() -> str:
    """The text of `docs/events.md`."""
    lines = [
        "# Events",
        "",
        "<!-- Made by `python -m outboxd.observability.events > docs/events.md` from the catalogue in that module. -->",
        "",
        "Each line of the log is one of these events. The name is stable: filter and alert by it. In the journal the",
        "name is `OUTBOXD_EVENT`, the sentence `MESSAGE`, and each field `OUTBOXD_` and its name in capitals; in JSON",
        "they are `event`, `message` and the fields as they are. All are counted in the metric",
        "`outboxd_events_total{event}`. Events marked ✉ are given to `alerts.command` too, at most one a minute for",
        "each event and topic.",
        "",
        "| event | level | sentence | fields |",
        "|---|---|---|---|",
    ]
    for kind in sorted(CATALOGUE.values(), key=lambda kind: kind.name):
        mark = " ✉" if kind.alerts else ""
        fields = ", ".join(f"`{name}`" for name in kind.fields)
        lines.append(f"| `{kind.name}`{mark} | {kind.level} | {kind.sentence} | {fields} |")
    lines += ["", "## Fields", "", "| field | meaning |", "|---|---|"]
    lines += [f"| `{name}` | {meaning} |" for name, meaning in sorted(FIELDS.items())]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(document())
