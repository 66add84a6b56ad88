"""Published rows, for those who hold them against the log: a walk along the primary key by short statements."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Engine, TextClause, text

from outboxd.policy.exchange.auditing import PublishedRow
from outboxd.policy.rows.records import FIRST_ID, Arm, Record
from outboxd.postgres.schema.sql_text import in_schema

WINDOW_ROWS = 50_000
"""So many rows of the table one statement looks at; there is no index on published rows."""
RECORDS_AT_ONCE = 200


class PublishedRows:
    """The published rows of one outbox."""

    def __init__(self, engine: Engine, schema: str, table: str) -> None:
        """Nothing is read before it is asked for."""
        self._engine = engine
        self._schema, self._table = schema, table

    def span(self) -> tuple[int, int]:
        """Return the lowest and the highest id in the table; (0, 0) when it is empty."""
        with self._engine.connect() as connection:
            low, high = connection.execute(self._sql("SELECT min(id), max(id) FROM @outbox@")).one()
        return (0, 0) if low is None else (low, high)

    def _sql(self, sql: str) -> TextClause:
        return in_schema(sql, self._schema, table=self._table)

    def windows(
        self, *, topic: str | None, since: datetime | timedelta | None
    ) -> Iterator[tuple[int, list[PublishedRow], int]]:
        """Walk the table by id, up to the highest that it has now; give the last id looked at, the published rows with
        their places, and the number of published rows that have none.

        Args:
            topic: only of this topic.
            since: published at this time or later; a timedelta counts back from the database's now.
        """
        with self._engine.connect() as connection:
            if isinstance(since, timedelta):
                # Once, so that the edge does not move while the audit runs.
                since = connection.execute(text("SELECT now() - :since"), {"since": since}).scalar_one()
            # Those that come meanwhile are another audit's: a busy outbox would have new ones for ever.
            newest = connection.execute(self._sql("SELECT max(id) FROM @outbox@")).scalar_one()
            cursor = FIRST_ID
            while True:
                upper = connection.execute(
                    self._sql(
                        "SELECT max(id) FROM (SELECT id FROM @outbox@ WHERE id > :cursor AND id <= :newest"
                        f" ORDER BY id LIMIT {WINDOW_ROWS}) AS w"
                    ),
                    {"cursor": cursor, "newest": newest},
                ).scalar_one()
                if upper is None:
                    return
                rows, unconfirmed = self._window(connection, cursor, upper, topic, since)
                yield upper, rows, unconfirmed
                cursor = upper

    def _window(
        self, connection: Connection, cursor: int, upper: int, topic: str | None, since: Any
    ) -> tuple[list[PublishedRow], int]:
        conditions = "id > :cursor AND id <= :upper AND published_at IS NOT NULL"
        values: dict[str, object] = {"cursor": cursor, "upper": upper}
        if topic is not None:
            conditions += " AND topic = :topic"
            values["topic"] = topic
        if since is not None:
            conditions += " AND published_at >= :since"
            values["since"] = since
        found = connection.execute(
            self._sql(
                "SELECT id, coalesce(event_id::text, ''), topic::text, key::text, published_partition,"
                " published_offset,"
                " CASE WHEN isfinite(created_at) THEN (date_part('epoch', created_at) * 1000)::bigint ELSE 0 END"
                f" FROM @outbox@ WHERE {conditions} ORDER BY id"
            ),
            values,
        ).fetchall()
        placed = [PublishedRow(*row) for row in found if row[4] is not None and row[5] is not None]
        return placed, len(found) - len(placed)

    def records(self, record_ids: Sequence[int]) -> Iterator[Record]:
        """Give these rows whole, in id order, as far as they are still there and published."""
        with self._engine.connect() as connection:
            for at in range(0, len(record_ids), RECORDS_AT_ONCE):
                found = connection.execute(
                    self._sql(
                        f"SELECT {int(Arm.CHOSEN)}, id, coalesce(event_id::text, ''), topic::text, key::text, payload,"
                        " coalesce(headers::text, '{}'), partition,"
                        " CASE WHEN created_at = '-infinity' THEN -1 ELSE"
                        " (date_part('epoch', least(created_at, now())) * 1000)::bigint END,"
                        " coalesce(octet_length(payload), 0) + coalesce(octet_length(key), 0) + octet_length(topic)"
                        " + coalesce(octet_length(headers::text), 0) FROM @outbox@"
                        " WHERE id = ANY(:ids) AND published_at IS NOT NULL ORDER BY id"
                    ),
                    {"ids": list(record_ids[at : at + RECORDS_AT_ONCE])},
                ).fetchall()
                yield from (Record(*row) for row in found)
