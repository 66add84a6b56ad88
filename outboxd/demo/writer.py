"""The demo's application: commits events of some customers, and remembers what it wrote."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from uuid import UUID

import psycopg

ROWS = 1000
ROWS_A_TRANSACTION = 10
CUSTOMERS = 20
TOPICS = ("orders", "payments")
#: More than the client's `message.max.bytes` allows: no repetition ever helps.
POISON_PAYLOAD_BYTES = 1_200_000
POISON_POSITION = 640
STUMBLE_POSITION = 412
#: A header by which the publisher of the demo knows the record that it lets fail once.
STUMBLE_HEADER = "demo-stumble"


@dataclass(frozen=True, slots=True)
class WrittenRow:
    """A committed row."""

    id: int
    event_id: UUID
    topic: str
    key: str
    payload: bytes
    is_poison: bool


def write(url: str, schema: str = "outboxd", rows: int = ROWS) -> Iterator[Sequence[WrittenRow]]:
    """Insert `rows` rows, a few in each transaction; each yield is one committed transaction."""
    from psycopg import sql

    insert = sql.SQL(
        "INSERT INTO {}.outbox (topic, key, payload, headers) VALUES (%s, %s, %s, %s::jsonb) RETURNING id, event_id"
    ).format(sql.Identifier(schema))
    with psycopg.connect(url) as connection:
        for start in range(0, rows, ROWS_A_TRANSACTION):
            written = []
            for position in range(start, min(start + ROWS_A_TRANSACTION, rows)):
                topic, key, payload, headers = _event(position)
                row = connection.execute(insert, (topic, key, payload, json.dumps(headers))).fetchone()
                if row is None:
                    raise RuntimeError("INSERT … RETURNING returned nothing")
                written.append(WrittenRow(row[0], row[1], topic, key, payload, position == POISON_POSITION))
            connection.commit()
            yield written


def _event(position: int) -> tuple[str, str, bytes, dict[str, str]]:
    # Every customer has events in both topics; their numbers count up, so that order can be seen in the payloads too.
    topic = TOPICS[position // CUSTOMERS % len(TOPICS)]
    key = f"customer-{position % CUSTOMERS + 1:02}"
    event: dict[str, object] = {"customer": key, "number": position // CUSTOMERS + 1, "amount": 100 + position % 37}
    if position == POISON_POSITION:
        event["attachment"] = "x" * POISON_PAYLOAD_BYTES
    headers = {STUMBLE_HEADER: "fails once, then passes"} if position == STUMBLE_POSITION else {"content-type": "json"}
    return topic, key, json.dumps(event).encode(), headers
