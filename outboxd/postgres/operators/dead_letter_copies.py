"""Which dead letters wait to be copied to Kafka, and the note that they were."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Engine

from outboxd.policy.exchange.dead_letter_copies import DeadCopy
from outboxd.postgres.connections.failures import explained
from outboxd.postgres.schema.finite import finite
from outboxd.postgres.schema.sql_text import in_schema

BATCH_ROWS = 200
BATCH_BYTES = 8 * 1024 * 1024


class DeadLetterCopyRows:
    """The dead letters of one outbox, as the copies see them."""

    def __init__(self, engine: Engine, schema: str, outbox: str) -> None:
        """Nothing is read before it is asked for."""
        self._engine = engine
        self._schema = schema
        self._outbox = outbox

    def waiting(self) -> list[DeadCopy]:
        """Return the next dead letters that were never copied or died again since; the lowest ids first, within
        limits of rows and bytes.
        """
        statement = (
            f"SELECT id, {finite('died_at')}, outbox_id, event_id, topic, key, payload, headers, partition, error_code,"
            " error_message FROM (SELECT d.id, d.died_at, d.outbox_id, d.event_id::text, d.topic, d.key, d.payload,"
            " d.headers::text, d.partition, d.error_code, d.error_message,"
            " sum(coalesce(octet_length(d.payload), 0)) OVER (ORDER BY d.id) - coalesce(octet_length(d.payload), 0)"
            " AS bytes_before FROM (SELECT * FROM @schema@.dead_letter AS l WHERE l.outbox = :outbox"
            " AND (l.copied_at IS NULL OR l.copied_at < l.died_at) ORDER BY l.id"
            f" LIMIT {BATCH_ROWS}) AS d) AS w WHERE bytes_before < {BATCH_BYTES} ORDER BY id"
        )
        with explained(), self._engine.connect() as connection:
            return [
                DeadCopy(*row)
                for row in connection.execute(in_schema(statement, self._schema), {"outbox": self._outbox})
            ]

    def copied(self, letters: Sequence[DeadCopy]) -> None:
        """Note that these are in Kafka. One that died again meanwhile stays waiting."""
        statement = (
            # A clock that was set back must not make it wait again.
            "UPDATE @schema@.dead_letter AS l SET copied_at = greatest(now(), l.died_at)"
            " FROM unnest(CAST(:ids AS bigint[]), CAST(:died_at AS timestamptz[])) AS c(id, died_at)"
            f" WHERE l.id = c.id AND {finite('l.died_at')} = c.died_at"
        )
        values = {"ids": [letter.id for letter in letters], "died_at": [letter.died_at for letter in letters]}
        with explained(), self._engine.connect() as connection:
            connection.execute(in_schema(statement, self._schema), values)
