"""Rows for tests, put in by SQL as an application, or in place of the daemon."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg

Connection = psycopg.Connection[Any]


def value(connection: Connection, query: str, *parameters: object) -> Any:
    """The single value of a query."""
    row = connection.execute(query, parameters or None).fetchone()
    assert row is not None, query
    return row[0]


@dataclass
class Letters:
    """Puts dead letters and published rows where the daemon would."""

    connection: Connection

    def enqueue(self, topic: str = "orders", key: str | None = "k", payload: bytes | None = b"x") -> int:
        """A committed row; returns its id."""
        row_id: int = value(
            self.connection,
            "INSERT INTO outboxd.outbox (topic, key, payload) VALUES (%s, %s, %s) RETURNING id", topic, key, payload,
        )  # fmt: skip
        return row_id

    def publish(self, row_id: int) -> None:
        """Marked as after a delivery report."""
        self.connection.execute(
            "UPDATE outboxd.outbox SET published_at = now(), published_partition = 0, published_offset = %s"
            " WHERE id = %s",
            (row_id, row_id),
        )

    def bury(
        self, row_id: int, *, code: str = "MSG_SIZE_TOO_LARGE", reason: str = "fatal", holds_key: bool = False
    ) -> int:
        """The row moves among the dead letters, as the daemon moves it; returns the dead letter's id."""
        letter_id: int = value(
            self.connection,
            "WITH gone AS (DELETE FROM outboxd.outbox WHERE id = %s RETURNING *)"
            " INSERT INTO outboxd.dead_letter (outbox, outbox_id, event_id, topic, key, payload, headers, partition,"
            " created_at, attempts, reason, error_code, error_message, daemon, holds_key)"
            " SELECT 'default', id, event_id, topic, key, payload, headers, partition, created_at, 1, %s, %s,"
            " 'Broker: Message size too large (10): raise max.message.bytes', 'here:1', %s FROM gone RETURNING id",
            row_id, reason, code, holds_key,
        )  # fmt: skip
        return letter_id

    def acquire(self, *, deleted_through: int | None = 0) -> None:
        """A daemon holds the lease, and has deleted published rows up to an id (None: it deletes them all)."""
        self.connection.execute(
            "INSERT INTO outboxd.lease (outbox, holder, daemon, token, expires_at, deleted_through)"
            " VALUES ('default', gen_random_uuid(), 'here:1', 1, now() + interval '1 hour', %s)"
            " ON CONFLICT (outbox, shard) DO UPDATE SET deleted_through = excluded.deleted_through",
            (deleted_through,),
        )

    def status_of(self, letter_id: int) -> str:
        status: str = value(self.connection, "SELECT status FROM outboxd.dead_letter WHERE id = %s", letter_id)
        return status
