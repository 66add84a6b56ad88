"""What is told of Kafka: topics on hold, brokers that do not answer, the producer, and what became of records."""

from __future__ import annotations

from typing import Final

from outboxd.observability.events.kinds import EventKind

BROKER_EVENTS: Final = (
    # Topics on hold.
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
        "The topic {topic}, on hold for {error_code} for {open_seconds} s, {then}.",
        ("topic", "error_code", "open_seconds", "then"),
        alerts=True,
    ),
    EventKind(
        "partitions_held",
        "warning",
        "Of topic {topic} these partitions give no answer: {partitions}. Their rows stay pending and nothing is "
        "counted against them; the topic's others go on.",
        ("topic", "partitions"),
        alerts=True,
    ),
    EventKind(
        "partitions_released",
        "info",
        "What was held of topic {topic} {then}. Partitions: {partitions}.",
        ("topic", "partitions", "then"),
        alerts=True,
    ),
    EventKind(
        "storm_guard",
        "error",
        "The topic {topic} is held until an operator resumes it, since many keys in a row failed for good: {cause}",
        ("topic", "error_code", "cause"),
        alerts=True,
    ),
    # Brokers that do not answer, and records that are stuck.
    EventKind(
        "kafka_failed",
        "error",
        "No broker answers, so rows wait and nothing is counted against them: {cause}",
        ("cause",),
        alerts=True,
    ),
    EventKind("kafka_answers", "info", "A broker answers again.", alerts=True),
    EventKind(
        "kafka_cluster_changed",
        "error",
        "Another Kafka cluster answers: {cluster}, and not {former} as before, which has what was published. What was "
        "not settled goes to this one, by a new producer. If that is not meant, stop the daemon and find out who has "
        "the addresses of bootstrap.servers.",
        ("former", "cluster"),
        alerts=True,
    ),
    EventKind(
        "topic_remade",
        "error",
        "The topic {topic} stands still, and is another one than before under that name: it was deleted and created "
        "again. A new producer sends what waits for it. What was published to the former one is lost with it: "
        "`outboxd audit` names the rows, `outboxd audit --republish` sends them again.",
        ("topic",),
        alerts=True,
    ),
    EventKind(
        "in_flight_stalled",
        "error",
        "The oldest record of topic {topic} in memory is stuck: no answer for 10 s. Records in memory: {in_memory}. "
        "What was said of the connections lately: {cause}",
        ("topic", "in_memory", "cause"),
        alerts=True,
    ),
    EventKind(
        "in_flight_moving",
        "info",
        "What was stuck of topic {topic} {then}. Records in memory: {in_memory}.",
        ("topic", "then", "in_memory"),
        alerts=True,
    ),
    # The producer and its transactions.
    EventKind(
        "producer_rebuilt",
        "error",
        "The producer failed and was built anew. Records of unknown outcome go again, in order: {unknown_rows}. Why: "
        "{cause}",
        ("error_code", "cause", "unknown_rows"),
    ),
    EventKind(
        "chains_ended",
        "info",
        "Records of keys with many rows went together, and one failed. Rows that go again, one at a time of each key: "
        "{rows}, of which {unknown_rows} may be in Kafka. For {pause_seconds} s no others go together. Why: {cause}",
        ("topic", "error_code", "cause", "rows", "unknown_rows", "pause_seconds"),
    ),
    EventKind(
        "producer_renewed",
        "info",
        "The producer was built anew, since {reason}. Records without a report go again: {unknown_rows}.",
        ("unknown_rows", "reason"),
    ),
    EventKind(
        "recovered",
        "info",
        "What the daemon before this one committed to Kafka and had not settled is settled now, up to transaction "
        "{transaction}. Rows: {rows}.",
        ("rows", "transaction"),
        alerts=True,
        ends="recovery_failed",
    ),
    EventKind(
        "recovery_failed",
        "error",
        "What was committed to Kafka before cannot be read yet, and nothing is sent until it is: {cause}",
        ("cause",),
        alerts=True,
    ),
    # What became of records.
    EventKind(
        "acknowledged_records_lost",
        "error",
        "Acknowledged records of {topic}-{partition} are not in the log any more, as after the election of an "
        "out-of-date replica, or where the topic was deleted and created again: at least {count}. `outboxd audit` "
        "names their rows, `outboxd audit --republish` sends them again.",
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
)
