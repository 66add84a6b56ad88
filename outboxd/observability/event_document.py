"""The text of `docs/events.md`: python -m outboxd.observability.event_document > docs/events.md."""

from __future__ import annotations

import sys
from typing import Final

from outboxd.observability.events import CATALOGUE

FIELDS: Final[dict[str, str]] = {
    "address": "host and port of `http.listen`",
    "cause": "what went wrong, in one line, with the remedy where one is known",
    "changed": "names of settings, without their values",
    "command": "the program of `alerts.command`",
    "cluster": "the id of the Kafka cluster that answers",
    "confirm": "the route's `confirm`",
    "created_at": "when the row was created, which is the message's timestamp",
    "count": "how many there are of it",
    "during": "what was being done",
    "error_code": "the name of the `KafkaError`, or outboxd's own",
    "exit_code": "what the program ended with; negative: the signal",
    "expected": "outbox rows that the statement was to change",
    "former": "the id of the cluster that answered before",
    "from_id": "the id of the first row that is read again",
    "held_records": "failed records of the daemon before that hold their keys",
    "in_memory": "records between fetch and settlement",
    "job": "the job's name",
    "lines": "how many log lines were dropped since the last such event",
    "logger": "the library's own name for where it comes from",
    "later": "what becomes of the row then",
    "matched": "outbox rows that it did change",
    "others": "what becomes of all other rows meanwhile",
    "outbox_id": "the row's id in the outbox table",
    "open_seconds": "how long the breaker was open",
    "partition": "the partition's number",
    "partitions": "numbers of partitions",
    "path": "the path of the request, without its query",
    "pause_seconds": "for how long it is not tried again",
    "place": "topic-partition@offset in Kafka",
    "position": "the id up to which the outbox was read",
    "reason": "why",
    "row": "a row or a dead letter, by its id",
    "rows": "how many rows",
    "sample_id": "the id of the newest of these dead letters",
    "sql": "what to type in psql to see it",
    "suppressed": "alerts that were dropped since the last such event",
    "table": "the table, without its schema",
    "then": "what becomes of the topic, or of its partitions",
    "thread": "the thread's name",
    "token": "the lease's fencing number",
    "topic": "the topic",
    "traceback": "where in the code, for a report of the bug",
    "transaction": "the number of the Kafka transaction, as its progress record has it",
    "unknown_rows": "records whose outcome nobody knows: they go again",
    "unsettled_rows": "records in memory that were not settled: they stay pending",
    "who": "who asked for it",
}
"""What a field means, wherever it stands."""


def document() -> str:
    """The text of `docs/events.md`."""
    lines = [
        "# Events",
        "",
        "<!-- Made by `python -m outboxd.observability.event_document > docs/events.md` from the catalogue. -->",
        "",
        "Each line of the log is one of these events. The name is stable: filter and alert by it. In the journal the",
        "name is `OUTBOXD_EVENT`, the sentence `MESSAGE`, and each field `OUTBOXD_` and its name in capitals; in JSON",
        "they are `event`, `message` and the fields as they are. All are counted in the metric",
        "`outboxd_events_total{event}`. Events marked ✉ are given to `alerts.command` too, at most one a minute for",
        "each event and topic; one with the name of another beside it only after that other.",
        "",
        "| event | level | sentence | fields |",
        "|---|---|---|---|",
    ]
    for kind in sorted(CATALOGUE.values(), key=lambda kind: kind.name):
        mark = " ✉" if kind.alerts else ""
        mark += f" after `{kind.ends}`" if kind.ends else ""
        fields = ", ".join(f"`{name}`" for name in kind.fields)
        lines.append(f"| `{kind.name}`{mark} | {kind.level} | {kind.sentence} | {fields} |")
    lines += ["", "## Fields", "", "| field | meaning |", "|---|---|"]
    lines += [f"| `{name}` | {meaning} |" for name, meaning in sorted(FIELDS.items())]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(document())
