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
    """Puts dead letters and published rows where the daemon of this outbox would."""

    connection: Connection
    outbox: str = "default"
    table: str = "outbox"

    def enqueue(self, topic: str = "orders", key: str | None = "k", payload: bytes | None = b"x") -> int:
        """A committed row; returns its id."""
        row_id: int = value(
            self.connection,
            f"INSERT INTO outboxd.{self.table} (topic, key, payload) VALUES (%s, %s, %s) RETURNING id",
            topic, key, payload,
        )  # fmt: skip
        return row_id

    def publish(self, row_id: int) -> None:
        """Marked as after a delivery report."""
        self.connection.execute(
            f"UPDATE outboxd.{self.table} SET published_at = now(), published_partition = 0, published_offset = %s"
            " WHERE id = %s",
            (row_id, row_id),
        )

    def bury(
        self, row_id: int, *, code: str = "MSG_SIZE_TOO_LARGE", reason: str = "fatal", holds_key: bool = False
    ) -> int:
        """The row moves among the dead letters, as the daemon moves it; returns the dead letter's id."""
        letter_id: int = value(
            self.connection,
            f"WITH gone AS (DELETE FROM outboxd.{self.table} WHERE id = %s RETURNING *)"
            " INSERT INTO outboxd.dead_letter (outbox, outbox_id, event_id, topic, key, payload, headers, partition,"
            " created_at, attempts, reason, error_code, error_message, daemon, holds_key)"
            " SELECT %s, id, event_id, topic, key, payload, headers, partition, created_at, 1, %s, %s,"
            " 'Broker: Message size too large (10): raise max.message.bytes', 'here:1', %s FROM gone RETURNING id",
            row_id, self.outbox, reason, code, holds_key,
        )  # fmt: skip
        return letter_id

    def fail(self, row_id: int) -> None:
        """The row is to be tried again, as after a failed delivery."""
        self.connection.execute(
            "INSERT INTO outboxd.retry (outbox, outbox_id, attempts, next_attempt_at, error_code, error_message)"
            " VALUES (%s, %s, 1, now(), 'REQUEST_TIMED_OUT', 'late')",
            (self.outbox, row_id),
        )

    def acquire(self, *, deleted_through: int | None = 0) -> None:
        """A daemon holds the lease, and has deleted published rows up to an id (None: it deletes them all)."""
        self.connection.execute(
            "INSERT INTO outboxd.lease (outbox, holder, daemon, token, expires_at, deleted_through, relayed_table)"
            " VALUES (%s, gen_random_uuid(), 'here:1', 1, now() + interval '1 hour', %s, %s)"
            " ON CONFLICT (outbox, shard) DO UPDATE SET deleted_through = excluded.deleted_through",
            (self.outbox, deleted_through, self.table),
        )

    def status_of(self, letter_id: int) -> str:
        status: str = value(self.connection, "SELECT status FROM outboxd.dead_letter WHERE id = %s", letter_id)
        return status
